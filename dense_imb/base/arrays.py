"""Arrays of .npy files of unknown origin: mapped into memory, never unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import check_stored


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array of a .npy file; a header that declares more than the file holds is refused."""
    _check_header(path)
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise TypeError("an archive of several; name it .npz")
    check_stored(path, array.nbytes)
    further = path.stat().st_size - getattr(array, "offset", 0) - array.nbytes
    if further and array.ndim:
        raise ValueError(
            f"{further:,} further bytes behind the {array.nbytes:,} that it declares; save one "
            "array a file"
        )
    return array


def _check_header(path: Path) -> None:
    """Refuse a header that declares to be longer than the file: numpy would make room for it."""
    with path.open("rb") as file:
        start = file.read(12)
    if start[:6] == b"\x93NUMPY" and start[6:7] > b"\x01":
        length = int.from_bytes(start[8:12], "little")
        if length > path.stat().st_size:
            raise ValueError(f"it declares a header of {length:,} bytes")
