"""`denoise` with the threshold of the best F1 that the scores promise, without labels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dense_imb.cli import main
from dense_imb.data.events.virtual import VALIDATION_EPOCH
from dense_imb.hits import HitDensity, HitsFile, promised_threshold, read_masking
from dense_imb.metrics import ScoreHistogram, best_f1_threshold
from dense_imb.runs import Run, calibrate, denoise, open_run, stream, train
from dense_imb.runs.natural import NATURAL
from tests.runs.tiny import clean_events, tiny, write_events

pytestmark = pytest.mark.filterwarnings("ignore")  # ten steps collapse, and say so


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hits")


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    config = tiny(
        write_events(place / "clean.h5", clean_events(60)),
        steps=60,
        loss="CrossEntropyLoss(balance={})",
        optimizer={"learning_rate": 0.02},
    )
    train(config, place / "run", device="cpu", is_quiet=True)
    return calibrate(place / "run", overwrite=True, device="cpu")


@pytest.fixture(scope="module")
def noisy(run: Run, place: Path) -> Any:
    """Noisy events like those of the validation, in memory."""
    validation: Any = run.recipe.open_validation()  # type: ignore[attr-defined]
    return validation.degraded(np.arange(len(validation)), VALIDATION_EPOCH)


def test_it_is_the_best_f1_of_the_scores(run: Run, noisy: Any) -> None:
    scorer = run.trained(device="cpu")
    score = scorer.score(noisy)
    threshold = promised_threshold(scorer, noisy)
    exact = best_f1_threshold(score)
    assert threshold == pytest.approx(exact, abs=0.01)
    assert threshold == promised_threshold(scorer, noisy, batch_size=4)
    masked = denoise(run, noisy, threshold="auto", device="cpu")
    kept = torch.as_tensor(np.asarray(masked.hit["keep"]))
    assert torch.equal(kept, score >= threshold)
    assert 0 < int(kept.sum()) < len(kept)
    # near the best that labels could choose
    label = torch.as_tensor(np.asarray(noisy.label)) > 0
    histogram = ScoreHistogram()
    histogram.update(score, label)
    f1 = 2 * float((kept & label).sum()) / float(kept.sum() + label.sum())
    assert f1 > 0.95 * histogram.best_f1()[0]


def test_files_and_the_command_do_the_same(
    run: Run, noisy: Any, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = [write_events(tmp_path / f"{name}.h5", part) for name, part in
           (("a", noisy[:7]), ("b", noisy[7:]))]  # fmt: skip
    both = promised_threshold(run.trained(device="cpu"), noisy)
    words = ["--threshold", "auto", "--quiet", "--device", "cpu"]
    assert main(["denoise", str(run.folder), *raw, "--out", str(tmp_path / "out"), *words]) == 0
    kept = []
    for name in ("a", "b"):  # one threshold for all files
        with HitsFile(tmp_path / "out" / f"{name}.h5") as hits:
            assert read_masking(hits).operating_point.threshold == both
            kept.append(np.asarray(hits[:].hit["keep"]))
    masked = denoise(run, noisy, threshold="auto", device="cpu")
    np.testing.assert_array_equal(np.concatenate(kept), np.asarray(masked.hit["keep"]))
    denoise(run, str(tmp_path / "[ab].h5"), tmp_path / "one.h5", threshold="auto", device="cpu")
    with HitsFile(tmp_path / "one.h5") as hits:
        assert read_masking(hits).operating_point.threshold == both
    aims = ["--retention", "0.9"]
    assert main(["denoise", str(run.folder), raw[0], str(tmp_path / "c"), *aims, *words]) == 2
    assert "Expected --retention or --threshold, got both" in capsys.readouterr().err


def test_it_needs_natural_probabilities(
    run: Run, noisy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "old"
    shutil.copytree(run.folder, copy)
    shutil.rmtree(copy / NATURAL)
    with pytest.raises(ValueError, match=r"fit them with dense-imb evaluate .*old --calibrate"):
        denoise(open_run(copy), noisy, threshold="auto", device="cpu")
    with pytest.raises(ValueError, match="got auto: a scorer alone"):
        denoise(HitDensity(), noisy, threshold="auto")
    with pytest.raises(ValueError, match="A stream takes no `threshold=auto`"):
        stream(run, noisy, threshold="auto", device="cpu")  # type: ignore[arg-type]
    raw, out = write_events(tmp_path / "raw.h5", noisy), str(tmp_path / "out.h5")
    for model, said in (
        ([str(copy)], f"dense-imb evaluate {copy} --calibrate, or take --retention 0.97."),
        (["hit-density"], "choose a threshold with --choose-on FILE."),
        (["--pretrained", "arc"], "Networks of the package take no --threshold auto"),
    ):
        assert main(["denoise", *model, raw, out, "--threshold", "auto", "--quiet"]) == 2
        assert said in capsys.readouterr().err
    empty = noisy.take(np.array([], int))
    with pytest.raises(ValueError, match="Expected hits to choose the threshold from, got none"):
        promised_threshold(run.trained(device="cpu"), empty)
