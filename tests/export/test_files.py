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

from dense_imb.hits import rasterise
from dense_imb.tasks.hits.scoring import is_visible
from tests.export.conftest import CASES
from tests.runs.pictures import lines
from tests.runs.tiny import clean_events

HITS = [name for name, (kind, _) in CASES.items() if kind == "denoiser"]
IMAGES = [name for name, (kind, _) in CASES.items() if kind == "segmenter"]
LABELS = [name for name, (kind, _) in CASES.items() if kind == "classifier"]


def answers(path: Path, given: np.ndarray) -> list[np.ndarray]:
    """Of the file alone."""
    if path.suffix == ".pt2":
        found = torch.export.load(path).module()(torch.from_numpy(given))
        found = [found] if isinstance(found, torch.Tensor) else found
        return [one.detach().numpy() for one in found]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})


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
        logits = segmenter.reading.as_logits(segmenter.network(shown))
    expected = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
    np.testing.assert_allclose(found[:, -expected.shape[1] :], expected.numpy(), atol=2e-5)


def test_a_network_of_a_fixed_size_says_so(case_of):
    _, exported = case_of("fixed.onnx")
    assert exported.facts["fits_any_size"] is False
    assert exported.facts["inputs"][0]["shape"] == ["batch", 1, 32, 32]
    assert "fixed size: images of 32 x 32 pixels" in exported.card.read_text()
    with pytest.raises(Exception, match="dimensions"):
        answers(exported.path, np.zeros((1, 1, 40, 40), np.float32))


@pytest.mark.parametrize(
    "name",
    [
        "scores.onnx",
        "both.pt2",
        "hits.onnx",
        "sensors.onnx",
        "particles.pt2",
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
