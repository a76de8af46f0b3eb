"""What an exported file answers is what the run answers, by itself and without dense_imb."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb.base.refusals import Refused
from dense_imb.export import export_run
from dense_imb.hits import Events, rasterise
from dense_imb.runs import train
from dense_imb.tasks.hits.scoring import is_visible
from dense_imb.tasks.hits.trained import TrainedHits
from tests.export.conftest import CASES
from tests.runs.pictures import lines
from tests.runs.tiny import clean_events, write_events
from tests.tasks.hits.test_networks_of_hits import config, telescope_events

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")

HITS = [name for name, (kind, _) in CASES.items() if kind == "denoiser"]
EVENTS = [name for name, (kind, _) in CASES.items() if kind == "hit scorer"]
IMAGES = [name for name, (kind, _) in CASES.items() if kind == "segmenter"]
LABELS = [name for name, (kind, _) in CASES.items() if kind == "classifier"]


def answers(path: Path, *given: np.ndarray) -> list[np.ndarray]:
    """Of the file alone."""
    if path.suffix == ".pt2":
        found = torch.export.load(path).module()(*map(torch.from_numpy, given))
        found = [found] if isinstance(found, torch.Tensor) else found
        return [one.detach().numpy() for one in found]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, given, strict=True)))


@pytest.mark.parametrize("name", HITS)
@pytest.mark.parametrize("n_events", [1, 7])
def test_hits_score_as_the_run_scores_them(case_of, name, n_events):
    run, exported = case_of(name)
    events = clean_events(n_events, seed=5).torch()
    events = events.select(is_visible(events))
    expected = run.trained(device="cpu").score(events).numpy()
    score = answers(exported.path, rasterise(events).frame.numpy())[0]
    found = score[events.event_index().numpy(), 0, events.y.numpy(), events.x.numpy()]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found.std() > 0  # or anything would do


def padded(events: Events, n_hits: int, network: TrainedHits) -> list[np.ndarray]:
    """Events as the inputs of a file, with `n_hits` places in each."""
    shown = network.reading.inputs(events.torch())
    count = np.diff(events.offset)
    is_hit = np.arange(n_hits) < count[:, None]
    given = [is_hit]
    for flat in (shown.coordinate, shown.feature):
        full = np.full((*is_hit.shape, flat.shape[1]), 7.0, np.float32)  # padding is not read
        full[is_hit] = flat.numpy()
        given.append(full)
    is_hit, coordinate, feature = given
    return [coordinate, is_hit, feature] if feature.shape[2] else [coordinate, is_hit]


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("n_events", [1, 7])
def test_padded_events_score_as_the_run_scores_them(case_of, name, n_events):
    run, exported = case_of(name)
    network = run.trained(device="cpu")
    is_grid = name == "arcs.onnx"
    events = clean_events(n_events, seed=5) if is_grid else telescope_events(n_events, seed=5)
    events = events.select(np.arange(events.n_hits) != 2)  # of different sizes
    given = padded(events, 50, network)
    found = answers(exported.path, *given)
    is_hit = given[1]
    np.testing.assert_allclose(found[0][is_hit], network.score(events), atol=2e-5)
    assert found[0][is_hit].std() > 0
    assert not found[0][~is_hit].any()
    if name == "classes.pt2":
        np.testing.assert_allclose(found[1][is_hit], network.probability(events), atol=2e-5)
        assert [one["name"] for one in exported.facts["outputs"]] == [
            "score", "probability", "value",
        ]  # fmt: skip
        columns = ["charge", "direction x", "direction y", "direction z"]
        assert exported.facts["inputs"][2]["columns"] == columns


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_without_hits_scores_nothing_and_harms_no_other(case_of, name):
    run, exported = case_of(name)
    network = run.trained(device="cpu")
    events = clean_events(2, 5) if name == "arcs.onnx" else telescope_events(2, seed=5)
    given = padded(events, 45, network)
    full = answers(exported.path, *given)
    given[1][0] = False
    found = answers(exported.path, *given)
    assert not found[0][0].any()
    for one, whole in zip(found, full, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one[1], whole[1], atol=1e-6)


def test_the_card_of_a_network_of_hits_says_how_many_it_takes(case_of):
    _, exported = case_of("telescope.onnx")
    card = exported.card.read_text()
    assert "It takes events of at most 256 hits" in card
    assert "trained on 40 sensors in 3-D" in card
    assert exported.facts["input"]["shape"] == ["batch", "hits", 4]
    assert exported.facts["input"]["most_hits"] == 256


def test_events_that_need_windows_are_refused(tmp_path):
    path = write_events(tmp_path / "telescope.h5", telescope_events(12))
    train(config(path, options={"width": 8, "depth": 1, "heads": 1, "window": 30}),
          tmp_path / "run", is_quiet=True)  # fmt: skip
    with pytest.raises(Refused, match=r"at most 30 hits .*got validation events of 39, .*denoise"):
        export_run(tmp_path / "run", tmp_path / "x.pt2")
    assert not (tmp_path / "x.pt2").exists()


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("n_images", [1, 3])
def test_pixels_have_the_run_s_probabilities(case_of, name, n_images):
    run, exported = case_of(name)
    segmenter = run.trained(device="cpu")
    images, _ = lines(n_images, segmenter.reading.patch, seed=5)
    expected = torch.stack([segmenter.probability(image[None]) for image in images]).numpy()
    (found,) = answers(exported.path, images[:, None].astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found.std() > 0


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("n_images", [1, 3])
def test_whole_images_have_the_run_s_probabilities(case_of, name, n_images):
    run, exported = case_of(name)
    classifier = run.trained(device="cpu")
    shape = (n_images, 3, *classifier.reading.size)
    images = np.random.default_rng(5).integers(0, 256, shape, np.uint8)
    expected = classifier.probability(images).numpy()
    (found,) = answers(exported.path, images.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found.std() > 0


@pytest.mark.parametrize("sides", [(48, 64, 32), (33, 41, 19), (64, 47, 20)])
@pytest.mark.parametrize("name", ["binary.onnx", "volumes.pt2"])
def test_images_have_any_size_where_the_network_allows_it(case_of, name, sides):
    run, exported = case_of(name)
    assert exported.facts["fits_any_size"]
    segmenter = run.trained(device="cpu")
    images, _ = lines(2, sides[: len(segmenter.reading.patch)], seed=6)
    (found,) = answers(exported.path, images[:, None].astype(np.float32))
    shown = torch.stack([torch.from_numpy(segmenter.reading.shown(x[None])) for x in images])
    with torch.no_grad():  # all at once, where the run looks through windows
        logits = segmenter.network(shown)
    expected = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
    np.testing.assert_allclose(found[:, -expected.shape[1] :], expected.numpy(), atol=2e-5)


def test_a_network_of_a_fixed_size_says_so(case_of):
    _, exported = case_of("fixed.onnx")
    assert exported.facts["fits_any_size"] is False
    assert exported.facts["input"]["shape"] == ["batch", 1, 32, 32]
    assert "fixed size: images of 32 x 32 pixels" in exported.card.read_text()
    with pytest.raises(Exception, match="dimensions"):
        answers(exported.path, np.zeros((1, 1, 40, 40), np.float32))


@pytest.mark.parametrize(
    "name",
    [
        "scores.onnx",
        "both.pt2",
        "arcs.onnx",
        "classes.pt2",
        "binary.onnx",
        *LABELS,
        pytest.param("volumes.pt2", marks=pytest.mark.slow),
    ],
)
def test_the_lines_of_the_card_run_without_dense_imb(case_of, name):
    _, exported = case_of(name)
    card = exported.card.read_text()
    code = card.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 6
    variable = code.splitlines()[-1].split(" = ")[0]
    wanted = {"is_kept": "bool", "is_class_1": "bool", "label": "int64"}[variable]
    code += f"\nimport sys\nassert 'dense_imb' not in sys.modules\nprint({variable}.dtype)"
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=exported.path.parent,
        env=bare,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1].removeprefix("torch.") == wanted


def test_the_file_holds_its_own_description(case_of):
    import onnx

    of_onnx, of_pt2 = case_of("scores.onnx").exported, case_of("both.pt2").exported
    stored = {p.key: p.value for p in onnx.load(of_onnx.path).metadata_props}["dense_imb"]
    extra = {"dense_imb": ""}
    torch.export.load(of_pt2.path, extra_files=extra)
    for text, exported in ((stored, of_onnx), (extra["dense_imb"], of_pt2)):
        known = {name: value for name, value in exported.facts.items() if name != "check"}
        assert json.loads(text) == known
        beside = exported.path.with_name(exported.path.name + ".json")
        assert json.loads(beside.read_text(), parse_constant=pytest.fail) == exported.facts
