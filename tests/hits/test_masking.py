"""Masking adds a score and a verdict to each hit, and alters nothing."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dense_imb.hits import (
    Events,
    Geometry,
    HitsFile,
    HitsFileError,
    HitsWriter,
    concatenate,
    hit_scores,
    mask_events,
    mask_file,
    mask_files,
    read_masking,
    verify,
)
from dense_imb.hits.baselines import HitDensity, Identity, KeepNothing
from dense_imb.metrics import HitScores, OperatingPoint
from tests.hits.files import FRAME, assert_same, some_events, write

POINT = OperatingPoint(0.6, "probability", 0.97, 0.8, float("nan"), n_signal=10, n_noise=0)
OURS = {"/", "/hit/score", "/hit/keep"}


@dataclass
class Stub:
    """Scores that depend on the hit alone; what goes wrong is set by the test."""

    name: str = "stub"
    geometry: Geometry | None = None
    fails_at: int = -1
    calls: int = 0

    def score(self, events: Events) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("out of memory")
        return ((events.x * 7 + events.y * 13 + events.t * 3) % 101).float() / 100


def bare(n_events: int, seed: int = 0) -> Events:
    """Events that no masking has seen."""
    events = some_events(n_events, seed)
    hit = {
        "momentum": events.hit["momentum"],
        "charge": events.x.astype(np.uint64) << np.uint64(50),
    }
    hit["charge32"] = np.where(events.x % 5 == 0, np.nan, events.t).astype(np.float32)
    return replace(events, hit=hit)


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_no_column_is_altered(tmp_path: Path, batch_size: int) -> None:
    source = write(tmp_path / "raw.h5", bare(60))
    done = mask_file(source, tmp_path / "clean.h5", Stub(), POINT, batch_size=batch_size)
    before, after = verify(source), verify(tmp_path / "clean.h5")
    assert after.keys() - before.keys() == {"/hit/score", "/hit/keep"}
    assert {name: after[name] for name in before if name != "/"} == {
        name: digest for name, digest in before.items() if name != "/"
    }
    with HitsFile(source) as raw, HitsFile(tmp_path / "clean.h5") as clean:
        assert clean.geometry == raw.geometry
        assert {n: d for n, d in clean.columns.items() if n not in OURS} == raw.columns
        events = clean[:]
        score = Stub().score(raw[:].torch()).numpy()
        np.testing.assert_array_equal(events.hit["score"], score)
        np.testing.assert_array_equal(events.hit["keep"], score.astype(np.float64) >= 0.6)
        assert (events.hit["score"].dtype, events.hit["keep"].dtype) == (np.float32, bool)
        assert (done.n_events, done.n_hits) == (60, raw.n_hits)
        assert done.n_kept == events.hit["keep"].sum()


def test_an_earlier_masking_is_replaced(tmp_path: Path) -> None:
    source = write(tmp_path / "a.h5", some_events(20))
    mask_file(source, tmp_path / "b.h5", Identity(), POINT)
    with HitsFile(tmp_path / "b.h5") as masked:
        assert masked[:].hit["keep"].all()
        assert (masked[:].hit["score"] == 1).all()
    assert verify(source)["/hit/momentum"] == verify(tmp_path / "b.h5")["/hit/momentum"]


def test_only_kept_hits_leave_their_events_behind(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.h5", bare(60))
    mask_file(source, tmp_path / "all.h5", Stub(), POINT)
    done = mask_file(source, tmp_path / "kept.h5", Stub(), POINT, only_kept=True, batch_size=9)
    with HitsFile(tmp_path / "all.h5") as everything, HitsFile(tmp_path / "kept.h5") as kept:
        assert_same(kept[:], everything[:].select(everything[:].hit["keep"]))
        assert (done.n_hits, done.n_kept) == (everything.n_hits, kept.n_hits)
    mask_file(source, tmp_path / "none.h5", KeepNothing(), POINT, only_kept=True)
    with HitsFile(tmp_path / "none.h5") as none:
        assert (len(none), none.n_hits) == (60, 0)
        np.testing.assert_array_equal(none[:].event["run"], bare(60).event["run"])


@pytest.mark.parametrize("events", [bare(5)[:0], bare(60).select(np.zeros(bare(60).n_hits, bool))])
def test_files_without_events_or_hits(tmp_path: Path, events: Events) -> None:
    source = write(tmp_path / "raw.h5", events)
    with HitsWriter(tmp_path / "nothing.h5", FRAME):
        pass
    for path in (source, tmp_path / "nothing.h5"):
        done = mask_file(path, tmp_path / "clean.h5", HitDensity(), POINT, overwrite=True)
        with HitsFile(path) as raw, HitsFile(tmp_path / "clean.h5") as clean:
            assert clean.columns.keys() == raw.columns.keys() | {"/hit/score", "/hit/keep"}
            assert (len(clean), clean.n_hits, done.n_kept) == (len(raw), 0, 0)


def test_times_keep_their_type_in_the_longest_frame(tmp_path: Path) -> None:
    frame = Geometry(2, 2, 65536)
    for t in (np.array([1, 65535], np.uint16), np.array([1, 65536], np.float32)):
        one = Events(frame, np.array([0, 2]), np.array([0, 1]), np.array([0, 1]), t)
        source = write(tmp_path / "raw.h5", one, overwrite=True)
        mask_file(source, tmp_path / "clean.h5", Identity(), POINT, overwrite=True)
        assert verify(source)["/hit/t"] == verify(tmp_path / "clean.h5")["/hit/t"]
        assert HitsFile(source).columns["/hit/t"] == t.dtype


def test_several_files_become_one(tmp_path: Path) -> None:
    parts = [bare(20, seed) for seed in (1, 2)]
    for number, part in enumerate(parts):
        write(tmp_path / f"raw{number}.h5", part)
    mask_file(tmp_path / "raw*.h5", tmp_path / "a.h5", Stub(), POINT, batch_size=7)
    mask_file(write(tmp_path / "joined.h5", concatenate(parts)), tmp_path / "b.h5", Stub(), POINT)
    assert verify(tmp_path / "a.h5") == verify(tmp_path / "b.h5")


def test_the_file_says_what_made_it(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.h5", bare(5))
    mask_file(source, tmp_path / "clean.h5", Stub("réseau 3"), POINT, only_kept=True)
    with HitsFile(source) as raw, HitsFile(tmp_path / "clean.h5") as clean:
        assert read_masking(raw) is None
        made_by = read_masking(clean)
    assert made_by is not None
    assert (made_by.scorer, made_by.only_kept) == ("réseau 3", True)
    assert made_by.operating_point.as_json() == POINT.as_json()
    mask_file(source, tmp_path / "cut.h5", Stub(), 0.25)
    with HitsFile(tmp_path / "cut.h5") as cut, h5py.File(tmp_path / "cut.h5") as file:
        made_by = read_masking(cut)
        assert all(file.attrs.get_id(name).dtype.kind == "S" for name in ("scorer", "masking"))
    assert made_by is not None
    assert made_by.operating_point.threshold == 0.25
    verify(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "cut.h5", "r+") as file:
        file.attrs["masking"] = np.bytes_(b'{"operating_point": {}, "only_kept": 0}')
    with HitsFile(tmp_path / "cut.h5") as cut, pytest.raises(HitsFileError, match="denoise the fi"):
        read_masking(cut)
    with pytest.raises(HitsFileError, match="got another in `/`"):
        verify(tmp_path / "cut.h5")


def test_the_writer_takes_no_other_attributes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'scorer'"):
        HitsWriter(tmp_path / "a.h5", FRAME, attributes={"score": "x"})
    for text in ("", "a\0b"):
        with pytest.raises(ValueError, match="Expected `scorer` to be a text"):
            HitsWriter(tmp_path / "a.h5", FRAME, attributes={"scorer": text})


def test_labels_give_the_scores_of_what_was_done(tmp_path: Path) -> None:
    events = bare(40)
    source = write(tmp_path / "raw.h5", events)
    done = mask_file(source, tmp_path / "a.h5", Stub(), POINT, batch_size=3)
    assert isinstance(done.scores, HitScores)
    kept, total = np.zeros(2, int), np.zeros(2, int)  # of all signal, of the visible signal
    for one in events:
        score = Stub().score(one.torch())
        hits = list(zip(one.x.tolist(), one.y.tolist(), one.t.tolist(), strict=True))
        for j, (x, y, t) in enumerate(hits):
            # the larger time is seen, of equal ones the first
            rivals = [(-u, k) for k, (v, w, u) in enumerate(hits) if (v, w) == (x, y)]
            if one.label[j] > 0:
                counted = np.array([1, (-t, j) == min(rivals)])
                total += counted
                kept += counted * bool(score[j].double() >= 0.6)
    scores = done.scores.scores()
    assert [scores["retention"], scores["visible_retention"]] == (kept / total).tolist()
    assert f"; {100 * kept[0] / total[0]:.1f} % of the signal kept; " in done.summary()
    unlabelled = write(tmp_path / "u.h5", replace(events, label=None))
    assert mask_file(unlabelled, tmp_path / "b.h5", Stub(), POINT).scores is None


@pytest.mark.parametrize("has_old", [False, True])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, has_old: bool) -> None:
    source = write(tmp_path / "raw.h5", bare(30))
    old = None
    if has_old:
        mask_file(source, tmp_path / "clean.h5", Stub(), POINT)
        old = (tmp_path / "clean.h5").read_bytes()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="out of memory"):
        mask_file(
            source, tmp_path / "clean.h5", Stub(fails_at=4), POINT, batch_size=7, overwrite=True
        )
    assert sorted(tmp_path.iterdir()) == before
    assert old is None or (tmp_path / "clean.h5").read_bytes() == old


def test_memory_stays_flat(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.h5", replace(some_events(30_000, mean=100.0), hit={}))
    tracemalloc.start()
    mask_file(source, tmp_path / "clean.h5", Identity(), POINT, batch_size=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert source.stat().st_size > 16e6
    assert peak < 14e6  # the writer's buffers of 4 MB, while they are joined


class Broken:
    def __init__(self, score: object) -> None:
        self.name, self._score = "broken", score

    def score(self, events: Events) -> torch.Tensor:
        return self._score(events.n_hits)  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize(
    ("scorer", "point", "sentence"),
    [
        (
            Stub(geometry=Geometry(44, 64, 1000)),
            POINT,
            "44 x 64 pixels and 1000 time steps, as stub",
        ),
        (Stub(geometry=Geometry(88, 128, 500)), POINT, "got 88 x 128 pixels and 1000 time steps"),
        (Broken(lambda n: torch.ones(n, 1)), POINT, "broken to give one score for each of the"),
        (Broken(lambda n: torch.full((n,), torch.nan)), POINT, "between 0 and 1, got NaN"),
        (Broken(lambda n: torch.full((n,), 1.5)), POINT, "between 0 and 1, got 1.5"),
        (Stub(), replace(POINT, scale="logit"), "as scores of hits are in"),
        (Stub(), -0.1, "`threshold` to be a number of at least 0"),
        (Stub(), float("nan"), "`threshold` to be a number of at least 0"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, scorer: Stub, point: OperatingPoint, sentence: str
) -> None:
    source = write(tmp_path / "raw.h5", bare(10))
    with pytest.raises(ValueError) as problem:  # noqa: PT011
        mask_file(source, tmp_path / "clean.h5", scorer, point)
    assert sentence in str(problem.value)
    assert "\n" not in str(problem.value)
    assert list(tmp_path.iterdir()) == [source]


def test_a_scorer_of_other_pixel_sizes_fits(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.h5", bare(3))  # x_mm = 0.4
    mask_file(source, tmp_path / "clean.h5", Stub(geometry=Geometry(88, 128, 1000)), POINT)


def test_the_source_is_never_the_target(tmp_path: Path) -> None:
    source = write(tmp_path / "raw.h5", bare(3))
    before = source.read_bytes()
    with pytest.raises(ValueError, match="an output apart from the inputs"):
        mask_file(source, tmp_path / "." / "raw.h5", Stub(), POINT, overwrite=True, only_kept=True)
    with pytest.raises(FileExistsError, match="with `overwrite`"):
        mask_file(source, write(tmp_path / "b.h5", bare(2)), Stub(), POINT)
    assert source.read_bytes() == before


def test_tensors_stay_tensors() -> None:
    events = bare(5).torch()
    masked = mask_events(events, Stub().score(events), POINT)
    assert isinstance(masked.hit["keep"], torch.Tensor)
    assert torch.equal(masked.hit["keep"], Stub().score(events).double() >= 0.6)


def test_hits_of_one_pixel_share_its_score() -> None:
    events = bare(12)
    score_map = torch.rand(12, 1, 128, 88, generator=torch.Generator().manual_seed(0))
    wanted = [
        score_map[i, 0, y, x].item()
        for i, one in enumerate(events)
        for x, y in zip(one.x, one.y, strict=True)
    ]
    assert hit_scores(score_map, events).tolist() == wanted
    with pytest.raises(ValueError, match=r"in the shape \(12, 1, 128, 88\)"):
        hit_scores(score_map.transpose(2, 3), events)


# several files into a folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    for number in range(3):
        write(tmp_path / "raw" / f"{number}.h5", bare(20 + number, number))
    return tmp_path / "raw"


@pytest.mark.parametrize("only_kept", [False, True])
def test_what_is_finished_is_skipped(raw: Path, tmp_path: Path, only_kept: bool) -> None:
    clean, seen = tmp_path / "deep" / "clean", []
    stub = Stub(fails_at=6)
    with pytest.raises(RuntimeError, match="out of memory"):
        mask_files(raw / "*.h5", clean, stub, POINT, batch_size=7, only_kept=only_kept)
    assert [path.name for path in clean.iterdir()] == ["0.h5"]
    first = (clean / "0.h5").stat().st_mtime_ns
    done = mask_files(
        raw / "*.h5", clean, Stub(), POINT, batch_size=9, only_kept=only_kept, progress=seen.append
    )
    assert [one.is_skipped for one in done] == [True, False, False]
    assert [one.n_events for one in done] == [20, 21, 22]
    assert sum(seen) == 63
    assert (clean / "0.h5").stat().st_mtime_ns == first
    again = mask_files(raw / "*.h5", clean, Stub(fails_at=1), POINT, only_kept=only_kept)
    assert all(one.is_skipped for one in again)
    assert [(o.n_hits, o.n_kept) for o in again] == [(o.n_hits, o.n_kept) for o in done]
    alone = tmp_path / "alone.h5"
    mask_file(raw / "1.h5", alone, Stub(), POINT, only_kept=only_kept)
    assert verify(alone) == verify(clean / "1.h5")


@pytest.mark.parametrize("only_kept", [False, True])
def test_an_output_of_something_else_is_refused(raw: Path, tmp_path: Path, only_kept: bool) -> None:
    clean, source = tmp_path / "clean", raw / "0.h5"
    mask_files(source, clean, Stub(), POINT, only_kept=only_kept)
    for scorer, point, kept, got in (
        (Stub("other"), POINT, only_kept, "got one by stub at 0.6"),
        (Stub(), 0.7, only_kept, "masked by stub at 0.7"),
        (Stub(), POINT, not only_kept, "with kept hits only"),
    ):
        with pytest.raises(FileExistsError, match=got):
            mask_files(source, clean, scorer, point, only_kept=kept)
    other = replace(bare(20), event={**bare(20).event, "run": np.arange(20) + 5})
    write(source, other, overwrite=True)
    with pytest.raises(FileExistsError, match="to hold the hits of"):
        mask_files(source, clean, Stub(), POINT, only_kept=only_kept)
    mask_files(source, clean, Stub(), POINT, only_kept=only_kept, overwrite=True)
    for n_events in (20, 21):
        write(source, replace(bare(n_events), event={}), overwrite=True)
        if n_events == 20:
            mask_files(source, clean, Stub(), POINT, only_kept=only_kept, overwrite=True)
    with pytest.raises(FileExistsError, match="to hold the hits of"):
        mask_files(source, clean, Stub(), POINT, only_kept=only_kept)
    (clean / "1.h5").write_bytes((raw / "1.h5").read_bytes())
    with pytest.raises(FileExistsError, match="got a file of another kind"):
        mask_files(raw / "1.h5", clean, Stub(), POINT)


def test_a_damaged_output_is_refused_and_replaced_on_demand(raw: Path, tmp_path: Path) -> None:
    mask_files(raw / "0.h5", tmp_path / "clean", Stub(), POINT)
    path = tmp_path / "clean" / "0.h5"
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        content[file["hit/x"].id.get_chunk_info(0).byte_offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(HitsFileError, match="got another in `/hit/x`"):
        mask_files(raw / "0.h5", tmp_path / "clean", Stub(), POINT)
    mask_files(raw / "0.h5", tmp_path / "clean", Stub(), POINT, overwrite=True)
    verify(path)


def test_equal_names_are_refused_before_any_work(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "2.h5", bare(2))
    with pytest.raises(ValueError, match="sources of different names"):
        mask_files([raw / "*.h5", tmp_path / "more/2.h5"], tmp_path / "clean", Stub(), POINT)
    assert not (tmp_path / "clean").exists()
