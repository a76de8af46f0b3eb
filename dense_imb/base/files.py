"""Files written whole or not at all, and one sentence for a file that cannot be read.

A file grows under a temporary name of its process. A process that was killed leaves it behind; the
next one that writes to the folder removes it.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dense_imb.base.refusals import Refused, RefusedFile, nearest

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{6})-(?P<pid>\d+)-\d+\.(partial|old)")
_LONGEST = 255  # bytes of a file name
_COMPARED = 1000  # names beside a missing file that are compared with it
_EXCHANGE = 2  # flag of renameat2: swap two paths
_HERE = -100  # file descriptor that means the current folder
_cleared: set[str] = set()  # folders that this process has looked through
_counter = itertools.count()

MAX_COMPRESSION = 1100  # deflate packs at most 1032 to 1; a bomb declares more
_SMALL = 1 << 26  # bytes that are read whatever the disk holds


class UnreadableFileError(ValueError):
    """A file that is damaged, dangerous, or of another kind than expected."""


def missing_path(path: Path, wanted: str, is_likely: Callable[[Path], bool]) -> FileNotFoundError:
    """Return the error of a missing file or folder, with the nearest name beside it.

    Args:
        path: the path that was given.
        wanted: what was expected there: "a hits file".
        is_likely: whether a path beside it is a file or folder of this kind.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "hits.h5").touch()
        >>> str(missing_path(folder / "hist.h5", "a file", Path.is_file)).endswith("hits.h5'?")
        True
    """
    names: list[str] = []
    with suppress(OSError):  # a folder may be missing, too
        for name in itertools.islice(sorted(os.listdir(path.parent)), _COMPARED):
            with suppress(OSError):
                names += [name] if is_likely(path.parent / name) else []
    near = nearest(path.name, names, cutoff=0.6)
    hint = "" if near is None else f" Did you mean {str(path.parent / near)!r}?"
    return FileNotFoundError(f"Expected {wanted} at {path}, got none.{hint}")


@contextmanager
def decoding(wanted: str) -> Iterator[None]:
    """Raise one `UnreadableFileError` for the exceptions of many kinds that decoders raise.

    Errors of the system (a missing file, no permission, a failing disk), missing libraries and a
    lack of memory pass unchanged.

    Args:
        wanted: what was expected and where, without "Expected": "an image in a.png".

    Example:
        >>> with decoding("a number in a.txt"):
        ...     float("1,5")
        Traceback (most recent call last):
        dense_imb.base.files.UnreadableFileError: Expected a number in a.txt, got could not convert
        string to float: '1,5'.
    """
    try:
        yield
    except (ImportError, MemoryError, UnreadableFileError):
        raise
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise
        raise UnreadableFileError(f"Expected {wanted}, got {reason_of(problem)}.") from problem


def reason_of(problem: Exception) -> str:
    """Return the first paragraph of an exception on one line, without a full stop."""
    first = str(problem).strip().split("\n\n")[0]
    return " ".join(first.split()).rstrip(".") or type(problem).__name__


def check_stored(path: Path, declared: int) -> None:
    """Refuse a file with far fewer bytes on the disk than it declares, before memory is taken.

    Files with holes declare any size over a few stored bytes. Disks may compress, too.

    Args:
        path: the file.
        declared: bytes that its header declares.
    """
    stored = path.stat().st_blocks * 512
    if declared > _SMALL and declared > stored * MAX_COMPRESSION:
        raise UnreadableFileError(
            f"Expected {path} to be stored whole, got {declared / 1e6:,.1f} MB declared and "
            f"{stored / 1e6:,.1f} MB stored; the file is damaged or hostile."
        )


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then move it to `path`: no half-written result."""
    path = Path(path)
    partial = temporary_path(path)
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as problem:
        if problem.errno is None or problem.filename is not None:
            raise
        # a write that fails on a full disk knows no name
        raise OSError(problem.errno, os.strerror(problem.errno), str(path)) from problem
    finally:
        partial.unlink(missing_ok=True)


