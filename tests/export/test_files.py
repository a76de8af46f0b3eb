"""What an exported file answers is what the run answers, by itself and without dense_imb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dense_imb.data.images.labelled import open_labelled
from dense_imb.export import export_run, images, pixels
from dense_imb.export.write import onnx_session
from dense_imb.hits import rasterise
from dense_imb.metrics import SegmentationScores
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.tasks.hits.scoring import is_visible
from tests.export.conftest import CASES
from tests.runs.pictures import lines
from tests.runs.tiny import clean_events

HITS = [name for name, (kind, _) in CASES.items() if kind == "denoiser"]
IMAGES = [name for name, (kind, _) in CASES.items() if kind == "segmenter"]
LABELS = [name for name, (kind, _) in CASES.items() if kind == "classifier"]


@cache
def loaded(path: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    """The network of a file, without dense_imb."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()

        def answer(given: np.ndarray) -> list[np.ndarray]:
            found = module(torch.from_numpy(given))
            found = [found] if isinstance(found, torch.Tensor) else found
            return [one.detach().numpy() for one in found]

        return answer
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, {session.get_inputs()[0].name: given})


def answers(path: Path, given: np.ndarray) -> list[np.ndarray]:
    """Of the file alone."""
    return loaded(path)(given)


def test_a_file_is_read_whatever_its_name(case_of, tmp_path):
    _, exported = case_of("scores.onnx")
    path = tmp_path / "caf\udce9.onnx"  # no UTF-8
    shutil.copyfile(exported.path, path)
    assert onnx_session(path).get_inputs()


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


def test_parts_of_large_images_check_a_file(case_of, monkeypatch):
    run, _ = case_of("binary.onnx")
    whole = images.exportable(run)
    assert whole.parts == ""
    monkeypatch.setattr(pixels, "_MOST", {2: 12})
    cut = images.exportable(run)
    assert cut.parts == "12 x 12"
    for (image, label), (_, all_) in zip(cut.wholes, whole.wholes, strict=True):
        assert image.shape[1:] == label.shape == (12, 12)
        assert label.any()
        assert all_.shape != label.shape
    assert cut.with_numbers({"average_precision": 1.0})["parts"] == "12 x 12"


def test_a_part_holds_foreground(case_of, monkeypatch, tmp_path):
    run, _ = case_of("binary.onnx")
    monkeypatch.setattr(pixels, "_MOST", {2: 6})
    ignored = np.full((1, 40, 40), 255, np.uint8)
    ignored[0, 3, 4:6] = ignored[0, 38, 35] = 1  # at two ends
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"], file["mask"] = np.zeros((1, 1, 40, 40)), ignored
    opened = open_labelled(tmp_path / "a.h5", ignore_index=255, n_classes=2, show_progress=False)
    monkeypatch.setattr(images, "open_images", lambda config: ([], opened))
    ((_, label),) = images.exportable(run).wholes
    assert (label == 1).any()
    monkeypatch.setattr(images, "open_images", lambda config: ([], opened.subset([])))
    nothing = images.exportable(run)
    assert nothing.wholes == ()
    assert "random" in nothing.source


@pytest.mark.slow
def test_the_card_says_that_parts_were_compared(case_of, monkeypatch, tmp_path):
    run, _ = case_of("binary.onnx")
    monkeypatch.setattr(pixels, "_MOST", {2: 12})
    card = export_run(run, tmp_path / "file.onnx").card.read_text()
    assert "on 2 validation images, parts of at most 12 x 12 pixels of them: " in card


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


@pytest.mark.parametrize(
    "sides", [(48, 64, 32), (33, 41, 19), (64, 47, 20), (20, 47, 9), (20, 27, 9), (32, 90, 16)]
)
@pytest.mark.parametrize("name", ["binary.onnx", "volumes.pt2"])
def test_images_of_any_size_get_the_answer_of_segment(case_of, name, sides):
    """Group norm sees the window: without the run's windows this is another network."""
    run, exported = case_of(name)
    if name == "volumes.pt2" and torch.__version__.startswith("2.10."):
        pytest.skip("torch 2.10 can't trace group norm in a window of any volume")
    assert exported.facts["fits_any_size"]
    segmenter = run.trained(device="cpu")
    images, _ = lines(2, sides[: len(segmenter.reading.patch)], seed=6)
    (found,) = answers(exported.path, images[:, None].astype(np.float32))
    expected = torch.stack([segmenter.probability(image[None]) for image in images]).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("sides", [(32, 32), (40, 40), (32, 70), (33, 41)])
