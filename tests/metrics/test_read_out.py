"""Read-out: fits against SciPy, the exact inverse, its promises, files and exports."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from dense_imb.losses import ACBMSELoss
from dense_imb.metrics import ReadOut, ReadOutTally, ValueScores
from dense_imb.metrics.read_out import OddsMap, PiecewiseMap
from dense_imb.metrics.read_out import tally as tally_module
from dense_imb.metrics.read_out.fit import isotonic

from .samples import generator


def tallied(prediction, target, **options):
    tally = ReadOutTally(prediction.shape[1], **options)
    tally.update(prediction, target)
    return tally


def squared_error(prediction, target):
    return float((prediction.double() - target.double()).square().sum())


def logistic(share=0.01, n=200_000, slope=4.0, value=1.0, seed=0):
    """Return P(hit | x) of pixels, their hits, and the best output under ACB-MSE."""
    rng = generator(seed)
    x = torch.randn(1, 1, n, generator=rng, dtype=torch.float64)
    low, high = -300.0, 20.0
    for _ in range(60):  # bias with this share of hits
        bias = (low + high) / 2
        low, high = (bias, high) if (slope * x + bias).sigmoid().mean() < share else (low, bias)
    probability = (slope * x + bias).sigmoid()
    target = value * (torch.rand(x.shape, generator=rng) < probability)
    hit, empty = probability / share, (1 - probability) / (1 - share)
    return value * probability, target.float(), (value * hit / (hit + empty)).float()


def test_pooling_is_that_of_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    rng = generator(1)
    for n in (1, 2, 50, 400):
        mean = torch.randn(n, generator=rng).double() + torch.linspace(0, 2, n)
        weight = torch.rand(n, generator=rng).double() + 0.1
        expected = optimize.isotonic_regression(mean.numpy(), weights=weight.numpy()).x
        torch.testing.assert_close(isotonic(mean, weight), torch.tensor(expected))


@pytest.mark.parametrize("share", [0.003, 0.03])
@pytest.mark.parametrize("value", [1.0, 40.0])
def test_the_fit_is_the_exact_inverse_of_acb_mse(share, value):
    truth, target, prediction = logistic(share, value=value)
    exact = ReadOut.from_acb_mse(share, value=value)
    torch.testing.assert_close(
        exact.apply(prediction).double(), truth, rtol=1e-2, atol=1e-4 * value
    )
    fitted = ReadOut.fit(tallied(prediction, target, value=value))
    difference = (fitted.apply(prediction) - exact.apply(prediction)).abs() / value
    assert float(difference.mean()) < 0.002
    is_clear = truth > 0.2 * value
    assert float(difference[is_clear].mean()) < 0.05


@pytest.mark.parametrize(
    "weights",
    [{}, {"hit_weight": 3.0, "empty_weight": 0.5}, {"frame_weight": 2.0, "hit_weight": 0.5}],
)
def test_the_inverse_knows_every_weight_of_the_loss(weights):
    """A constant prediction trained on the loss itself is read out as the mean target."""
    target = torch.zeros(1, 1, 1000)
    target[..., :30] = 2.0
    constant = torch.tensor(0.7, requires_grad=True)
    loss = ACBMSELoss(**weights)
    for _ in range(3):  # Newton's steps on a parabola
        (slope,) = torch.autograd.grad(
            loss(constant.expand(target.shape), target), constant, create_graph=True
        )
        (curvature,) = torch.autograd.grad(slope, constant)
        constant = (constant - slope / curvature).detach().requires_grad_()
    constant = constant.detach()
    read_out = ReadOut.from_acb_mse(0.03, value=2.0, **weights)
    assert float(constant) > 0.1
    assert float(read_out.apply(constant)) == pytest.approx(0.06, rel=1e-3)


@pytest.mark.parametrize("share", [0.001, 0.01])
def test_read_out_ends_the_overshoot(share):
    _, target, prediction = logistic(share, slope=12.0)
    read_out = ReadOut.fit(tallied(prediction, target))
    before, after = read_out.effect[0].overshoot
    assert before > 2
    assert 0.8 < after < 1.25
    _, fresh_target, fresh_prediction = logistic(share, slope=12.0, seed=1)
    scores = {}
    for name, image in (
        ("as trained", fresh_prediction),
        ("read out", read_out.apply(fresh_prediction)),
    ):
        scores[name] = ValueScores(level=0.5)
        scores[name].update(image, fresh_target)
    values = {name: one.scores() for name, one in scores.items()}
    assert values["as trained"]["lit_ratio"] > 2
    assert 0.8 < values["read out"]["lit_ratio"] < 1.25
    for error in ("mae", "rmse"):
        assert values["read out"][error] < values["as trained"][error]
    assert abs(values["read out"]["bias"]) < 0.1 * values["as trained"]["bias"]


def test_an_unsure_network_needs_the_matched_level():
    _, target, prediction = logistic(share=0.01, slope=4.0)
    read_out = ReadOut.fit(tallied(prediction, target))
    before, after = read_out.effect[0].overshoot
    assert before > 5
    assert after < 0.8  # few pixels are hits more often than not
    _, target, prediction = logistic(share=0.01, slope=4.0, seed=1)
    scores = ValueScores(level=0.5, lit_level=read_out.effect[0].matched_level)
    scores.update(read_out.apply(prediction), target)
    assert 0.8 < scores.scores()["lit_ratio"] < 1.25


def test_the_effect_is_that_of_the_applied_map():
    _, target, prediction = logistic(share=0.02)
    tally = tallied(prediction, target)
    for read_out in (ReadOut.fit(tally), ReadOut.from_acb_mse(0.02).measured(tally)):
        effect = read_out.effect[0]
        after = read_out.apply(prediction)
        assert effect.n_pixels == prediction.numel()
        assert effect.n_target == int((target > 0.5).sum())
        assert effect.lit_before == int((prediction > 0.5).sum())
        assert effect.lit_after == pytest.approx(int((after > 0.5).sum()), rel=0.05)
        n = prediction.numel()
        assert effect.rmse_before == pytest.approx(math.sqrt(squared_error(prediction, target) / n))
        expected = math.sqrt(squared_error(after, target) / n)
        assert effect.rmse_after == pytest.approx(expected, rel=1e-3)
        matched = int((after > effect.matched_level).sum())
        assert matched == pytest.approx(effect.n_target, rel=0.05)


def hard_cases():
    rng = generator(5)
    smooth = torch.rand(2, 1, 700, generator=rng)
    heavy = torch.randn(2, 1, 5000, generator=rng).mul(3).exp()
    yield "perfect", smooth, smooth
    yield "nearly perfect", smooth + 1e-3 * torch.randn(smooth.shape, generator=rng), smooth
    yield "noise", torch.randn(2, 1, 700, generator=rng), smooth
    yield "falling", -smooth, smooth
    yield "blank", torch.zeros_like(smooth), smooth
    yield "heavy tail", heavy, heavy * torch.rand(heavy.shape, generator=rng)
    yield "heavy target", smooth, heavy[..., :700]
    yield "negative", -heavy, -2 * heavy
    yield "large", 1e6 + smooth, 1e6 + 2 * smooth
    yield "few", smooth[..., :3], smooth[..., 3:6]
    yield "too bright", (1 - 1e-3 * heavy[..., :700]).clamp(0, 1), (smooth > 0.99).float()


@pytest.mark.parametrize("case", list(hard_cases()), ids=lambda case: case[0])
@pytest.mark.parametrize("min_pixels", [1, 20])
def test_a_fit_never_raises_its_own_squared_error(case, min_pixels):
    _, prediction, target = case
    tally = tallied(prediction, target)
    read_out = ReadOut.fit(tally, min_pixels=min_pixels)
    before, after = (squared_error(p, target) for p in (prediction, read_out.apply(prediction)))
    rounding = 1e-6 * float(target.abs().max()) * prediction.numel() ** 0.5
    assert math.sqrt(after) <= math.sqrt(before) * (1 + 1e-6) + rounding
    n = prediction.numel()
    assert read_out.effect[0].rmse_after == pytest.approx(
        math.sqrt(after / n), rel=1e-3, abs=1e-6 * float(target.abs().max())
    )


@pytest.mark.parametrize("case", list(hard_cases()), ids=lambda case: case[0])
def test_a_fit_is_monotone_and_constant_outside(case):
    _, prediction, target = case
    read_out = ReadOut.fit(tallied(prediction, target))
    low, high = float(prediction.min()), float(prediction.max())
    span = high - low + 1.0
    line = torch.linspace(low - span, high + span, 4001, dtype=torch.float64)
    values = read_out.apply(line)
    assert bool((values.diff() >= -1e-9 * values.abs().max()).all())
    ends = read_out.apply(torch.tensor([-1e20, 1e20], dtype=torch.float64))
    knots = torch.tensor(read_out.maps[0].knots, dtype=torch.float64)
    assert torch.equal(ends, read_out.apply(knots[[0, -1]]))


def test_parts_in_any_order_give_one_fit():
    _, target, prediction = logistic(n=30_000)
    whole = ReadOut.fit(tallied(prediction, target))
    parts = [tallied(prediction[..., i::3], target[..., i::3]) for i in range(3)]
    merged = ReadOut.fit(parts[2].merge(parts[0]).merge(parts[1]))
    assert whole == ReadOut.fit(tallied(prediction, target))
    torch.testing.assert_close(
        merged.apply(prediction), whole.apply(prediction), rtol=1e-6, atol=1e-7
    )


def test_no_mean_is_taken_of_too_few_pixels():
    """One far pixel at the end, brighter than all others, does not move the end of the map."""
    prediction = torch.cat([torch.linspace(0.5, 0.6, 100), torch.tensor([0.9])]).view(1, 1, -1)
    target = torch.where(prediction > 0.8, 1.0, 0.0)
    end = torch.tensor([5.0])
    few = ReadOut.fit(tallied(prediction, target), min_pixels=20)
    assert float(few.apply(end)) < 0.2
    each = ReadOut.fit(tallied(prediction, target), min_pixels=1)
    assert float(each.apply(end)) > 0.9


def test_channels_have_maps_of_their_own_or_one():
    rng = generator(3)
    target = torch.rand(2, 3, 9, 9, generator=rng)
    prediction = torch.stack([2 * target[:, 0], target[:, 1] ** 2, target[:, 2] + 1], 1)
    read_out = ReadOut.fit(tallied(prediction, target), min_pixels=5)
    assert len(read_out.maps) == 3
    torch.testing.assert_close(read_out.apply(prediction), target, rtol=0, atol=0.15)
    single = ReadOut.fit(tallied(prediction[:, :1], target[:, :1]), min_pixels=5)
    assert single.maps[0] == read_out.maps[0]
    shared = ReadOut.fit(tallied(prediction, target, shared=True))
    assert len(shared.maps) == 1
    assert shared.apply(prediction[:, 1]).shape == (2, 9, 9)
    assert read_out.describe().count("\n") == 2
    assert shared.describe().startswith("read-out of all channels: ")
    with pytest.raises(
        ValueError, match=r"`prediction` of 3 channels, \(B, 3, \*spatial\), got \(2, 1"
    ):
        read_out.apply(prediction[:, :1])


def test_large_images_are_summed_in_blocks(monkeypatch):
    _, target, prediction = logistic(n=3_000)
    mask = torch.rand(target.shape, generator=generator(5)) < 0.9
    tallies = []
    for at_once in (1 << 22, 701):
        monkeypatch.setattr(tally_module, "_AT_ONCE", at_once)
        tallies.append(ReadOutTally(1))
        tallies[-1].update(prediction, target, mask=mask)
    whole, blocks = tallies
    assert blocks.n_pixels == whole.n_pixels == int(mask.sum())
    assert blocks.lit(0) == whole.lit(0)
    torch.testing.assert_close(blocks.moments(0), whole.moments(0))


def test_masked_pixels_and_channels_without_pixels():
    target = torch.rand(1, 2, 400, generator=generator(4))
    prediction = 2 * target
    mask = torch.ones_like(target, dtype=torch.bool)
    mask[:, 1] = False
    mask[:, 0, ::2] = False
    hole = target.where(mask, math.nan)
    tally = ReadOutTally(2)
    tally.update(prediction, hole, mask=mask)
    assert tally.lit(1) == (0, 0)
    read_out = ReadOut.fit(tally)
    assert (
        read_out.maps[0]
        == ReadOut.fit(tallied(prediction[:, :1, 1::2], target[:, :1, 1::2])).maps[0]
    )
    assert read_out.maps[1].is_identity
    assert read_out.describe().endswith("channel 1: identity; no pixels")
    assert (
        ReadOut.from_dict(json.loads(json.dumps(read_out.to_dict(), allow_nan=False))).maps
        == read_out.maps
    )


def test_the_identity_changes_nothing():
    identity = ReadOut.identity()
    image = torch.tensor([-1e30, 0.0, 2.0, math.nan])
    assert torch.equal(identity.apply(image)[:3], image[:3])
    assert identity.is_identity
    assert not ReadOut.from_acb_mse(0.5).is_identity
    measured = identity.measured(tallied(torch.rand(1, 1, 50), torch.rand(1, 1, 50)))
    assert measured.effect[0].lit_before == measured.effect[0].lit_after
    assert measured.effect[0].rmse_before == pytest.approx(measured.effect[0].rmse_after)


def test_nan_is_not_hidden_and_half_is_widened():
    read_outs = (ReadOut((PiecewiseMap((0.0, 1.0), (0.0, 2.0)),)), ReadOut.from_acb_mse(0.1))
    for read_out in read_outs:
        assert bool(read_out.apply(torch.tensor([math.nan])).isnan().all())
        assert read_out.apply(torch.tensor([0.5], dtype=torch.float16)).dtype == torch.float32
        assert read_out.apply(torch.tensor([0.5], dtype=torch.float64)).dtype == torch.float64


def test_a_file_holds_the_same_read_out(tmp_path):
    _, target, prediction = logistic(n=20_000)
    tally = tallied(prediction, target)
    for read_out in (
        ReadOut.fit(tally), ReadOut.from_acb_mse(0.01).measured(tally), ReadOut.identity(),
    ):  # fmt: skip
        read_out.save(tmp_path / "read_out.json")
        assert ReadOut.load(tmp_path / "read_out.json") == read_out
        assert ReadOut.from_dict(json.loads(json.dumps(read_out.to_dict()))) == read_out
    with pytest.raises(ValueError, match="JSON of version 1 of ReadOutTally .* got something else"):
        ReadOutTally.load(tmp_path / "read_out.json")


class WithReadOut(nn.Module):
    def __init__(self, read_out):
        super().__init__()
        self.network, self.read_out = nn.Conv2d(1, 2, 3, padding=1), read_out

    def forward(self, image):
        return self.read_out.apply(self.network(image))


def exportable_read_outs():
    _, target, prediction = logistic(n=20_000)
    fitted = ReadOut.fit(tallied(prediction, target))
    yield "fitted", fitted
    yield "of channels", ReadOut((fitted.maps[0], PiecewiseMap((-1.0, 1.0), (0.0, 3.0))))
    yield "exact", ReadOut.from_acb_mse(0.01, value=0.5)
    yield "identity", ReadOut.identity()


@pytest.mark.parametrize("case", list(exportable_read_outs()), ids=lambda case: case[0])
def test_exports_hold_the_read_out(case, tmp_path):
    torch.manual_seed(0)
    network = WithReadOut(case[1]).eval()
    free = torch.export.Dim.DYNAMIC
    example = torch.randn(2, 1, 9, 11)
    with torch.no_grad():
        program = torch.export.export(
            network, (example,), dynamic_shapes=({0: free, 2: free, 3: free},)
        )
        other = torch.randn(3, 1, 6, 7)
        expected = network(other)
        torch.testing.assert_close(program.module()(other), expected)
        torch.export.save(program, tmp_path / "network.pt2")
        loaded = torch.export.load(tmp_path / "network.pt2").module()
        torch.testing.assert_close(loaded(other), expected)
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    written.save(str(tmp_path / "network.onnx"), external_data=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"))
    (actual,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=1e-4, atol=1e-4)


def bad_calls():
    image = torch.rand(1, 1, 8)
    tally = ReadOutTally(1)
    nan = image.clone()
    nan[0, 0, 0] = math.nan
    yield lambda: tally.update(image, nan), "`target` without NaN or infinity, got 1 in 8 pixels"
    yield lambda: tally.update(nan, image), "`prediction` without NaN or infinity, got 1 in 8"
    yield lambda: tally.update(image, image[..., 1:]), "`target` in the shape of `prediction`"
    yield lambda: ReadOutTally(2).update(image, image), r"\(B, 2, \*spatial\), got \(1, 1, 8\)"
    yield lambda: tally.update(1e13 * image, image), "`prediction` below .* in size, got .*`value`"
    yield lambda: ReadOutTally(value=0.0), "`value` above 0, got 0"
    yield lambda: ReadOutTally(value=1.0).merge(ReadOutTally(value=2.0)), "Expected `other` with"
    yield lambda: ReadOut.fit(tally, min_pixels=0), "`min_pixels` to be a number of at least 1"
    yield lambda: ReadOut.from_acb_mse(0.0), "`hit_share` above 0 and below 1, got 0"
    yield lambda: ReadOut.from_acb_mse(0.1, hit_weight=0.0), "`weight` above 0, got 0"
    yield lambda: ReadOut(()), "`maps` of one map or more"
    yield lambda: ReadOut((OddsMap((1.0, 2.0)),) * 2).measured(tally), "of 2 channels, got 1"
    yield lambda: ReadOut.from_dict({}), "dictionary of a read-out, got another one"
    yield lambda: ReadOut.from_dict({"maps": [{"map": "x"}], "effect": []}), "got 'x'"
    yield lambda: PiecewiseMap((0.0, 0.0), (0.0, 1.0)), "`knots` to rise, got 0 before 0"
    yield lambda: PiecewiseMap((0.0, 1.0), (1.0, 0.0)), "`values` not to fall, got 1 before 0"
    yield lambda: PiecewiseMap((0.0,), (1.0,)), "two numbers or more"


@pytest.mark.parametrize("bad", list(bad_calls()))
def test_bad_input_is_refused(bad):
    call, sentence = bad
    with pytest.raises(ValueError, match=sentence):
        call()


def test_an_empty_tally_is_refused():
    with pytest.raises(ValueError, match="Expected `tally` with pixels, got none"):
        ReadOut.fit(ReadOutTally())


def test_maps_are_described_by_the_names_of_their_channels():
    tally = ReadOutTally(2)
    tally.update(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    lines = ReadOut.fit(tally).describe(["nose", "tail"]).splitlines()
    assert [line.split(":")[0] for line in lines] == ["read-out of nose", "read-out of tail"]
