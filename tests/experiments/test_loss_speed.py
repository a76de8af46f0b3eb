"""The speed bench runs and writes what it promises; how fast anything is, no test asks."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.scripts import run_script

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


def loss_speed(*arguments):
    pytest.importorskip("rich", reason="the bench needs the extra `bench`")
    return run_script(BENCHMARKS / "loss_speed.py", *arguments)


def tiny(out, *arguments):
    return loss_speed(
        *("--sizes", "2x1x8x8", "2x3x6x6", "--rounds", 2, "--warmup", 1, "--threads", 1),
        *("--no-compile", "--out", out, *arguments),
    )


def test_a_tiny_run_has_a_row_for_each_contestant_and_is_not_overwritten(tmp_path):
    out = tmp_path / "new" / "speed.json"
    run = tiny(out)
    assert run.returncode == 0, run.stderr
    result = json.loads(out.read_text())

    works = {work["section"]: work for work in result["works"]}
    assert {name: work["shape"] for name, work in works.items()} == {
        "regression": [2, 1, 8, 8],
        "classification": [2, 3, 6, 6],
        "regions": [2, 3, 6, 6],
        "values": [2, 1, 8, 8],
    }
    rows = {row["contestant"]: row for row in works["regression"]["rows"]}
    assert {"torch mse_loss", "plain copy", "ACBMSELoss", "torch.where", "16 ValueBins"} <= set(
        rows
    )
    assert rows["torch mse_loss"]["ratio"] == 1.0
    assert rows["plain copy"]["kept_bytes"] == rows["plain copy"]["prediction_bytes"] == 512
    for work in result["works"]:
        for row in work["rows"]:
            numbers = [row["ratio"], row["ratio_of_min"], *row["ratio_quartiles"], row["median_ms"]]
            assert all(math.isfinite(number) and number > 0 for number in numbers), row
            assert row["peak_bytes"] >= row["kept_bytes"] > 0, row
            assert row["contestant"] in run.stdout

    before = out.read_text()
    refused = tiny(out)
    assert refused.returncode == 2
    assert "--resume or --overwrite" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1

    resumed = tiny(out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert out.read_text() == before
    assert not list(out.parent.glob("*.partial"))


def test_values_are_cells_of_images_and_samples_of_pixels(tmp_path):
    out = tmp_path / "speed.json"
    run = loss_speed(
        *("--sections", "values", "--sizes", "2x1x8x8x8", "2x1x30", "1x1x3000", "--out", out),
        *("--rounds", 2, "--warmup", 1, "--threads", 1, "--no-compile"),
    )
    assert run.returncode == 0, run.stderr
    names = [[row["contestant"] for row in w["rows"]] for w in json.loads(out.read_text())["works"]]
    assert names[0][:2] == ["torch l1_loss", "Cover, bit field"]
    assert names[1] == names[2] == ["torch logsumexp", "BalancedMSELoss", "published formula"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "ACBMSE", "no-such-loss"], "no-such-loss"),
        (["--sizes", "64"], "64x1x128x88"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(tmp_path, arguments, said):
    out = tmp_path / "speed.json"
    refused = loss_speed("--out", out, *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr.splitlines()[-1]
    assert not out.exists()


@pytest.fixture
def interleaved(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import interleaved

    yield interleaved
    sys.modules.pop("interleaved")


def test_a_contestant_that_computes_something_else_is_not_timed(interleaved):
    def half(prediction, target):
        return F.mse_loss(prediction, target) / 2

    prediction, target = torch.rand(4, 8, requires_grad=True), torch.rand(4, 8)
    contestants = [
        interleaved.Contestant("floor", "floor", lambda: F.mse_loss, F.mse_loss),
        interleaved.Contestant("scaled", "rival", lambda: half, F.mse_loss, scale=2),
        interleaved.Contestant("wrong", "rival", lambda: half, F.mse_loss),
    ]
    runners, skipped = interleaved.prepare(contestants, prediction, target)
    assert not skipped
    interleaved.check_same_value(runners[:2], lambda name: None)
    with pytest.raises(interleaved.Disagreement, match="the value of 'wrong'"):
        interleaved.check_same_value(runners, lambda name: None)


def test_who_is_missing_is_left_out_with_the_reason(interleaved):
    def make():
        raise interleaved.Missing("not here")

    found = interleaved.prepare([interleaved.Contestant("a", "rival", make)], torch.zeros(1), None)
    assert found == ([], {"a": "not here"})


def test_memory_counts_what_waits_for_the_backward(interleaved):
    def product(prediction, target):  # exp keeps its result, the product both its factors
        return (prediction.exp() * target).sum()

    prediction, target = torch.rand(64, 64, requires_grad=True), torch.rand(64, 64)
    contestant = interleaved.Contestant("product", "rival", lambda: product)
    (runner,), _ = interleaved.prepare([contestant], prediction, target)
    kept, peak = interleaved.memory(runner)
    scalar = 4
    assert kept == prediction.nbytes + scalar
    assert peak >= 2 * prediction.nbytes  # the gradient, and what was kept until it was there
    assert prediction.grad is None
