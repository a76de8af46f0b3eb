"""Masking in shards: any number of processes share a file, and a later call does what is missing.

Each process masks ranges of whole batches. A finished range is a hits file of its own in the folder
TARGET.shards; it appears there under its name when it is complete. Process 0 joins the shards to
one file that is equal, byte for byte, to that of `mask_file`, or leaves them with an index.
"""

from __future__ import annotations

import json
import pickle
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from dense_imb.base.checks import check_at_least
from dense_imb.base.files import clear_leftovers, refuse_existing, refuse_inputs, write_whole
from dense_imb.base.locks import locked_folder
from dense_imb.base.refusals import Refused, RefusedFile, mark_shared
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.drift import EventProfile
from dense_imb.hits.events import Events
from dense_imb.hits.format import HitsFileError
from dense_imb.hits.masked import MaskedFile, Masking, finished_file, refuse_foreign
from dense_imb.hits.masking import (
    Progress,
    Tally,
    as_point,
    check_scorer,
    masked_batches,
    source_name,
    write_masked,
)
from dense_imb.hits.provenance import digest_of_scorer
from dense_imb.hits.reader import HitsFile, HitsFiles, expand_patterns, open_hits, verify
from dense_imb.hits.writer import HitsWriter
from dense_imb.metrics import OperatingPoint

_PLAN, _INDEX = "plan.json", "index.json"
_OWN = re.compile(r"index\.json|events-\d{12,}-\d{12,}\.h5(\.\w+\.json)?")
_PARTIAL = re.compile(r"\.(plan|index|events-).*\.[0-9a-f-]+\.partial")
_SHARDS, _LARGEST = 64, 65536  # shards of a file, of at most so many events
_PATIENCE = 120.0  # least seconds without a finished shard after which process 0 stops waiting
_LOOK_EVERY = 0.2  # seconds


class MissingShardsError(Refused, TimeoutError):
    """Other processes did not finish their shards; a later call finishes them.

    Example:
        >>> from dense_imb.hits import MissingShardsError
        >>> issubclass(MissingShardsError, TimeoutError)  # `except TimeoutError` catches it
        True
    """


class _Shard(NamedTuple):
    first: int
    last: int  # behind the last event

    @property
    def name(self) -> str:
        return f"events-{self.first:012d}-{self.last:012d}.h5"


@dataclass(frozen=True)
class _Plan:
    """Plan of the shards of one target, the same in every process.

    Args:
        target: path of the denoised file.
        n_events: number of events.
        batch_size: events scored together.
        shard_events: events of a shard, a multiple of `batch_size`.
        masking: settings of the masking.
    """

    target: Path
    n_events: int
    batch_size: int
    shard_events: int
    masking: Masking

    @property
    def folder(self) -> Path:
        return self.target.with_name(f"{self.target.name}.shards")

    @cached_property
    def shards(self) -> list[_Shard]:
        starts = range(0, max(self.n_events, 1), self.shard_events)
        return [_Shard(s, min(s + self.shard_events, self.n_events)) for s in starts]

    def missing(self) -> list[_Shard]:
        """Return the shards that are not finished."""
        return [shard for shard in self.shards if not (self.folder / shard.name).exists()]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": "dense-imb-shards",
            "version": 1,
            "n_events": self.n_events,
            "batch_size": self.batch_size,
            "shard_events": self.shard_events,
            "scorer": self.masking.scorer,
            "masking": self.masking.as_json(),
        }


