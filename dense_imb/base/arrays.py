"""Arrays of .npy files of unknown origin: mapped into memory, never unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import check_stored


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array of a .npy file; a header that declares more than the file holds is refused."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise TypeError("an archive of several; name it .npz")
    check_stored(path, array.nbytes)
    return array
