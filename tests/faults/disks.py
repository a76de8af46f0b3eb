"""A small disk for a case, where mounting is allowed, and a root that heeds permissions."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

_CAPABILITIES = 0x20080522  # version of the structures below
_OVERRIDE = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
_BOUNDING_DROP = 24  # option of prctl
_NEWNS, _PRIVATE, _REC, _REMOUNT, _DETACH = 0x20000, 1 << 18, 1 << 14, 1 << 5, 2


class Disk:
    """The disk below a folder; a full one is made by `shrink`.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._is_mounted = folder, False

    def mount(self) -> bool:
        """Put an own disk in memory at the folder; False where that is not allowed."""
        if not _may_mount():
            return False
        self._is_mounted = self._mount(0, "size=1g")
        return self._is_mounted

    def unmount(self) -> None:
        """Take it away again, if there is one."""
        if self._is_mounted:
            _libc().umount2(os.fsencode(self.folder), _DETACH)

    def shrink(self, free: int) -> None:
        """Leave so many free bytes."""
        disk = os.statvfs(self.folder)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        if not self._mount(_REMOUNT, f"size={used + free}"):
            raise OSError("Expected to make the disk smaller, got a refusal.")

    def grow(self) -> None:
        """Make room again."""
        self._mount(_REMOUNT, "size=1g")

    def _mount(self, flags: int, options: str) -> bool:
        where = os.fsencode(self.folder)
        return bool(_libc().mount(b"faults", where, b"tmpfs", flags, options.encode()) == 0)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _may_mount() -> bool:
    """Enter a mount namespace, which ends with this process and all its mounts."""
    if not hasattr(_libc(), "unshare") or _libc().unshare(_NEWNS) != 0:
        return False
    return bool(_libc().mount(None, b"/", None, _PRIVATE | _REC, None) == 0)


def heed_permissions() -> None:
    """Give up root's right to write and read what permissions forbid, in this process for good."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, of two words each
    if _libc().capget(header, sets) == 0:
        for number in (1, 2):  # nor may a program that it starts have them
            _libc().prctl(_BOUNDING_DROP, number, 0, 0, 0)
        for k in range(3):
            sets[k] &= ~_OVERRIDE
        if _libc().capset(header, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), "Expected to give up rights of root, got a refusal.")
