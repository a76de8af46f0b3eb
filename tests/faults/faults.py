"""The faults, a function each: it disturbs a command, and says what must be left."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults import state
from tests.faults.case import INPUTS, OUTPUTS, Case, Skipped, limit_files
from tests.faults.children import Child, Ended
from tests.faults.commands import COMMANDS, OTHERS
from tests.faults.disks import heed_permissions
from tests.faults.moments import tear, watch

_SAVED = 75  # exit code of work that was saved on SIGTERM
_COLD_START = 6.0  # seconds that a command takes to import its libraries
_SMALLEST = 4096  # bytes of the smallest limit
_YEARS = 10 * 365 * 86400.0

NAMES = (
    "with space", "line\nbreak", "./-dash", "ünï-☃-é", "percent%s-{x}", "star[a]*?", "back\\slash",
    "'quote\"", "caf\udce9", "long" * 40, "~home", "$HOME", ".hidden", "a,b=c;d#e", "new.partial",
    "tab\there", "{i}", "-dash",
)  # fmt: skip


def kill(case: Case) -> None:
    """Kill it once or several times: the next start finishes, as if nothing had been."""
    case.begin()
    if case.rng.random() < 0.3:
        case.run()  # then it replaces, or keeps, what is there
    for _ in range(case.rng.choice((1, 1, 1, 2, 3))):
        case.expect(_stopped(case, signal.SIGKILL), {0, -signal.SIGKILL})
    case.check_whole(litter=True)
    case.finish()


def stop(case: Case, number: int) -> None:
    """Stop it by SIGTERM or SIGINT: it leaves nothing half done, and says so in one line."""
    codes = {0, 130 if number == signal.SIGINT else _SAVED if case.command.saves else 143}
    case.begin()
    if case.rng.random() < 0.3:
        case.run()
    again = False
    if case.rng.random() < 0.2:
        _stop_cold(case, number, codes | {-number})
    else:
        again = case.rng.random() < 0.3
        ended = _stopped(case, number, again=again)
        case.expect(ended, codes | {-number})
        if ended.code and ended.code > 0 and "stopped" not in ended.err:
            case.problems.append(f"no word of being stopped: {ended.err[-300:]}")
    # a second signal ends it at once: its temporary files may be left for the next start
    case.check_whole(litter=again)
    case.finish()


def _stopped(case: Case, number: int, *, again: bool = False) -> Ended:
    """Run the command until a signal stops it, at a change of a file or at any time.

    Args:
        case: the case.
        number: the signal.
        again: send it twice, as an impatient user does.
    """
    reference = case.reference
    if case.rng.random() < 0.7 and reference.n_moments:
        chosen = case.rng.randrange(reference.n_moments)

        def act(n: int, begun: str | None) -> None:
            if n == chosen or (again and n == chosen + 2):
                if number == signal.SIGKILL and begun is not None:
                    tear(begun)
                os.kill(os.getpid(), number)

        return case.start(lambda: watch(case.folder, act)).wait()
    child = case.start()
    time.sleep(case.rng.random() * reference.seconds)
    for _ in range(2 if again else 1):
        child.send(number, group=number == signal.SIGINT)  # a terminal sends Ctrl-C to all
        time.sleep(0.02)
    return child.wait()


def _stop_cold(case: Case, number: int, codes: set[int]) -> None:
    """Stop a command that a new Python runs, also while it imports its libraries."""
    child = case.start(cold=True)
    time.sleep(case.rng.random() * (case.reference.seconds + _COLD_START))
    child.send(number, group=number == signal.SIGINT)
    ended = child.wait()
    # before that, Python itself shows where it was
    began = re.search(r"dense_imb.*, in main\n", ended.err) is not None
    case.expect(ended, codes | {1}, traceback=not began)
    if ended.code == 1 and (began or "KeyboardInterrupt" not in ended.err):
        case.problems.append(f"fails when it is stopped: {ended.err[-600:]}")


def full_disk(case: Case) -> None:
    """Let the disk run full: one sentence; with room again, the next start finishes."""
    share = case.rng.random() ** 2
    on_disk = case.rng.random() < 0.5 and case.disk.mount()
    case.begin()
    if on_disk:
        case.disk.shrink(int(share * case.reference.n_bytes))
        ended = case.run(codes=(0, 2))
        case.disk.grow()
    else:
        limit = _SMALLEST + int(share * case.reference.largest)
        ended = case.run(partial(limit_files, limit), codes=(0, 2))
    words = ("space", "File too large", "room for", "limit of")
    if ended.code == 2 and not any(word in ended.err for word in words):
        case.problems.append(f"no word of the disk: {ended.err[-300:]}")
    case.check_whole(litter=False)
    case.finish()


def read_only(case: Case) -> None:
    """Protect the outputs' folder, or the inputs: it refuses, or works as ever."""
    case.begin()
    protected = case.rng.choice((INPUTS, OUTPUTS))
    writes = INPUTS if case.command.changes else OUTPUTS
    for path in (case.folder / protected, *(case.folder / protected).rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = state.raw(case.folder)
    ended = case.run(heed_permissions, codes=(0, 2))
    if protected != writes:
        if ended.code != 0:
            case.problems.append(
                f"does not work with inputs that are protected: {ended.err[-300:]}"
            )
        case.check_kept()
        case.check_finished()
        return
    if ended.code == 0:
        case.problems.append("writes nothing, and succeeds")
    if state.raw(case.folder) != before:
        case.problems.append("changed a folder that is protected")


def two_processes(case: Case) -> None:
    """Start it twice at once: one at least succeeds, the other does, too, or refuses."""
    case.begin()
    children = [case.start()]
    if case.rng.random() < 0.5:
        time.sleep(case.rng.random() * case.reference.seconds)
    children.append(case.start())
    ended = [child.wait() for child in children]
    for one in ended:
        case.expect(one, {0, 2})
    if all(one.code for one in ended):
        case.problems.append("both refused")
    case.check_whole(litter=False)
    case.finish()


def two_commands(case: Case) -> None:
    """Start it beside another command in one folder: one refuses, or neither harms the other."""
    if case.command.beside is None:
        raise Skipped("no other command works in its folder")
    name, out = case.command.beside
    other = {**COMMANDS, **OTHERS}[name]
    case.begin()
    if case.command.saves:  # the folder must be that of a run
        case.expect(_stopped(case, signal.SIGTERM), {0, _SAVED, -signal.SIGTERM})
        if not (case.folder / case.o / "run/config.yaml").exists():
            case.run()
    words = other.argv(case.i, case.o, out.replace("{o}", case.o))
    starts = [case.start, lambda: Child(words, case.folder)]
    is_first = case.rng.random() < 0.5
    children = [starts[not is_first]()]
    time.sleep(case.rng.choice((0.0, case.rng.random())) * case.reference.seconds)
    children.append(starts[is_first]())
    ended = [child.wait() for child in children]
    own, others = ended if is_first else reversed(ended)
    is_either = case.command.out == out
    for one in (own, others):
        case.expect(one, {0, 2} if is_either else {0})
    if is_either and own.code == others.code:
        case.problems.append("both refused" if own.code else "both write to one folder")
    case.check_kept()
    start, end = (one.removeprefix("{o}/") for one in (other.out, out))
    state_of_other = {
        key.replace(f"{OUTPUTS}/{start}", f"{OUTPUTS}/{end}", 1): digest
        for key, digest in case.bench.reference(other).state.items()
    }
    wanted = {} if is_either and own.code else case.reference.state
    case.check_finished({**wanted, **({} if is_either and others.code else state_of_other)})


def same_path(case: Case) -> None:
    """Name an input as the output: refused, or harmless."""
    if not case.command.same:
        raise Skipped("it has no inputs, or no name of an output")
    case.begin()
    name = case.rng.choice(case.command.same).replace("{i}", case.i)
    path = case.folder / name
    way = case.rng.choice(("plain", "dotted", "symbolic link", "hard link"))
    case.out = name
    if way == "dotted":
        case.out = f"./{case.o}/../{name}"
    elif way == "symbolic link" or (way == "hard link" and path.is_dir()):
        case.out = f"{case.o}/link{path.suffix}"
        (case.folder / case.out).symlink_to(path)
    elif way == "hard link":
        case.out = f"{case.o}/link{path.suffix}"
        os.link(path, case.folder / case.out)
    more = ["--overwrite"] if case.command.skips and case.rng.random() < 0.5 else []
    case.run(codes=(0, 2), more=more)
    case.check_kept()


def names(case: Case) -> None:
    """Give folders and files names that few programs expect."""
    case.begin()
    name = case.rng.choice(NAMES)
    base = name.removeprefix("./")
    case.i, case.o = f"{name}-i", f"{name}-o"
    os.rename(case.folder / INPUTS, case.folder / case.i)
    os.rename(case.folder / OUTPUTS, case.folder / case.o)
    case.others = [(case.i, INPUTS), (case.o, OUTPUTS)]
    case.others += [(one.removeprefix("./"), usual) for one, usual in case.others]
    own = case.command.out.rpartition("/")[2]
    if case.command.out.startswith("{o}/") and case.rng.random() < 0.5:
        case.out = f"{case.o}/{base}{own}"
        case.others.append((f"{base}{own}", own))
    is_refusable = name == "-dash"  # an option to any program; ./-dash is none
    ended = case.run(codes=(0, 2) if is_refusable else (0,))
    case.check_kept()
    if ended.code == 0:
        case.check_finished()


def image_names(case: Case) -> None:
    """Give an image of a folder a name that few programs expect."""
    if not case.command.maps:
        raise Skipped("it writes no file for each image")
    case.begin()
    name = case.rng.choice([one for one in NAMES if one[0] != "."])  # hidden files are left out
    old = f"{case.rng.randrange(8):02d}"
    case.moved = {Path(f"images/{old}.png"): Path(f"images/{name}.png")}
    for before, now in case.moved.items():
        os.rename(case.folder / case.i / before, case.folder / case.i / now)
    case.others = [(name, old)]
    if case.rng.random() < 0.5:
        case.expect(_stopped(case, signal.SIGKILL), {0, -signal.SIGKILL})
    case.finish()


def clock(case: Case) -> None:
    """Set dates of files to other years, and let the clock jump: nobody may rely on it."""
    case.begin()
    if case.rng.random() < 0.5:
        case.expect(_stopped(case, signal.SIGKILL), {0, -signal.SIGKILL})
    for path in case.folder.rglob("*"):
        date = case.rng.choice((0.0, 1.0, time.time() + _YEARS, time.time() - 86400))
        os.utime(path, (date, date))
    jump, after = case.rng.choice((-_YEARS, -3600.0, _YEARS)), case.rng.randrange(20)
    case.run(lambda: _jump(jump, after))
    case.finish()


def _jump(seconds: float, after: int) -> None:
    """Let `time.time` jump when it was read so often."""
    real, n = time.time, 0

    def read() -> float:
        nonlocal n
        n += 1
        return real() + (seconds if n > after else 0.0)

    time.time = read
    time.time_ns = lambda: int(read() * 1e9)


FAULTS: dict[str, Callable[[Case], None]] = {
    "kill": kill,
    "SIGTERM": partial(stop, number=signal.SIGTERM),
    "SIGINT": partial(stop, number=signal.SIGINT),
    "full disk": full_disk,
    "read-only": read_only,
    "two processes": two_processes,
    "two commands": two_commands,
    "same path": same_path,
    "names": names,
    "image names": image_names,
    "clock": clock,
}