def write_whole_folder(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder, then move it to `path` in place of an earlier one."""
    path = Path(path)
    new = temporary_path(path)
    try:
        new.mkdir()
        write(new)
        if not path.exists():
            new.rename(path)
        elif not _exchange(new, path):
            old = temporary_path(path, "old")
            path.rename(old)
            try:
                new.rename(path)
            except BaseException:
                old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system cannot."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    paths = (os.fsencode(first.absolute()), os.fsencode(second.absolute()))
    return bool(swap(_HERE, paths[0], _HERE, paths[1], _EXCHANGE) == 0)


def temporary_path(path: Path, suffix: str = "partial") -> Path:
    """Return a hidden name beside `path` that says which process writes there.

    Args:
        path: file or folder to write.
        suffix: "partial" for the new content, "old" for one that is replaced.
    """
    folder = os.path.realpath(path.parent)
    if folder not in _cleared:
        _cleared.add(folder)
        clear_leftovers(path.parent)
    ending = f".{_machine()}-{os.getpid()}-{next(_counter)}.{suffix}"
    name = path.name
    while len(os.fsencode(name)) + len(ending) + 1 > _LONGEST:
        name = name[:-1]
    return path.with_name(f".{name}{ending}")


def final_name(name: str) -> str:
    """Return the name that a temporary file gets when it is complete.

    Example:
        >>> final_name("runs/.config.yaml.0a1b2c-31-7.partial"), final_name("runs/a.csv")
        ('runs/config.yaml', 'runs/a.csv')
    """
    folder, last = os.path.split(name)
    temporary = _TEMPORARY.fullmatch(last)
    return name if temporary is None else os.path.join(folder, temporary["name"])


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes of this machine that have ended.

    Files of other programs, of running processes and of other machines stay. A folder that was
    about to be replaced gets its name back.
    """
    with suppress(OSError):  # nothing is owed: the folder may be missing, or read-only
        for entry in [*os.scandir(folder)]:
            temporary = _TEMPORARY.fullmatch(entry.name)
            if temporary is None or temporary["machine"] != _machine():
                continue
            if _is_running(int(temporary["pid"])):
                continue
            left, whole = Path(entry.path), folder / temporary["name"]
            with suppress(OSError):
                if left.suffix == ".old" and not whole.exists():
                    left.rename(whole)
                elif entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink()


def _machine() -> str:
    """Return a short name of the machine, and of the container, that a process number is of."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.blake2b(f"{platform.node()} {space}".encode(), digest_size=3).hexdigest()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists, unless it may be overwritten."""
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file name, got the folder {path}.")
    if path.exists() and not overwrite:
        raise RefusedFile(
            f"no file at {path}", "one", "choose another name or overwrite it with {overwrite}"
        )


def refuse_inputs(
    outputs: Iterable[str | os.PathLike[str]], inputs: Iterable[str | os.PathLike[str] | None]
) -> None:
    """Refuse an output that is one of the inputs, and one that is written twice.

    Paths are compared by the file that they lead to: links and other spellings are the same file.
    An output folder must not hold an input.

    Args:
        outputs: files to write, and folders that are replaced as a whole.
        inputs: files and folders that are read; None stands for none.
    """
    read = {_identity(path): path for path in (Path(one) for one in inputs if one is not None)}
    read.pop(None, None)  # inputs that are not there have an error of their own
    above = {
        place: path for path in read.values() for place in Path(os.path.realpath(path)).parents
    }
    written: set[str] = set()
    for output in map(Path, outputs):
        place = os.path.realpath(output)
        own, held = read.get(_identity(output)), above.get(Path(place))
        if own is not None or held is not None:
            same = "" if os.fspath(own or "") == os.fspath(output) else f", which is {own}"
            same = same if own is not None else f", which holds {held}"
            raise Refused(
                "an output apart from the inputs", f"{output}{same}", "choose another name"
            )
        if place in written:
            raise Refused("outputs apart from each other", f"{output} twice", "choose other names")
        written.add(place)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of what a path leads to; None if it leads to nothing."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def check_space(path: Path, n_bytes: int) -> None:
    """Refuse to write `n_bytes` to a disk that has less room."""
    free = shutil.disk_usage(path.parent).free
    if free < n_bytes:
        raise OSError(
            f"Expected room for {n_bytes / 1e6:.1f} MB for {path.name}, got {free / 1e6:.1f} MB "
            f"free in {path.parent}; free some or write elsewhere."
        )