def mask_in_shards(
    sources: Mapping[Path, Any],
    scorer: Scorer,
    point: OperatingPoint | float,
    *,
    only_kept: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    keep_shards: bool = False,
    shard_events: int | None = None,
    batch_size: int = 256,
    validation: EventProfile | None = None,
    locking: bool | str | None = None,
    progress: Progress | None = None,
) -> list[MaskedFile]:
    """Mask hits files like `mask_file`, with all processes of the default group, if there is one.

    Process r of n takes every n-th missing shard. No process waits for another, except that
    process 0 waits for the last shards, for a limited time. The output does not depend on the
    number of processes, as long as batch size, kind of device and number of threads are the same.

    Args:
        sources: path, paths or pattern of the hits files of each target.
        scorer, point, only_kept, batch_size, validation, locking: see `mask_file`.
        overwrite: replace existing targets, and shards of another call.
        resume: finish an interrupted call; finished targets and shards are kept.
        keep_shards: leave the shards in the folder TARGET.shards with an `index.json`, instead of
            one file. `open_hits("TARGET.shards/*.h5")` opens them.
        shard_events: events of a shard, rounded up to whole batches; by default a 64th of the
            events, at most 65,536.
        progress: called with the number of events that are finished since the last call; process
            0 counts those of all processes.

    Returns:
        The result of each target in process 0, an empty list in others.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb.hits import HitsWriter, Identity, mask_in_shards, simulate
        >>> folder, arcs = pathlib.Path(tempfile.mkdtemp()), simulate("arc", 3, seed=1)
        >>> with HitsWriter(folder / "raw.h5", arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> sources = {folder / "clean.h5": folder / "raw.h5"}  # by target
        >>> [masked.n_events for masked in mask_in_shards(sources, Identity(), 0.5)]
        [3]
    """
    check_at_least("batch_size", batch_size, 1)
    if shard_events is not None:
        check_at_least("shard_events", shard_events, 1)
    point = as_point(point)
    call = _Call(scorer, point, only_kept, overwrite, resume, keep_shards, locking, progress)
    rank, world = _process()
    done = []
    with ExitStack() as locks:  # of process 0
        for plan, missing, finished in _together(
            lambda: call.prepare(sources, batch_size, shard_events, locks)
        ):
            source = sources[plan.target]
            if finished is not None:
                done.append(finished)
                call.report(finished.n_events)
                continue
            call.check_same(plan)
            own = missing[rank::world]
            spent = call.write_shards(source, plan, own)
            if rank == 0:
                others = [shard for shard in missing if shard not in own]
                call.wait(plan, others, max(_PATIENCE, spent))
                done.append(call.finish(source, plan, validation))
    return done if rank == 0 else []


class _Prepared(NamedTuple):
    plan: _Plan
    missing: list[_Shard]
    finished: MaskedFile | None