def test_a_network_of_a_fixed_size_takes_larger_images_through_its_windows(case_of, sides):
    run, exported = case_of("fixed.onnx")
    segmenter = run.trained(device="cpu")
    images, _ = lines(2, sides, seed=6)
    (found,) = answers(exported.path, images[:, None].astype(np.float32))
    expected = torch.stack([segmenter.probability(image[None]) for image in images]).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_network_of_a_fixed_size_says_what_becomes_of_smaller_images(case_of):
    _, exported = case_of("fixed.onnx")
    assert "edges of images smaller than that are repeated" in exported.card.read_text()
    small = lines(1, (20, 25), seed=6)[0].astype(np.float32)
    edges = [(0, 0), (6, 6), (3, 4)]  # as the windows are: the larger half behind
    (found,) = answers(exported.path, small[None])
    (expected,) = answers(exported.path, np.pad(small, edges, mode="edge")[None])
    np.testing.assert_allclose(found, expected[..., 6:-6, 3:-4], atol=2e-5)


def test_a_network_whose_windows_cannot_be_traced_has_a_fixed_size(case_of, tmp_path, monkeypatch):
    def broken(self, windows):
        raise RuntimeError("no loops here")

    monkeypatch.setattr("dense_imb.export.windows.Windows._outputs", broken)
    exported = export_run(case_of("fixed.onnx").run, tmp_path / "x.pt2")
    assert exported.facts["fits_any_size"] is False
    assert exported.facts["inputs"][0]["shape"] == ["batch", 1, 32, 32]
    assert "fixed size: images of 32 x 32 pixels" in exported.card.read_text()
    with pytest.raises(Exception, match="size"):
        answers(exported.path, np.zeros((1, 1, 40, 40), np.float32))


def test_the_lines_of_the_card_segment_a_larger_image(case_of, tmp_path):
    """The very lines, given whole validation images: the probabilities and scores of `segment`."""
    run, exported = case_of("binary.onnx")
    segmenter = run.trained(device="cpu")
    images, masks = lines(3, (90, 75), seed=8)
    code = exported.card.read_text().split("```python\n")[1].split("```")[0].splitlines()
    (number,) = [k for k, line in enumerate(code) if line.startswith("image = ")]
    np.save(tmp_path / "images.npy", images[:, None].astype(np.float32))
    code[number] = f"image = np.load({str(tmp_path / 'images.npy')!r})"
    code.append(f"np.save({str(tmp_path / 'found.npy')!r}, probability)")
    subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=exported.path.parent, check=True)
    found = torch.from_numpy(np.load(tmp_path / "found.npy"))
    expected = torch.stack([segmenter.probability(image[None]) for image in images])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    scores = [SegmentationScores(2) for _ in range(2)]
    for one, probability in zip(scores, (found, expected), strict=True):
        one.update(probability.log(), torch.from_numpy(masks).long())
    precision = [one.average_precision()[1] for one in scores]
    assert precision[0] == pytest.approx(precision[1], abs=1e-4)


def test_the_card_states_the_scores_of_the_file_itself(case_of):
    run, exported = case_of("binary.onnx")
    check = exported.facts["check"]
    assert check["n_images"] == 2
    assert check["average_precision"] == pytest.approx(
        check["average_precision_of_segment"], abs=1e-4
    )
    # both validation images are among the four that are looked at
    best = mean_of_known(run.scores().average_precision()[1:])
    assert check["average_precision_of_segment"] == pytest.approx(best, abs=1e-3)
    assert (
        f"of this file on 2 whole validation images: {check['average_precision']:.4g}"
        in exported.card.read_text()
    )


def test_a_file_does_not_say_where_it_was_made(case_of):
    stored = case_of("binary.onnx").exported.path.read_bytes()
    assert b"site-packages" not in stored
    assert b"stack_trace" not in stored


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
