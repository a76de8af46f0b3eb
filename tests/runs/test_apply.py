"""A run applied to events in memory, to a stream and to files."""

from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import dense_imb
from dense_imb import denoise, open_run, stream, train
from dense_imb.hits import (
    Events,
    HitDensity,
    HitsFile,
    HitsFileError,
    mask_events,
    mask_files,
    read_masking,
)
from dense_imb.runs import Run
from tests.hits.files import assert_same, some_events
from tests.runs.tiny import clean_events, tiny, write_events


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    path = write_events(folder / "clean.h5", clean_events(24))
    config = tiny(path, steps=4, validate_every=4, model={"name": "hits:tiny", "options": {}})
    return train(config, folder / "run", device="cpu", is_quiet=True)


@pytest.fixture
def events() -> Events:
    return clean_events(7, seed=3)


def test_events_come_back_as_they_are_given(run, events):
    scorer, point = run.trained(device="cpu"), run.operating_point(retention=0.9)
    wanted = mask_events(events, scorer.score(events.torch()), point)
    for source in (run, run.folder, str(run.folder)):
        got = denoise(source, events, retention=0.9, device="cpu")
        assert_same(got, wanted)
    got = denoise(scorer, events.torch(), threshold=point)
    assert got.is_torch
    assert torch.equal(got.hit["score"], torch.from_numpy(wanted.hit["score"]))
    kept = denoise(run, events, threshold=0.0, only_kept=True, device="cpu")
    assert kept.n_hits == events.n_hits
    assert denoise(run, events, threshold=1.0, only_kept=True, device="cpu").n_hits == 0


def test_weights_are_read_once_and_again_when_they_change(run, events, monkeypatch):
    loaded = []
    trained = Run.trained

    def counted(self, *which, **options):
        loaded.append(self.folder)
        return trained(self, *which, **options)

    monkeypatch.setattr(Run, "trained", counted)
    dense_imb.runs.apply._load.cache_clear()
    for _ in range(3):
        denoise(run.folder, events, device="cpu")
    assert len(loaded) == 1
    newest = sorted((run.folder / "checkpoints").glob("best-*.pt"))[-1]
    newest.touch()
    denoise(run, events, device="cpu")
    assert len(loaded) == 2


class Elsewhere(Run):
    """A run whose weights lie elsewhere, like those of the package."""

    def checkpoint(self, which="best"):
        content = super().checkpoint(which)
        network = {name: 0.5 * value for name, value in content["network"].items()}
        return {**content, "network": network}


def test_a_run_of_another_class_brings_its_own_weights(run, events):
    first = denoise(run, events, device="cpu").hit["score"]
    other = denoise(Elsewhere(run.folder), events, device="cpu").hit["score"]
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(denoise(run, events, device="cpu").hit["score"], first)


def test_a_stream_gives_each_event(run, events):
    whole = denoise(run, events, device="cpu")
    for options in ({}, {"max_events": 4, "max_seconds": 1.0}):
        got = [*stream(run, events, device="cpu", **options)]
        assert len(got) == 7
        for one, wanted in zip(got, whole, strict=True):
            np.testing.assert_allclose(one.hit["score"], wanted.hit["score"], atol=1e-6)


def test_a_file_in_shards_is_the_same(run, tmp_path):
    path = write_events(tmp_path / "raw.h5", clean_events(20, seed=4))
    with warnings.catch_warnings(action="ignore"):  # clean events look unlike noisy ones
        first = denoise(run, path, tmp_path / "a.h5", batch_size=4, device="cpu")
        second = denoise(run, path, tmp_path / "b.h5", batch_size=4, resume=True, device="cpu")
        third = denoise(run, path, tmp_path / "c.h5", batch_size=4, keep_shards=True, device="cpu")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert first.n_kept == second.n_kept == third.n_kept
    with HitsFile(tmp_path / "a.h5") as masked:
        made_by = read_masking(masked)
    assert made_by.scorer_digest is not None
    assert made_by.source_digest is not None


def test_awkward_events_come_back_as_awkward(run, events):
    awkward = pytest.importorskip("awkward")
    hits = pytest.importorskip("dense_imb.hits.jagged")
    got = denoise(run, hits.to_awkward(events), device="cpu")
    assert isinstance(got, awkward.Array)
    wanted = denoise(run, events, device="cpu")
    assert awkward.flatten(got.score).to_list() == wanted.hit["score"].tolist()
    assert awkward.flatten(got.keep).to_list() == wanted.hit["keep"].tolist()


@pytest.mark.parametrize(
    ("call", "problem", "sentence"),
    [
        (lambda run, e: denoise(run, e, "x.h5"), TypeError, "no `target` with events in memory"),
        (lambda run, e: denoise(run, "raw.h5"), TypeError, "`target`, the file to write"),
        (lambda run, e: denoise(HitDensity(), e), ValueError, "Expected `threshold` for hit den"),
        (lambda run, e: denoise(run, [1, 2]), TypeError, "got list; `Events.from_arrays`"),
        (lambda run, e: denoise(run, some_events(2)), ValueError, "as run was trained on"),
        (lambda run, e: stream(run, e, threshold=2.0), ValueError, "`threshold` from 0 to 1"),
    ],
)
def test_bad_input_is_one_sentence(run, events, call, problem, sentence):
    with pytest.raises(problem, match=sentence):
        call(run, events)


def test_other_weights_and_a_changed_source_are_not_finished_before(run, tmp_path):
    path = Path(write_events(tmp_path / "raw.h5", clean_events(20, seed=4)))
    point = run.operating_point()
    scorer = run.trained(device="cpu")
    mask_files(path, tmp_path / "out", scorer, point)
    assert mask_files(path, tmp_path / "out", scorer, point)[0].is_skipped
    other = open_run(run.folder).trained(device="cpu")
    with torch.no_grad():
        next(other.network.parameters()).add_(0.1)
    with pytest.raises(FileExistsError, match=r"got one by run at .* \(weights"):
        mask_files(path, tmp_path / "out", other, point)
    with h5py.File(path, "r+") as file:
        file["hit/x"][0] = 1 - file["hit/x"][0] % 2
    with pytest.raises(HitsFileError, match="got another in `/hit/x`"):
        mask_files(path, tmp_path / "out", scorer, point)
    write_events(path, clean_events(20, seed=5))
    with pytest.raises(FileExistsError, match="to hold the hits of"):
        mask_files(path, tmp_path / "out", scorer, point, only_kept=False)