@dataclass(frozen=True)
class _Call:
    """Options of one call of `mask_in_shards`."""

    scorer: Scorer
    point: OperatingPoint
    only_kept: bool
    overwrite: bool
    resume: bool
    keep_shards: bool
    locking: bool | str | None
    progress: Progress | None

    def prepare(
        self,
        given: Mapping[Path, Any],
        batch_size: int,
        shard_events: int | None,
        locks: ExitStack,
    ) -> list[_Prepared]:
        """Refuse what cannot be done, before anything is written, then lock the folders."""
        plans = [self._plan(*pair, batch_size, shard_events) for pair in given.items()]
        sources = [path for source in given.values() for path in expand_patterns(source)]
        refuse_inputs([one for plan in plans for one in (plan.target, plan.folder)], sources)
        if self.overwrite:
            refuse_foreign(plan.target for plan in plans)
        prepared = [_Prepared(plan, [], self._checked(given[plan.target], plan)) for plan in plans]
        for number, one in enumerate(prepared):
            if one.finished is None:
                one.plan.folder.mkdir(exist_ok=True)
                locks.enter_context(locked_folder(one.plan.folder, makes_file=False))
                # another call may have worked in it since it was checked
                finished = self._checked(given[one.plan.target], one.plan)
                prepared[number] = _Prepared(one.plan, [], finished)
            if prepared[number].finished is not None and not self.keep_shards:
                self._tidy(one.plan, locks, is_locked=one.finished is None)
        return [
            one if one.finished is not None else _Prepared(one.plan, self._begin(one.plan), None)
            for one in prepared
        ]

    def _checked(self, source: Any, plan: _Plan) -> MaskedFile | None:
        """Return the result of an output that is finished; refuse a folder of another call."""
        finished = self._finished(source, plan)
        if finished is None:
            self._check_folder(plan)
        return finished

    def _plan(self, target: Path, source: Any, batch_size: int, shard_events: int | None) -> _Plan:
        with open_hits(source, locking=self.locking, in_memory=False) as hits:
            check_scorer(self.scorer, hits.geometry)
            masking = Masking.of(self.scorer, self.point, hits, only_kept=self.only_kept)
            wanted = shard_events or min(-(-len(hits) // _SHARDS), _LARGEST)
            whole = batch_size * max(-(-wanted // batch_size), 1)
            return _Plan(target, len(hits), batch_size, whole, masking)

    def _finished(self, source: Any, plan: _Plan) -> MaskedFile | None:
        """Return the result of an output that is there already; refuse another one."""
        index = plan.folder / _INDEX
        if self.overwrite:
            return None
        if self.keep_shards:
            is_same = index.exists() and self._stored(plan) == plan.as_json()
            if not is_same or plan.missing():
                return None
            stored = json.loads(index.read_text())
            n_events, n_hits, n_kept = (
                int(stored[name]) for name in ("n_events", "n_hits", "n_kept")
            )
            return MaskedFile(plan.folder / "*.h5", n_events, n_hits, n_kept, is_skipped=True)
        if not plan.target.exists():
            return None
        if not self.resume:
            refuse_existing(plan.target, overwrite=False)
        return finished_file(
            source, plan.target, self.scorer, self.point, only_kept=self.only_kept,
            locking=self.locking,
        )  # fmt: skip

    def _tidy(self, plan: _Plan, locks: ExitStack, *, is_locked: bool) -> None:
        """Remove what a call left that was killed after it had finished its file."""
        clear_leftovers(plan.target.parent)
        if not plan.folder.is_dir():
            return
        if not is_locked:
            try:
                locks.enter_context(locked_folder(plan.folder, makes_file=False))
            except (Refused, OSError):  # another call removes it, or has
                return
        stored: dict[str, Any] = {}
        with suppress(ValueError):  # a damaged plan says nothing
            stored = self._stored(plan) or {}
        made = plan.as_json()
        is_ours = bool(stored) and all(stored.get(n) == made[n] for n in ("scorer", "masking"))
        if not (plan.folder / _INDEX).exists():  # else they were to be kept
            with suppress(OSError):  # the folder may be read-only
                _remove(plan.folder, is_ours=is_ours)

    def _stored(self, plan: _Plan) -> dict[str, Any] | None:
        path = plan.folder / _PLAN
        try:
            return dict(json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError) as problem:
            raise ValueError(
                f"Expected JSON in {path}, got {problem}; remove the folder and begin again."
            ) from problem

    def _check_folder(self, plan: _Plan) -> None:
        stored = self._stored(plan)
        if stored is None and plan.folder.exists() and _holds_others(plan.folder):
            raise RefusedFile(
                f"no folder {plan.folder}, or one of shards",
                "other files in it",
                "remove it or choose another name",
            )
        if stored is None or self.overwrite:
            return
        differ = [name for name, value in plan.as_json().items() if stored.get(name) != value]
        if differ:
            raise RefusedFile(
                f"the shards in {plan.folder} to be of this call",
                f"shards of another one (other {' and '.join(differ)})",
                "repeat that call, or begin again with {overwrite}",
            )
        if not self.resume and len(plan.missing()) < len(plan.shards):
            n_done = len(plan.shards) - len(plan.missing())
            raise RefusedFile(
                f"no shards in {plan.folder}",
                f"{n_done} of {len(plan.shards)}, of an earlier call",
                "finish it with {resume}, or begin again with {overwrite}",
            )

    def _begin(self, plan: _Plan) -> list[_Shard]:
        """Make the folder; remove what an interrupted or another call left that is of no use."""
        stored = self._stored(plan)
        if stored is not None and (not self.resume or stored != plan.as_json()):
            _remove_own(plan.folder)
        clear_leftovers(plan.folder)
        write_whole(plan.folder / _PLAN, lambda to: to.write_text(json.dumps(plan.as_json())))
        missing = plan.missing()
        self.report(plan.n_events - sum(shard.last - shard.first for shard in missing))
        return missing

    def report(self, n_events: int) -> None:
        if self.progress is not None and n_events:
            self.progress(n_events)

    def check_same(self, plan: _Plan) -> None:
        """Refuse a process with another scorer than that of process 0."""
        if digest_of_scorer(self.scorer) != plan.masking.scorer_digest:
            raise ValueError(
                f"Expected {self.scorer.name} with the same weights in every process, got others "
                f"in process {_process()[0]}; give all processes the same files."
            )

    def write_shards(self, source: Any, plan: _Plan, shards: Sequence[_Shard]) -> float:
        """Mask some shards of a file; return the seconds spent."""
        start = time.monotonic()
        if not shards:
            return 0.0
        with open_hits(source, locking=self.locking, in_memory=False) as hits:
            for shard in shards:
                self._write_shard(hits, plan, shard)
        return time.monotonic() - start

    def _write_shard(self, hits: HitsFile | HitsFiles, plan: _Plan, shard: _Shard) -> None:
        path = plan.folder / shard.name
        tally = Tally(self.point, is_labelled="/hit/label" in hits.columns)
        writer = HitsWriter(
            path,
            hits.geometry,
            overwrite=True,
            locking=self.locking,
            attributes=plan.masking.attributes,
        )
        with writer:
            batches = masked_batches(hits, self.scorer, self.point, plan.batch_size, shard)
            write_masked(writer, batches, tally, only_kept=self.only_kept, progress=self.progress)
            tally.save(path)  # before the shard appears, which says that all is done

    def wait(self, plan: _Plan, others: list[_Shard], patience: float) -> None:
        """Wait for the shards of other processes, as long as they go on being finished."""
        last = time.monotonic()
        while others:
            missing = [shard for shard in others if not (plan.folder / shard.name).exists()]
            if len(missing) < len(others):
                self.report(sum(shard.last - shard.first for shard in {*others} - {*missing}))
                others, last = missing, time.monotonic()
            elif time.monotonic() - last > patience:
                raise MissingShardsError(
                    f"{len(plan.shards)} shards in {plan.folder}",
                    f"{len(plan.shards) - len(missing)}: no other process finished one for "
                    f"{patience:.0f} s",
                    "repeat the command with {resume}, which does the rest",
                )
            else:
                time.sleep(_LOOK_EVERY)

    def finish(self, source: Any, plan: _Plan, validation: EventProfile | None) -> MaskedFile:
        """Join the shards to one file, or write their index."""
        with open_hits(source, locking=self.locking, in_memory=False) as hits:
            tally = Tally(self.point, is_labelled="/hit/label" in hits.columns)
            (empty,) = masked_batches(hits, self.scorer, self.point, plan.batch_size, (0, 0))
        for shard in plan.shards:
            tally.add_saved(plan.folder / shard.name)
        path = plan.folder / "*.h5" if self.keep_shards else plan.target
        result = tally.result(path, validation, plan.masking, source_name(source))
        if self.keep_shards:
            self._write_index(plan, result)
            return result
        writer = HitsWriter(
            plan.target,
            empty.geometry,
            overwrite=self.overwrite,
            locking=self.locking,
            attributes=plan.masking.attributes,
        )
        with writer:
            for events in self._shard_batches(plan):
                writer.append(_in_order_of(empty, events))
        if not (plan.folder / _INDEX).exists():  # else they were to be kept
            _remove(plan.folder)
        return result

    def _shard_batches(self, plan: _Plan) -> Iterator[Events]:
        """Yield the batches of all shards in order, as `masked_batches` made them."""
        for number, shard in enumerate(plan.shards):
            path = plan.folder / shard.name
            try:
                verify(path, locking=self.locking)
            except HitsFileError as problem:
                raise Refused(
                    f"the shard {path} as it was written",
                    "a damaged one",
                    "remove it and continue with {resume}",
                ) from problem
            with HitsFile(path, locking=self.locking, in_memory=False) as hits:
                if number == 0:
                    yield hits[:0]
                yield from hits.batches(plan.batch_size)

    def _write_index(self, plan: _Plan, result: MaskedFile) -> None:
        files = [
            {"file": shard.name, "first": shard.first, "events": shard.last - shard.first}
            for shard in plan.shards
        ]
        counts = {"n_hits": result.n_hits, "n_kept": result.n_kept}
        text = json.dumps({**plan.as_json(), **counts, "shards": files}, indent=1)
        write_whole(plan.folder / _INDEX, lambda to: to.write_text(text))


def _holds_others(folder: Path) -> bool:
    """Tell whether a folder without a plan holds more than the beginning of one."""
    return any(_PARTIAL.fullmatch(path.name) is None for path in folder.iterdir())


def _remove(folder: Path, *, is_ours: bool = True) -> None:
    """Remove a folder of shards; files of others stay, and their folder."""
    if is_ours:
        _remove_own(folder)
    with suppress(OSError):
        folder.rmdir()


def _remove_own(folder: Path) -> None:
    """Remove the files of a call from its folder of shards."""
    for path in folder.iterdir():
        if _OWN.fullmatch(path.name) or _PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)
    (folder / _PLAN).unlink(missing_ok=True)  # last: it says whose the others are


def _in_order_of(first: Events, events: Events) -> Events:
    """Return events with their columns in the order of others: a file depends on it."""
    hit, event = (
        {n: own[n] for n in names}
        for names, own in ((first.hit, events.hit), (first.event, events.event))
    )
    return replace(events, hit=hit, event=event)


def _process() -> tuple[int, int]:
    """Return the rank of this process, and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _together(prepare: Any) -> list[_Prepared]:
    """Return what process 0 prepares, in every process; raise its refusal in every process."""
    rank, world = _process()
    result: Any = None
    if rank == 0:
        try:
            result = prepare()
        except Exception as problem:
            if world == 1:
                raise
            result = problem if _is_sendable(problem) else ValueError(str(problem))
    if world > 1:
        shared = [result]
        dist.broadcast_object_list(shared)
        result = shared[0]
    if isinstance(result, Exception):
        raise mark_shared(result)
    prepared: list[_Prepared] = result
    return prepared


def _is_sendable(problem: Exception) -> bool:
    try:
        return str(pickle.loads(pickle.dumps(problem))) == str(problem)
    except Exception:  # whatever an exception of another library does
        return False
