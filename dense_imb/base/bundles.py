"""Checks of files of `torch.save` before torch loads them."""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO

_WHOLE = "damaged, or made to take more memory than it has bytes; save it again with torch.save"
# functions that torch lets a file call, and that make any number of bytes
_GROWING = re.compile(rb"\nbytearray\n|_rebuild_device_tensor_from_")
_ENCODES = b"_codecs\nencode\n"  # used for bytes; by these codecs bytes become more bytes
_GROWING_CODECS = re.compile(r"(base64|bz2|hex|quopri|quotedprintable|rot13|uu|zip|zlib)(codec)?")


def check_bundle(file: Path | IO[bytes], *, sums: bool = False) -> None:
    """Refuse a bundle that would take more memory than its bytes, or declares other bytes.

    torch.save compresses nothing. torch unpacks records that are, and reads those that it maps as
    they are packed.

    Args:
        file: the bundle.
        sums: compare the records with their checksums, too, which torch ignores.
    """
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"the compressed record {record.filename}; {_WHOLE}")
        if sum(record.file_size for record in records) > archive.fp.seek(0, 2):  # type: ignore[union-attr]
            raise ValueError(f"records larger than the file; {_WHOLE}")
        if sums and (damaged := archive.testzip()) is not None:
            raise ValueError(f"other bytes in {damaged} than its checksum says; save it again")
        for record in records:
            if record.filename.rpartition("/")[2] == "data.pkl":
                _check_pickle(archive.read(record))


def _check_pickle(content: bytes) -> None:
    if _GROWING.search(content):
        raise ValueError(f"a call that makes bytes; {_WHOLE}")
    if _ENCODES in content:
        for _, constant, _ in pickletools.genops(content):
            name = re.sub(r"[\W_]", "", constant.lower()) if isinstance(constant, str) else ""
            if _GROWING_CODECS.fullmatch(name):
                raise ValueError(
                    f"bytes beside the text {constant!r}, which could encode them without end; "
                    "save plain tensors with torch.save"
                )
