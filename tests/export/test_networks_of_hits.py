"""Networks of hits in a file: padded events get the scores of dense_imb, long ones are named."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb.cli import main
from dense_imb.export import export_run, throughput
from dense_imb.export.network import exportable
from dense_imb.hits import Events
from dense_imb.models import HitTransformer
from dense_imb.runs import Run, open_run
from tests.export.conftest import CASES
from tests.runs.tiny import clean_events
from tests.tasks.hits.test_networks_of_hits import telescope_events

NAMES = [name for name, (kind, _) in CASES.items() if kind == "hits"]


def padded(run: Run, events: Events) -> dict[str, np.ndarray]:
    """Pad events one after the other; padding holds NaN, which nobody may read."""
    scorer = run.trained(device="cpu")
    flat = scorer.reading.inputs(events.torch())
    offset = flat.offset.tolist()
    longest = max(np.diff(offset))
    given = {"is_hit": np.zeros((len(events), longest), bool)}
    for name in ("coordinate", "feature"):
        values = getattr(flat, name).numpy()
        given[name] = np.full((*given["is_hit"].shape, values.shape[1]), np.nan, np.float32)
        for k, (first, last) in enumerate(pairwise(offset)):
            given[name][k, : last - first] = values[first:last]
            given["is_hit"][k, : last - first] = True
    if given["feature"].shape[-1] == 0:
        del given["feature"]
    return given


def answers(path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return what the file alone answers."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        order = [name for name in ("coordinate", "is_hit", "feature") if name in given]
        found = module(*(torch.from_numpy(given[name]) for name in order))
        return [one.detach().numpy() for one in found]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, given)


def events_like(name: str, n_events: int, most: int = 20) -> Events:
    """Events of different lengths, of 1 to `most` hits."""
    make = clean_events if name == "hits.onnx" else telescope_events
    events = make(n_events, seed=5)
    within = np.concatenate(
        [np.random.default_rng(3).permutation(n) for n in np.diff(events.offset)]
    )
    lengths = np.resize([most, 1, 3], n_events)
    return events.select(within < lengths[events.torch().event_index().numpy()])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_events", [1, 7])
def test_padded_events_get_the_scores_of_the_run(case_of, name, n_events):
    run, exported = case_of(name)
    events, scorer = events_like(name, n_events), run.trained(device="cpu")
    given = padded(run, events)
    is_hit = given["is_hit"]
    found = answers(exported.path, given)
    assert exported.facts["outputs"][0]["name"] == "score"
    np.testing.assert_allclose(found[0][is_hit], scorer.score(events).numpy(), atol=2e-5)
    assert found[0][is_hit].std() > 0  # or anything would do
    assert all((one[~is_hit] == 0).all() for one in found)
    if scorer.reading.n_classes > 2:
        np.testing.assert_allclose(found[1][is_hit], scorer.probability(events), atol=2e-5)


def test_a_value_is_an_output(case_of):
    run, exported = case_of("particles.pt2")
    events, scorer = events_like("particles.pt2", 4), run.trained(device="cpu")
    given = padded(run, events)
    with torch.no_grad():
        expected = scorer.network(scorer.reading.inputs(events.torch()))[:, -1].numpy()
    outputs = exported.facts["outputs"]
    assert [one["name"] for one in outputs] == ["score", "probability", "value"]
    assert [one["shape"] for one in outputs] == [
        ["batch", "hits"],
        ["batch", "hits", 3],
        ["batch", "hits"],
    ]
    found = answers(exported.path, given)
    np.testing.assert_allclose(found[2][given["is_hit"]], expected, atol=2e-5)


@pytest.mark.parametrize("name", ["hits.onnx", "long.pt2"])
def test_one_hit_and_events_without_any_are_scored(case_of, name):
    run, exported = case_of(name)
    one = padded(run, events_like(name, 1, most=1))
    alone = answers(exported.path, one)[0]
    beside = {key: np.concatenate([values, np.zeros_like(values)]) for key, values in one.items()}
    np.testing.assert_allclose(answers(exported.path, beside)[0], [[alone[0, 0]], [0]], atol=1e-6)


def test_only_events_that_fit_are_compared(case_of):
    run, exported = case_of("hits.onnx")
    what = exportable(run)
    lengths = [len(event.coordinate) for event in what.samples]
    assert max(lengths) <= 26
    assert what.n_longer > 0
    assert len(lengths) == what.n_events - what.n_longer
    assert exported.facts["window"] == 26
    assert exported.facts["check"]["n_inputs"] == len(lengths)
    assert f"without {what.n_longer} of the first {what.n_events} events" in what.source
    card = exported.card.read_text()
    for words in (
        "Events of at most 26 hits get the answers of `dense_imb`.",
        f"Of the first {what.n_events} validation events, {what.n_longer} are longer.",
        "x, y, t of each hit in pixels and time steps",
        f"**{run.operating_point().threshold:.9g}**",
    ):
        assert words in card, words


def test_events_that_are_all_too_long_are_cut_to_be_compared(case_of):
    run, exported = case_of("long.pt2")
    what = exportable(run)
    assert [len(event.coordinate) for event in what.samples] == [20] * 4
    assert what.n_longer == what.n_events == 6
    assert "of each event the 20 hits nearest in time" in exported.facts["check"]["on"]
    for number, sample in enumerate(what.samples):
        time, every = sample.coordinate[:, -1], np.sort(telescope_events(24)[18 + number].t)
        assert float(time.max() - time.min()) == pytest.approx((every[19:] - every[:-19]).min())


def test_the_card_names_coordinates_and_features(case_of):
    _, exported = case_of("sensors.onnx")
    inputs = {one["name"]: one for one in exported.facts["inputs"]}
    assert inputs["coordinate"]["shape"] == ["batch", "hits", 4]
    assert inputs["is_hit"]["dtype"] == "bool"
    assert inputs["feature"]["features"] == [
        "charge",
        *(f"direction {axis} of the sensor" for axis in "xyz"),
    ]
    assert "in metres and ns" in inputs["coordinate"]["is"]


@pytest.mark.parametrize("name", ["sensors.onnx", "hits.onnx"])
def test_hits_are_random_where_the_data_are_gone(case_of, tmp_path, name):
    run, _ = case_of(name)
    folder = shutil.copytree(run.folder, tmp_path / "run")
    text = (folder / "config.yaml").read_text().replace(str(run.folder.parent), "/nowhere")
    (folder / "config.yaml").write_text(text)
    exported = export_run(folder, tmp_path / "x.pt2")
    assert exported.facts["check"]["on"].startswith("random hits, since")
    assert "validation events, " not in exported.facts["limitations"][0]
    scores = exportable(open_run(folder))
    assert torch.cat([scores.answers(scores.batch([k]))[0][0] for k in range(4)]).std() > 0


def test_a_file_is_compared_with_dense_imb_itself(case_of, tmp_path, monkeypatch):
    score_padded = HitTransformer.score_padded

    def without_mask(self, coordinate, is_hit, feature):
        return score_padded(self, coordinate, torch.ones_like(is_hit), feature)

    monkeypatch.setattr(HitTransformer, "score_padded", without_mask)
    with pytest.raises(ValueError, match="to differ from PyTorch by at most"):
        export_run(case_of("hits.onnx").run, tmp_path / "x.pt2", tolerance=1e-5)


def test_a_refusal_names_what_works(case_of, tmp_path, monkeypatch):
    def fail(*given, **options):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.export, "export", fail)
    wanted = (
        r"got hits, which can't be exported .*; score hits with .*dense_imb\.denoise.*best\.saf"
    )
    with pytest.raises(ValueError, match=wanted):
        export_run(case_of("long.pt2").run, tmp_path / "x.pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_that_long_events_need_dense_imb(case_of, tmp_path, capsys):
    out = tmp_path / "x.pt2"
    assert main(["export", str(case_of("sensors.onnx").run.folder), str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        f"{out}: takes coordinate (batch, hits, 4), is_hit (batch, hits), feature (batch, hits, 4)"
    )
    assert "events of at most 64 hits; longer ones need dense_imb" in printed[2]


def test_onnx_runtime_takes_turns_with_pytorch(case_of):
    run, exported = case_of("hits.onnx")
    rows = throughput(run, exported.path, seconds=0.05)
    assert [row.unit for row in rows] == ["events", "events"]
    assert rows[1].size.endswith(" hits")
    assert "events/s" in str(rows[0])
