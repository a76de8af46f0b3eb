"""One case: a command under a fault, and the checks of what is left."""

from __future__ import annotations

import fnmatch
import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import state
from tests.faults.children import Child, Ended
from tests.faults.commands import COMMANDS, Command, preparations, write_data
from tests.faults.disks import Disk
from tests.faults.moments import watch

INPUTS, OUTPUTS = "in", "out"
# files of nobody's business beside the outputs, also with endings that temporary files have
_STRANGERS = ("notes.txt", "other.partial", ".other.h5.0123456789ab.partial", "other.7.new")
_TEXTS = (".json", ".csv", ".html", ".md", ".yaml", ".onnx")
_LITTER = ("*.partial", "*.tmp", "*.new", "*.old")


class Skipped(Exception):
    """A case that cannot be run here, or makes no sense."""


@dataclass(frozen=True)
class Reference:
    """A command that nothing disturbed.

    Args:
        state: digests of all files behind it.
        seconds: how long it took.
        n_moments: how often it changed a file or a folder.
        largest: bytes of its largest output.
        n_bytes: bytes of all outputs.
    """

    state: Mapping[str, str]
    seconds: float
    n_moments: int
    largest: int
    n_bytes: int


class Bench:
    """The place where cases run, with inputs that are made once.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.base = folder, folder / "base"
        self.base.mkdir()
        (self.base / OUTPUTS).mkdir()
        write_data(self.base / INPUTS)
        for words in preparations(INPUTS):
            ended = Child(words, self.base).wait()
            if ended.code != 0:
                raise RuntimeError(f"Expected inputs, got {ended} of {words}.")
        self.inputs = state.raw(self.base)
        self._references: dict[str, Reference] = {}

    def copy(self, to: Path) -> None:
        """Copy the inputs to the folder of a case."""
        shutil.copytree(self.base, to, dirs_exist_ok=True)

    def reference(self, command: Command) -> Reference:
        """Return the undisturbed run of a command, which is made once."""
        if command.name not in self._references:
            self._references[command.name] = self._refer(command)
        return self._references[command.name]

    def _refer(self, command: Command) -> Reference:
        folder = self.folder / "reference"
        self.copy(folder)
        reading, writing = os.pipe()
        words = command.argv(INPUTS, OUTPUTS)
        child = Child(words, folder, lambda: watch(folder, lambda *_: os.write(writing, b".")))
        ended = child.wait()
        os.close(writing)
        if ended.code != 0:
            raise RuntimeError(f"Expected {words} to succeed undisturbed, got {ended}.")
        sizes = {name: (folder / name).stat().st_size for name in state.raw(folder)}
        new = [size for name, size in sizes.items() if name not in self.inputs]
        with os.fdopen(reading, "rb") as pipe:
            n_moments = len(pipe.read())
        there = state.content(folder, [(str(folder), "")])
        shutil.rmtree(folder)
        return Reference(there, ended.seconds, n_moments, max(new), sum(new))


@dataclass
class Case:
    """A command in a folder of its own, to be disturbed.

    Args:
        bench: the place with the inputs.
        command: the command.
        rng: draws everything that is random.
        folder: folder that the command works in.
        disk: the disk of the folder.
        i, o: names of the folders of inputs and outputs.
        out: the output, if it has another name than usual.
        others: names that differ from those of the reference, with those of the reference.
        moved: inputs that have another path below their folder.
        problems: what was wrong, in words.
        codes: exit codes of the commands that ran.
    """

    bench: Bench
    command: Command
    rng: random.Random
    folder: Path
    disk: Disk
    i: str = INPUTS
    o: str = OUTPUTS
    out: str | None = None
    others: list[tuple[str, str]] = field(default_factory=list)
    moved: dict[Path, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    _strangers: dict[Path, bytes] = field(default_factory=dict)

    @property
    def reference(self) -> Reference:
        """The undisturbed run."""
        return self.bench.reference(self.command)

    def begin(self) -> None:
        """Copy the inputs, and put files of others beside the outputs."""
        self.bench.copy(self.folder)
        for name in (INPUTS, OUTPUTS):
            place = self.folder / name
            for stranger in _STRANGERS if name == OUTPUTS else _STRANGERS[1:2]:
                (place / stranger).write_text(stranger)
                self._strangers[place / stranger] = stranger.encode()

    def start(
        self,
        before: Callable[[], object] = lambda: None,
        *,
        more: Collection[str] = (),
        cold: bool = False,
    ) -> Child:
        """Start the command."""
        words = [*self.command.argv(self.i, self.o, self.out), *more]
        return Child(words, self.folder, before, cold=cold)

    def run(
        self,
        before: Callable[[], object] = lambda: None,
        *,
        codes: Collection[int] = (0,),
        more: Collection[str] = (),
    ) -> Ended:
        """Run the command to its end, and check its exit code and its words."""
        ended = self.start(before, more=more).wait()
        self.expect(ended, codes)
        return ended

    def expect(self, ended: Ended, codes: Collection[int], *, traceback: bool = False) -> None:
        """Check how a command ended: its code, one sentence, no traceback, nothing left running."""
        self.codes.append(ended.code)
        words = ended.err + ended.out
        if ended.code is None:
            self.problems.append("hangs")
        elif ended.code not in codes:
            self.problems.append(f"exit code {ended.code}, expected {sorted(codes)}")
        if ended.orphans:
            self.problems.append(f"left running: {', '.join(ended.orphans)}")
        if not traceback and ("Traceback (most recent" in words or "Exception ignored" in words):
            self.problems.append("traceback")
        errors = [line for line in ended.err.splitlines() if ": error: " in line]
        if ended.code == 2 and (len(errors) != 1 or not errors[0].endswith(".")):
            self.problems.append(f"{len(errors)} sentences")
        if "[Errno" in ended.err:
            self.problems.append("number of an error of the system")
        if self.problems:
            self.problems.append("stderr: " + ended.err[-800:].strip())

    def check_kept(self) -> None:
        """Check that inputs and files of others are as they were."""
        place = self.folder / self.i
        for name, digest in self.bench.inputs.items():
            below = Path(name).relative_to(INPUTS)
            path = place / self.moved.get(below, below)
            is_free = any(fnmatch.fnmatch(name, f"{INPUTS}/{one}") for one in self.command.changes)
            if not is_free and state.raw_of(path) != digest:
                self.problems.append(f"input lost: {name}")
        for path, content in self._strangers.items():
            path = self.folder / self.renamed(path.relative_to(self.folder))
            if not path.exists() or path.read_bytes() != content:
                self.problems.append(f"file of others lost: {path.name}")

    def renamed(self, path: Path) -> Path:
        """Return the path below the folder that an input or output has in this case."""
        head, *tail = path.parts
        return Path({INPUTS: self.i, OUTPUTS: self.o}[head], *tail)

    def there(self) -> dict[str, str]:
        """Return digests of all files, without those of others."""
        found = state.content(self.folder, [(str(self.folder), ""), *self.others])
        strangers = {str(path.relative_to(self.folder)) for path in self._strangers}
        return {name: digest for name, digest in found.items() if name not in strangers}

    def check_whole(self, *, litter: bool) -> None:
        """Check that each output is whole or absent.

        Args:
            litter: temporary files may be left, since nothing could remove them.
        """
        there, wanted = self.there(), self.reference.state
        for name in there.keys() - wanted.keys():
            is_litter = any(fnmatch.fnmatch(Path(name).name, one) for one in _LITTER)
            is_part = self.command.in_stages or ".shards/" in name
            if (is_litter and not litter) or (not is_litter and not is_part):
                self.problems.append(f"left behind: {name}")
        if not self.command.in_stages:
            for name in there.keys() & wanted.keys():
                if there[name] != wanted[name]:
                    self.problems.append(f"half written: {name}")

    def check_finished(self, wanted: Mapping[str, str] | None = None) -> None:
        """Check that all files are those of the undisturbed run, or other ones, to the bit."""
        there = self.there()
        wanted = self.reference.state if wanted is None else wanted
        differing = {name for name in there.keys() & wanted.keys() if there[name] != wanted[name]}
        if self.others:  # texts name the inputs
            differing = {name for name in differing if Path(name).suffix not in _TEXTS}
        for words, names in (
            ("left behind", there.keys() - wanted.keys()),
            ("missing", wanted.keys() - there.keys()),
            ("differs", differing),
        ):
            if names:
                self.problems.append(f"{words}: {', '.join(sorted(names)[:5])}")

    def finish(self) -> None:
        """Start the command again, undisturbed: all must be as if nothing had been."""
        self.check_kept()
        self.run()
        self.check_kept()
        self.check_finished()


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Args:
        name: name of the case, COMMAND/FAULT/NUMBER.
        outcome: "survived", "failed" or "skipped".
        problems: what was wrong, or why it was skipped.
        codes: exit codes of the commands.
        seconds: how long it took.
    """

    name: str
    outcome: str
    problems: tuple[str, ...] = ()
    codes: tuple[int | None, ...] = ()
    seconds: float = 0.0


def run_case(bench: Bench, name: str, keep: bool = False) -> Result:
    """Run the case of a name; the same name draws the same numbers.

    Args:
        bench: the place to run it in.
        name: COMMAND/FAULT/NUMBER.
        keep: leave the folder, to be looked at.
    """
    from tests.faults.faults import FAULTS

    command, fault, _ = name.split("/")
    folder = bench.folder / "case"
    folder.mkdir()
    start = time.monotonic()
    disk = Disk(folder)
    case = Case(bench, COMMANDS[command], random.Random(name), folder, disk)
    try:
        FAULTS[fault](case)
    except Skipped as reason:
        return Result(name, "skipped", (str(reason),))
    finally:
        if not keep:
            disk.unmount()
            _remove(folder)
    outcome = "failed" if case.problems else "survived"
    problems = tuple(dict.fromkeys(case.problems))
    return Result(name, outcome, problems, tuple(case.codes), time.monotonic() - start)


def _remove(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def limit_files(n_bytes: int) -> None:
    """Let no file of this process grow beyond a size, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
