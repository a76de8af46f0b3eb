"""Mutants in forked processes with limits of time and memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import select
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from dense_imb.cli._parser import Parser
from dense_imb.cli._script import guarded
from tests.fuzz.format import Format
from tests.fuzz.value import same

BATCH = 50  # mutants of a process
_HANG = 120.0  # seconds without a word, for example of a read from a pipe
_MEMORY = 3 << 30  # bytes of address space, beside those of the libraries
_LARGEST = 512 << 20  # bytes that a mutant may take: all files are small
BAD = ("crash", "hang", "traceback", "silent", "memory")
VERDICTS = ("refused", "read", *BAD)


@dataclass(frozen=True)
class Verdict:
    """A mutant that was read.

    Args:
        seed: seed of the mutant.
        verdict: one of `VERDICTS`.
        mutator: name of the mutator.
        text: sentence of the refusal, or what was wrong.
    """

    seed: int
    verdict: str
    mutator: str = ""
    text: str = ""


def missing(form: Format) -> str:
    """Return the first package that a format needs and that is not installed."""
    return next((name for name in form.needs if find_spec(name) is None), "")


def run_mutants(
    name: str, form: Format, seeds: Sequence[int], folder: Path, *, keep: bool = False
) -> Iterator[Verdict]:
    """Yield the verdicts of mutants, as they come.

    Args:
        name: name of the format.
        form: the format.
        seeds: seeds of the mutants.
        folder: an empty folder to work in.
        keep: leave the last mutant in the folder `case`.
    """
    valid = folder / "valid"
    valid.mkdir()
    _in_child(lambda: form.make(valid))
    left = list(seeds)
    while left:
        batch, left = left[:BATCH], left[BATCH:]
        while batch:
            n_done = 0
            for verdict in _run_batch(name, form, batch, folder, keep=keep):
                n_done += 1
                yield verdict
            batch = batch[n_done:]


def _in_child(action: Any) -> None:
    """Run an action in a process of its own, whose threads end with it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with warnings.catch_warnings(action="ignore"):
                action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("Expected valid files, got a failure.")


def _run_batch(
    name: str, form: Format, seeds: Sequence[int], folder: Path, *, keep: bool
) -> Iterator[Verdict]:
    """Yield verdicts, until the process ends or is stuck; that mutant is the last one."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be_reader(name, form, seeds, folder, writing, keep=keep)
    os.close(writing)
    current: dict[str, Any] | None = None
    hangs = False
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        rest = b""
        while not hangs:
            ready, _, _ = select.select([pipe], [], [], _HANG)
            hangs = not ready
            part = pipe.read(1 << 16) if ready else b""
            if not part:
                break
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                row = json.loads(line)
                current = None if row.get("verdict") else row
                if row.get("verdict"):
                    yield Verdict(**row)
    if hangs:
        os.kill(pid, 9)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if current is not None:
        is_slow = hangs or code == -24  # SIGXCPU
        text = f"more than {form.seconds} s" if is_slow else f"exit code {code}"
        seed, mutator = current["seed"], current["mutator"]
        yield Verdict(seed, "hang" if is_slow else "crash", mutator, text)
    elif code != 0:
        raise RuntimeError(f"Expected the harness to end well, got exit code {code} in {name}.")


def _be_reader(
    name: str, form: Format, seeds: Sequence[int], folder: Path, out: int, *, keep: bool
) -> NoReturn:
    """Read mutants, from the fork to the end of the process."""
    code, errors = 1, os.dup(2)
    try:
        if not keep:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY,) * 2)
        case = folder / "case"
        known: dict[str, list[Any]] = {}

        def tell(**row: Any) -> None:
            os.write(out, json.dumps(row).encode() + b"\n")

        for seed in seeds:
            verdict = _read_mutant(name, form, seed, folder / "valid", case, known, tell)
            tell(**asdict(verdict))
        if not keep:
            shutil.rmtree(case, ignore_errors=True)
        code = 0
    except BaseException:
        os.write(errors, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(code)


def _read_mutant(
    name: str, form: Format, seed: int, valid: Path, case: Path, known: dict[str, Any], tell: Any
) -> Verdict:
    rng = random.Random(f"{name}:{seed}")
    sample, mutator = rng.choice(sorted(valid.iterdir())), rng.choice(form.mutators)
    if sample.name not in known:
        known[sample.name] = _valid_content(form, sample, case)
    path = _copied(sample, case)
    is_sealed = mutator(rng, path)
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + form.seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
    tell(seed=seed, mutator=mutator.__name__)
    row = {"seed": seed, "mutator": mutator.__name__}
    contents: list[Any] = []
    sentences: list[str] = []
    is_refused = False
    for read, wanted in zip(form.readers, known[sample.name], strict=True):
        code, content, text = _guarded(read, path)
        if code not in (0, 2):
            return Verdict(**row, verdict="traceback", text=text)
        contents.append(content)
        sentences += [text] if code == 2 else []
        is_refused |= code == 2 and wanted is not None
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used.ru_maxrss
    if taken * 1024 > _LARGEST or any("fit into memory" in one for one in sentences):
        return Verdict(**row, verdict="memory", text=f"{taken / 1024:.0f} MB; {sentences[:1]}")
    for one in sentences:
        if "\n" in one or len(one) > 3000 or not one.strip():
            return Verdict(**row, verdict="traceback", text=f"no clear sentence: {one[:300]!r}")
    wrong = _silent(form, path, contents, known[sample.name], is_sealed=is_sealed)
    if wrong:
        return Verdict(**row, verdict="silent", text=wrong)
    return Verdict(**row, verdict="refused" if is_refused else "read", text=(*sentences, "")[0])


def _silent(
    form: Format, path: Path, contents: list[Any], known: list[Any], *, is_sealed: bool
) -> str:
    """Tell in words how an accepted mutant was read wrongly; "" if it was not."""
    if is_sealed:
        for read, got, wanted in zip(form.readers, contents, known, strict=True):
            if got is not None and not same(got, wanted):
                return f"{read.__name__} accepted other content"
    return form.check(path, contents)


def _valid_content(form: Format, sample: Path, case: Path) -> list[Any]:
    """Read a valid file."""
    path = _copied(sample, case)
    contents, refusals = [], []
    for read in form.readers:
        code, content, text = _guarded(read, path)
        contents.append(content)
        refusals += [text] if code else []
    if len(refusals) == len(form.readers) or form.check(path, contents):
        raise RuntimeError(f"Expected {sample.name} to be valid, got {refusals}.")
    return contents


def _copied(sample: Path, case: Path) -> Path:
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    to = case / sample.name
    if sample.is_dir():
        shutil.copytree(sample, to)
    else:
        shutil.copyfile(sample, to)
    return to


def _guarded(read: Any, path: Path) -> tuple[int, Any, str]:
    """Read as a command does; return its exit code, the content, and the sentence."""
    content: list[Any] = []
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            code = guarded(Parser(program="fuzz"), lambda: content.append(read(path)))
    except BaseException as problem:
        frames = traceback.extract_tb(problem.__traceback__)
        lines = [f"{Path(one.filename).name}:{one.lineno}" for one in frames[-4:]]
        return 1, None, f"{type(problem).__name__}: {problem} at {' '.join(lines)}"[:600]
    sentence = err.getvalue().removesuffix("\n").partition("error: ")[2]
    if code == 0 and content[0] is None:
        content[0] = "nothing"  # None stands for a refusal
    return code, content[0] if code == 0 else None, sentence
