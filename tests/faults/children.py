"""Commands in forked children of this process, which has imported torch once."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

HANG = 300.0  # seconds after which a command is stuck, also on a busy machine
GRACE = 40.0  # seconds in which what a stopped command began must end: it may import just then

# imported before the first fork, so that no child waits for them
_WARM = (
    "dense_imb.runs", "dense_imb.report", "dense_imb.inspection", "dense_imb.curves",
    "dense_imb.compare", "dense_imb.data.events.simulated", "dense_imb.data.events.convert",
    "dense_imb.data.events.formats", "dense_imb.cli", "matplotlib.backends.backend_agg",
    "mpl_toolkits.mplot3d", "PIL.PngImagePlugin", "torch._dynamo", "sklearn.ensemble",
)  # fmt: skip


def warm_up() -> None:
    """Import the libraries; no thread may be running when a child is forked."""
    for name in _WARM:
        importlib.import_module(name)
    gc.freeze()  # a collection in a child would copy all of its memory
    n_threads = len(os.listdir("/proc/self/task")) if Path("/proc/self/task").exists() else 1
    if n_threads > 1:
        raise RuntimeError(f"Expected one thread before a fork, got {n_threads}.")


@dataclass(frozen=True)
class Ended:
    """A command that ended.

    Args:
        code: exit code, negative for a signal that ended it; None if it had to be killed for it
            did not end.
        out, err: its output.
        seconds: how long it ran.
        orphans: processes that it left behind.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    orphans: tuple[str, ...] = ()


class Child:
    """A command that runs in a forked child, in a session of its own.

    Args:
        words: words of `dense-imb`.
        folder: folder that it works in.
        before: called in the child before the command, for example to set a limit.
        cold: start an own Python instead, as a user does.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        before: Callable[[], object] = lambda: None,
        *,
        cold: bool = False,
    ) -> None:
        pipes = [os.pipe() for _ in ("out", "err")]  # a full disk is none for a pipe
        self._outputs = [reading for reading, _ in pipes]
        self._start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(words, folder, [writing for _, writing in pipes], before, cold=cold)
        for reading, writing in pipes:
            os.close(writing)
            os.set_blocking(reading, False)
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 1 << 20)

    def wait(self, seconds: float = HANG) -> Ended:
        """Wait for the end, and for that of everything that it began."""
        code = self._code(seconds)
        spent = time.monotonic() - self._start
        orphans = self._orphans()
        if orphans or code is None:
            self.send(signal.SIGKILL, group=True)
            if code is None:
                self._code(GRACE)
        out, err = map(_read, self._outputs)
        return Ended(code, out, err, spent, orphans)

    def is_running(self) -> bool:
        """Tell whether the child has not ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the command, or to all that it began."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def _code(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        return None

    def _orphans(self) -> tuple[str, ...]:
        end = time.monotonic() + GRACE
        while left := _session(self.pid):
            if time.monotonic() > end:
                return left
            time.sleep(0.05)
        return ()


def _read(pipe: int) -> str:
    """Return what is in a pipe, and close it; a process that was left may hold its other end."""
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(pipe, 1 << 20):
            parts.append(part)
    os.close(pipe)
    return b"".join(parts).decode(errors="backslashreplace")


def _session(leader: int) -> tuple[str, ...]:
    """Return the names of the processes of a session, beside its leader."""
    left = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = path.read_text().rpartition(") ")
        except OSError:
            continue
        state, _, _, session = fields.split()[:4]
        if int(session) == leader and state != "Z" and int(path.parent.name) != leader:
            left.append(name.partition("(")[2])
    return tuple(left)


def _run(
    words: Sequence[str],
    folder: Path,
    outputs: Sequence[int],
    before: Callable[[], object],
    *,
    cold: bool,
) -> NoReturn:
    """Be the command, from the fork to the end of the process."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target, source in enumerate([os.open(os.devnull, os.O_RDONLY), *outputs]):
            os.dup2(source, target)
        os.chdir(folder)
        before()
        if cold:
            os.execv(sys.executable, [sys.executable, "-m", "dense_imb", *words])
        code = _main(words)
    finally:
        os._exit(code)


def _main(words: Sequence[str]) -> int:
    """Run `dense-imb` as its entry point does, and end as the interpreter does."""
    from dense_imb.cli import entry_point

    sys.argv[:] = ["dense-imb", *words]
    code: object = None
    try:
        entry_point()
    except SystemExit as end:
        code = end.code
    except BaseException as problem:
        traceback.print_exc()
        code = 130 if isinstance(problem, KeyboardInterrupt) else 1
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
    except BaseException:
        traceback.print_exc()
        code = code or 120
    return code or 0
