"""Split and merge: no event in two parts, none lost, all columns carried."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dense_imb.data.events.combine import merge_hits, split_hits
from dense_imb.hits import HitsFile, open_hits, verify
from tests.hits.files import assert_same, some_events, write

EVENTS = some_events(2500)  # more than a batch of the reader
PARTS = {"train": 0.7, "validation": 0.2, "test": 0.1}


def split(folder, **options):
    source = folder / "all.h5"
    if not source.exists():
        write(source, EVENTS)
    parts = {folder / f"{name}.h5": share for name, share in PARTS.items()}
    counts = split_hits(open_hits(source), parts, progress=False, overwrite=True, **options)
    return [HitsFile(path)[:] for path in parts], counts


def test_each_event_is_in_one_part_with_all_its_columns(tmp_path):
    parts, counts = split(tmp_path)
    assert counts == [1750, 500, 250]
    number = [part.event["run"] for part in parts]  # different in every event here
    assert np.array_equal(np.sort(np.concatenate(number)), EVENTS.event["run"])
    for part, run in zip(parts, number, strict=True):
        assert (np.diff(run) > 0).all()  # the old order
        assert_same(part, EVENTS.take(run.tolist()))
    verify(tmp_path / "test.h5")


def test_the_seed_decides(tmp_path):
    first, second, third = (split(tmp_path, seed=seed)[0][2].event["run"] for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_groups_stay_together(tmp_path):
    source = tmp_path / "all.h5"
    run = np.arange(2500) * 7 % 40
    write(source, EVENTS.__class__(**{**vars(EVENTS), "event": {"run": run}}))
    parts, counts = split(tmp_path, group="run")
    runs = [set(part.event["run"].tolist()) for part in parts]
    assert all(not a & b for a, b in itertools.combinations(runs, 2))
    assert set().union(*runs) == set(range(40))
    assert np.allclose(counts, [1750, 500, 250], atol=63)  # a run has at most 63 events


def test_bad_wishes_are_named_and_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"one of \['is_calibration', 'run'\], got 'rnu'"):
        split(tmp_path, group="rnu")
    with pytest.raises(ValueError, match="got none for part [123]: 2 groups"):
        split(tmp_path, group="is_calibration", seed=1)
    source = open_hits(tmp_path / "all.h5")
    with pytest.raises(ValueError, match="an output apart from the inputs"):
        split_hits(source, {tmp_path / "all.h5": 1.0}, overwrite=True, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["all.h5"]


def test_merging_the_parts_gives_every_event_back(tmp_path):
    split(tmp_path)
    paths = [tmp_path / f"{name}.h5" for name in PARTS]
    writer = merge_hits(paths, tmp_path / "back.h5", source_column="part", progress=False)
    assert (writer.n_events, writer.n_hits) == (len(EVENTS), EVENTS.n_hits)
    verify(tmp_path / "back.h5")
    back = HitsFile(tmp_path / "back.h5")[:]
    part = back.event.pop("part")
    assert part.tolist() == [0] * 1750 + [1] * 500 + [2] * 250
    assert_same(back.take(np.argsort(back.event["run"]).tolist()), EVENTS)


def test_merge_refuses_other_frames_columns_and_names(tmp_path):
    one = write(tmp_path / "one.h5", EVENTS[:5])
    narrow = EVENTS.geometry.__class__(**{**vars(EVENTS.geometry), "width": 90})
    other = write(
        tmp_path / "two.h5", EVENTS[:5].__class__(**{**vars(EVENTS[:5]), "geometry": narrow})
    )
    bare = write(tmp_path / "bare.h5", EVENTS[:5].__class__(**{**vars(EVENTS[:5]), "event": {}}))
    for paths, target, options, sentence in (
        ([one, other], "out.h5", {}, "with the geometry of"),
        ([one, bare], "out.h5", {}, "with the columns of"),
        ([one], "one.h5", {"overwrite": True}, "apart from the inputs"),
        ([one], "out.h5", {"source_column": "run"}, "a new name for the column"),
    ):
        with pytest.raises(ValueError, match=sentence):
            merge_hits(paths, tmp_path / target, progress=False, **options)
    assert not (tmp_path / "out.h5").exists()


def test_files_without_events_merge(tmp_path):
    paths = [write(tmp_path / f"{n}.h5", EVENTS[:n], batch=1) for n in (0, 2)]
    paths[0] = tmp_path / "none.h5"
    write(paths[0], EVENTS[:0])
    from dense_imb.hits import HitsWriter

    with HitsWriter(paths[0], EVENTS.geometry, overwrite=True) as writer:
        writer.append(EVENTS[:0])
    merge_hits(paths, tmp_path / "out.h5", source_column="part", progress=False)
    assert HitsFile(tmp_path / "out.h5")[:].event["part"].tolist() == [1, 1]


def test_compression_changes_the_size_and_nothing_else(tmp_path):
    path = write(tmp_path / "a.h5", EVENTS)
    merge_hits([path], tmp_path / "packed.h5", compression=4, progress=False)
    assert verify(tmp_path / "packed.h5") == verify(path)
    assert_same(HitsFile(tmp_path / "packed.h5", in_memory=False)[:], EVENTS)
    assert (tmp_path / "packed.h5").stat().st_size < 0.9 * path.stat().st_size
    with pytest.raises(ValueError, match="`compression` from 1 to 9"):
        merge_hits([path], tmp_path / "b.h5", compression=0, progress=False)
