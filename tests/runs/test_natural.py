"""Natural probabilities of runs: fitted, stored, read again, and used by every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dense_imb.data.events.virtual import VALIDATION_EPOCH
from dense_imb.data.images.unlabelled import open_unlabelled
from dense_imb.losses import Focal
from dense_imb.losses.core.natural import Natural
from dense_imb.metrics import ScoreHistogram
from dense_imb.metrics.natural import counted_bins, counted_pixels, fitted
from dense_imb.runs import denoise, open_run, train
from dense_imb.runs.apply import segment
from dense_imb.runs.natural import NATURAL, read_natural
from dense_imb.tasks.images.evaluate import chosen_thresholds, logit_of_class
from dense_imb.tasks.images.segment import decided
from dense_imb.tasks.natural import (
    CalibrationWarning,
    is_plain_sample,
)
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events

pytestmark = pytest.mark.filterwarnings("ignore")  # ten steps collapse, and say so
_BALANCED = "FocalLoss(gamma=2.0, balance={})"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_folders(tmp_path_factory.mktemp("pictures"), n=12)


@pytest.fixture(scope="module")
def run(folders: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = tiny_images(folders, loss=_BALANCED, steps=40, optimizer={"learning_rate": 0.02})
    return train(config, tmp_path_factory.mktemp("run") / "run", device="cpu", is_quiet=True)


def test_a_run_speaks_natural_probabilities(run: Any) -> None:
    record = run.natural
    assert record.fit == "bias"
    assert record.natural.penalty == Focal(2.0)
    assert "natural with a bias fitted" in run.summary()
    before, after = record.error
    assert after < before / 3
    network = run.trained(device="cpu")
    assert network.reading.natural == record.natural
    task = run.recipe.build_task()
    mean, share, n = 0.0, 0.0, 0
    for i in range(len(task.validation)):
        probability = network.probability(task.validation.image(i))[1]
        label = task.validation.label(i)
        mean += float(probability.double().sum())
        share += int((label == 1).sum())
        n += label.size
    assert mean / n == pytest.approx(share / n, rel=0.02)  # what the bias was fitted for


def test_stored_scores_are_those_of_the_natural_probabilities(run: Any) -> None:
    scores, network = run.scores(), run.trained(device="cpu")
    task = run.recipe.build_task()
    task.reading = network.reading
    task.validate(network.network, torch.device("cpu"), 0, 1)
    assert torch.equal(task.scores.histograms[1].counts, scores.histograms[1].counts)
    # what decided before decides the same: the map rises
    raw = type(scores).load(run.folder / "validation_scores.json")
    assert scores.best_f1()[1][0] == pytest.approx(raw.best_f1()[1][0], abs=0.02)
    assert scores.average_precision()[1] == pytest.approx(raw.average_precision()[1], abs=0.02)


def test_the_weights_and_the_history_are_those_without_it(
    run: Any, folders: tuple[str, str], tmp_path: Path
) -> None:
    """Natural probabilities come after the last step, whatever is fitted."""
    config = tiny_images(
        folders, loss=_BALANCED, steps=40, optimizer={"learning_rate": 0.02}, calibrate=True
    )
    other = train(config, tmp_path / "run", device="cpu", is_quiet=True)
    assert other.natural is not None
    assert other.natural.fit == "affine"
    assert len(other.natural.natural.slope) == 2
    for name in ("history.csv", "validation_scores.json"):
        assert (other.folder / name).read_text() == (run.folder / name).read_text()
    mine, theirs = other.weights(), run.weights()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_segment_decides_at_natural_thresholds(
    run: Any, folders: tuple[str, str], tmp_path: Path
) -> None:
    done = segment(run, folders[0], tmp_path / "a", show_progress=False, probability=True)
    cut = torch.tensor(chosen_thresholds(run.scores())[1], dtype=torch.float64).sigmoid()
    assert done.threshold == pytest.approx(float(cut))
    shown = np.load(tmp_path / "a" / "000_probability.npy")
    first = open_unlabelled(folders[0], n_channels=1, spatial_dims=2).image(0)
    np.testing.assert_array_equal(shown, run.trained(device="cpu").probability(first)[1].numpy())
    assert "natural" in json.loads((tmp_path / "a" / "segmented.json").read_text())
    auto = segment(run, folders[0], tmp_path / "b", show_progress=False, threshold="auto")
    assert auto.threshold is not None
    assert 0 < auto.threshold < 0.6


def test_auto_needs_natural_probabilities(folders: tuple[str, str], tmp_path: Path) -> None:
    config = tiny_images(folders, loss="monai.losses:DiceLoss(sigmoid=True)")
    run = train(config, tmp_path / "run", device="cpu", is_quiet=True)
    assert run.natural is not None
    assert run.natural.natural is None
    assert (
        "`DiceLoss` gives no probabilities: it is a loss of another library; scores rank, they "
        "are no probabilities" in run.summary()
    )
    with pytest.raises(ValueError, match="whose outputs are as trained"):
        segment(run, folders[0], tmp_path / "out", threshold="auto", show_progress=False)


def test_three_classes_and_scope_image(tmp_path: Path) -> None:
    folders = write_folders(tmp_path / "data", n=12, n_classes=3)
    loss = "CrossEntropyLoss(balance={'scope': 'image'})"
    run = train(
        tiny_images(folders, loss=loss, steps=40, optimizer={"learning_rate": 0.02}),
        tmp_path / "run", device="cpu", is_quiet=True,
    )  # fmt: skip
    assert run.natural is not None
    assert run.natural.fit == "bias"
    task, network = run.recipe.build_task(), run.trained(device="cpu")
    total, counts = torch.zeros(3), np.zeros(3)
    for i in range(len(task.validation)):
        total += network.probability(task.validation.image(i)).sum((1, 2))
        counts += np.bincount(task.validation.label(i).ravel(), minlength=3)
    np.testing.assert_allclose(total.numpy() / counts, 1, atol=0.05)
    # rare classes are called by their thresholds, as they seldom are the likeliest
    segment(run, folders[0], tmp_path / "masks", show_progress=False)
    cuts = chosen_thresholds(run.scores())
    image = open_unlabelled(folders[0], n_channels=1, spatial_dims=2)
    for i in (0, 1):
        logits = network.logits(image.image(i))
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{i:03d}.png"))
        np.testing.assert_array_equal(mask, decided(logits, thresholds=cuts))
        for k in (1, 2):
            assert (logit_of_class(logits, k)[0].numpy()[mask == k] >= cuts[k]).all()
    with pytest.raises(ValueError, match="two classes for `threshold=auto`, got 3, of which each"):
        segment(run, folders[0], tmp_path / "out", threshold="auto", show_progress=False)


def test_hits_are_scored_and_chosen_naturally(tmp_path: Path) -> None:
    events = write_events(tmp_path / "hits.h5", clean_events(40))
    loss = "CrossEntropyLoss(balance={'weight': [1.0, 3.0]})"
    run = train(tiny(events, loss=loss), tmp_path / "run", device="cpu", is_quiet=True)
    assert run.natural is not None
    assert run.natural.fit == "bias"
    assert (run.folder / NATURAL / "validation_scores.json").is_file()
    point = run.operating_point(retention=0.97)
    validation = run.recipe.open_validation()
    noisy = validation.degraded(np.arange(len(validation)), VALIDATION_EPOCH)
    masked = denoise(run, noisy, retention=0.97, device="cpu")
    kept = masked.hit["keep"]
    assert float(kept.float().mean() if isinstance(kept, torch.Tensor) else kept.mean()) > 0
    score = run.trained(device="cpu").score(noisy)
    share = float((torch.as_tensor(np.asarray(noisy.label)) > 0).float().mean())
    assert float(score.mean()) == pytest.approx(share, rel=0.02)
    assert 0 < point.threshold < 1
    profile = run.validation_events()
    assert profile is not None


def test_plain_runs_stay_as_they_are(folders: tuple[str, str], tmp_path: Path) -> None:
    config = tiny_images(folders, loss="CrossEntropyLoss", images={"foreground": 0.0})
    run = train(config, tmp_path / "run", device="cpu", is_quiet=True)
    assert run.natural is not None
    assert (run.natural.natural, run.natural.why) == (None, "")
    assert run.trained(device="cpu").reading.natural is None
    assert is_plain_sample(config, torch.nn.ReLU())
    assert not is_plain_sample(tiny_images(folders), torch.nn.ReLU())


def test_a_run_without_the_folder_is_as_before(run: Any, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "old"
    shutil.copytree(run.folder, copy)
    shutil.rmtree(copy / NATURAL)
    old = open_run(copy)
    assert old.natural is None
    assert old.trained(device="cpu").reading.natural is None
    assert old.scores().histograms[1].n_signal == run.scores().histograms[1].n_signal
    (copy / NATURAL).mkdir()
    (copy / NATURAL / "natural.json").write_text("{}")
    with pytest.raises(ValueError, match="Expected the probabilities of a run in .*natural.json"):
        open_run(copy).natural  # noqa: B018
    assert read_natural(tmp_path) is None


@pytest.mark.parametrize("affine", [False, True])
def test_a_fit_finds_slope_and_bias(affine: bool) -> None:
    """Two classes from a histogram, three from pixels."""
    rng = torch.Generator().manual_seed(0)
    slope, bias = (0.6 if affine else 1.0), -2.0
    z = 3 * torch.randn(400_000, generator=rng, dtype=torch.float64)
    is_signal = (
        torch.rand(len(z), generator=rng, dtype=torch.float64) < (slope * z + bias).sigmoid()
    )
    histogram = ScoreHistogram(scale="logit")
    histogram.update(z, is_signal)
    two = fitted(Natural((1.0, 1.0)), counted_bins(histogram), affine=affine)
    assert two.bias[1] == pytest.approx(bias, abs=0.03)
    assert (two.slope[0] if affine else 1.0) == pytest.approx(slope, abs=0.01)

    log_p = torch.log_softmax(torch.randn(400_000, 3, generator=rng, dtype=torch.float64), 1)
    true = (torch.tensor([1.0, slope, 1.5 if affine else 1.0]) * log_p
            + torch.tensor([0.0, -1.0, -2.0])).softmax(1)  # fmt: skip
    label = torch.multinomial(true, 1, generator=rng)[:, 0]
    parts = [(log_p[i::4], label[i::4]) for i in range(4)]
    three = fitted(Natural((1.0,) * 3), counted_pixels(parts, 3, 4), affine=affine)
    mean = three.probability(log_p).mean(0)
    torch.testing.assert_close(mean, true.mean(0), atol=0.004, rtol=0)
    assert three.bias == pytest.approx((0.0, -1.0, -2.0), abs=0.15)


def test_a_fit_needs_pixels_of_every_class() -> None:
    histogram = ScoreHistogram(scale="logit")
    histogram.update(torch.zeros(500), torch.arange(500) < 10)
    with pytest.raises(ValueError, match="fewer of class 1"):
        fitted(Natural((1.0, 1.0)), counted_bins(histogram), affine=False)


def test_too_few_validation_pixels_are_said_and_cost_nothing(tmp_path: Path) -> None:
    events = write_events(tmp_path / "hits.h5", clean_events(6))
    config = tiny(events, calibrate=True, hits={"validation_share": 0.2, "signal": 3})
    with pytest.warns(CalibrationWarning, match="not fitted: Expected at least 20 validation"):
        run = train(config, tmp_path / "run", device="cpu", is_quiet=True)
    assert run.natural is not None
    assert run.natural.fit == "none"
