"""Events unlike those of validation are noticed; events of the same kind are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb import HitsConfig, ModelConfig, TrainConfig, denoise, train
from dense_imb.hits import Degradation, Events, HitDensity, HitsWriter, degrade, simulate
from dense_imb.hits.drift import FEWEST, DriftWarning, EventProfile, describe_drift, stability_index
from tests.hits.files import some_events

THRESHOLD = 0.8


def noisy(pattern: str, n_events: int, noise: int | tuple[int, int] = 200, seed: int = 0) -> Events:
    clean = simulate(pattern, n_events, seed=seed)
    return degrade(clean, Degradation(signal=30, noise=noise), seed=seed)


def profile(events: Events) -> EventProfile:
    made = EventProfile()
    made.update(events, HitDensity().score(events))
    return made


@pytest.fixture(scope="module")
def validation() -> EventProfile:
    return profile(noisy("arc", 100, seed=7))


def drift(events: Events, validation: EventProfile) -> str:
    return describe_drift(profile(events), validation, THRESHOLD, "raw.h5")


@pytest.mark.parametrize("n_events", [FEWEST, 30, 300])
def test_events_of_the_same_kind_are_not_noticed(validation, n_events):
    for seed in range(10, 16):
        assert drift(noisy("arc", n_events, seed=seed), validation) == ""


def test_chance_is_what_events_of_one_kind_have(validation):
    events = noisy("arc", 600, seed=20)
    ratios = []
    for part in (events[k : k + 20] for k in range(0, 600, 20)):
        index, chance = stability_index(profile(part), validation)
        ratios.append(float(index.sum()) / chance)
    assert 0.5 < np.mean(ratios) < 2
    assert max(ratios) < 6


def test_few_events_of_a_varied_kind_are_not_noticed(monkeypatch):
    events = noisy("arc", 400, noise=(20, 1000), seed=9)
    validation = profile(events[:100])
    parts = [profile(events[k : k + FEWEST]) for k in range(100, 400, FEWEST)]

    def n_noticed() -> int:
        return sum(describe_drift(part, validation, THRESHOLD, "raw.h5") != "" for part in parts)

    assert n_noticed() == 0
    monkeypatch.setattr("dense_imb.hits.drift._CHANCE", 0.0)
    assert n_noticed() > 10


@pytest.mark.parametrize("pattern", ["line", "cross", "ring"])
def test_other_patterns_are_noticed(validation, pattern):
    sentence = drift(noisy(pattern, 40), validation)
    assert sentence.startswith("raw.h5 looks unlike the validation events: ")
    assert "% of the hits have scores from 0.88 to 0.98, 1.1 % in validation" in sentence
    assert sentence.endswith("Evaluate on labelled events before you trust it.")


def test_more_noise_is_noticed(validation):
    sentence = drift(noisy("arc", 40, noise=1000), validation)
    assert "an event has about 1,000 hits (median), 230 in validation, and " in sentence
    assert "% of the hits are kept, 14 % in validation; was it recorded under" in sentence
    assert "hits (median), 230 in validation" in drift(noisy("arc", 40, noise=60), validation)


def test_few_events_and_empty_ones_say_nothing(validation):
    assert drift(noisy("line", FEWEST - 1), validation) == ""
    empty = noisy("arc", 20).select(np.zeros(20 * 230, bool))
    assert "an event has about 0 hits (median)" in drift(empty, validation)
    assert describe_drift(profile(empty), profile(empty), 0.5, "raw.h5") == ""


def test_a_profile_is_that_of_its_parts(tmp_path):
    events = some_events(60)
    whole, parts = EventProfile(), EventProfile()
    score = torch.rand(events.n_hits, generator=torch.Generator().manual_seed(0))
    score[:3] = torch.tensor([0.0, 1.0, 0.5])
    whole.update(events, score)
    for first, last in ((0, 7), (7, 7), (7, 60)):
        part = EventProfile()
        hits = slice(int(events.offset[first]), int(events.offset[last]))
        part.update(events[first:last].torch(), score[hits])
        parts.merge(part)
    assert parts.shares()[0].tolist() == pytest.approx(whole.shares()[0].tolist())
    count = np.diff(events.offset)
    for q in (0.05, 0.5, 0.95):
        wanted = float(np.quantile(count, q, method="inverted_cdf"))
        assert whole.hits_quantile(q) == parts.hits_quantile(q) == pytest.approx(wanted, rel=0.03)
    assert whole.kept_fraction(0.7) == pytest.approx(
        float((score >= 0.7).double().mean()), abs=0.02
    )
    assert whole.kept_fraction(0.0) == 1
    parts.save(tmp_path / "profile.json")
    assert EventProfile.load(tmp_path / "profile.json").kept_fraction(0.7) == whole.kept_fraction(
        0.7
    )


@pytest.mark.slow
def test_a_network_of_arcs_is_not_trusted_on_lines(tmp_path: Path):
    paths = {}
    for name, events in {
        "train": simulate("arc", 600, seed=1),
        "arcs": noisy("arc", 60, seed=2),
        "crosses": noisy("cross", 60, seed=3),
        "noisy": noisy("arc", 60, noise=1000, seed=4),
    }.items():
        paths[name] = tmp_path / f"{name}.h5"
        with HitsWriter(paths[name], events.geometry) as writer:
            writer.append(events)
    config = TrainConfig(
        hits=HitsConfig(train=str(paths["train"]), signal=30, noise=200, validation_share=0.15),
        model=ModelConfig(name="hits:tiny"),
        steps=80,
        batch_size=16,
        validate_every=80,
    )
    run = train(config, tmp_path / "run", device="cpu", is_quiet=True)
    assert run.validation_events().n_events == 90
    assert denoise(run, paths["arcs"], tmp_path / "a.h5").drift == ""
    for name, words in (("crosses", "of the hits"), ("noisy", "an event has about 1,000 hits")):
        with pytest.warns(DriftWarning, match=words):
            done = denoise(run, paths[name], tmp_path / f"{name}_out.h5")
        assert done.drift.startswith(f"{paths[name]} looks unlike")
    (tmp_path / "run" / "validation_events.json").unlink()
    assert denoise(run, paths["crosses"], tmp_path / "b.h5").drift == ""
