"""The task of telling signal from noise: targets, scores, losses of anybody."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.hits import Degradation, Events, Geometry, HitsFile, gap
from dense_imb.losses.foreign.catalogue import CATALOGUE
from dense_imb.losses.foreign.feeding import takes_logits
from dense_imb.metrics import ScoreHistogram
from dense_imb.tasks.base import TrainingData
from dense_imb.tasks.hits.frames import FrameReading, FramesTask
from dense_imb.tasks.hits.scoring import HitsOptions
from dense_imb.tasks.recipe import Recipe, build_loss, build_task
from tests.runs.tiny import FRAME, clean_events, tiny, write_events

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(16))


class Constant(nn.Module):
    """Gives the same frames whatever it is shown."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.output.expand(len(frames), -1, -1, -1)


class Keep(nn.Module):
    """A loss that keeps what it is given."""

    def forward(self, prediction, target):
        self.given = prediction.detach(), target
        return (prediction - target).square().mean()


def denoiser(
    path: str, loss: nn.Module, reading: FrameReading | None = None, **options
) -> FramesTask:
    reading = reading or FrameReading()
    degradation = Degradation(signal=4, noise=10)
    source = HitsFile(path)
    n_channels = 2 if reading.output == "both" else 1
    return FramesTask(
        Constant(torch.zeros(1, n_channels, FRAME.height, FRAME.width)),
        loss,
        TrainingData(
            VirtualEvents(source, degradation, 0, count=12),
            VirtualEvents(source, degradation, 0, first=12),
        ),
        reading,
        HitsOptions(**options),
    )


def test_lit_pixels_are_those_of_visible_hits_and_the_target_their_labels(path):
    loss = Keep()
    task = denoiser(path, loss)
    numbers = np.array([3, 0])
    batch = task.batch(numbers, 1, CPU)
    task.cost(task.network, batch)
    prediction, target = loss.given
    events = task.train.degraded(numbers, 1)
    seen = events.select(~events.hit["is_occluded"])
    assert prediction.shape == target.shape == (1, 1, seen.n_hits)
    assert target.dtype == torch.float32
    np.testing.assert_array_equal(target[0, 0].numpy(), seen.label > 0)


def test_whole_frames_have_their_signal_where_the_visible_signal_is(path):
    loss = Keep()
    task = denoiser(path, loss, pixels="frame")
    batch = task.batch(np.array([3, 0]), 1, CPU)
    task.cost(task.network, batch)
    prediction, target = loss.given
    assert prediction.shape == target.shape == (2, 1, FRAME.height, FRAME.width)
    events = task.train.degraded(np.array([3, 0]), 1)
    seen = events.select(~events.hit["is_occluded"])
    wanted = np.zeros(target.shape)
    is_signal = seen.label > 0
    wanted[seen.event_index()[is_signal], 0, seen.y[is_signal], seen.x[is_signal]] = 1
    np.testing.assert_array_equal(target.numpy(), wanted)


def test_the_pattern_is_all_that_it_was_drawn_from(path):
    task = denoiser(path, Keep(), target="pattern", pixels="frame")
    batch = task.batch(np.array([3, 0]), 1, CPU)
    clean = task.train.clean(np.array([3, 0]))
    wanted = torch.zeros(2, 1, FRAME.height, FRAME.width)
    place = clean.event_index(), 0, clean.y.astype(int), clean.x.astype(int)
    wanted[place] = gap(torch.from_numpy(clean.t.astype(np.float32)), 100, 0.5)
    torch.testing.assert_close(batch.value, wanted)
    torch.testing.assert_close(batch.is_signal, (wanted > 0).float())


def test_an_output_of_both_feeds_two_losses(path):
    score, value = Keep(), Keep()
    task = denoiser(path, score, value_loss=value, reading=FrameReading(output="both"))
    task.network.output.data[:, 1] = 0.25
    batch = task.batch(np.arange(2), 0, CPU)
    cost = task.cost(task.network, batch)
    assert float(score.given[0].max()) == 0
    assert float(value.given[0].min()) == 0.25
    assert set(score.given[1].unique().tolist()) == {0.0, 1.0}
    assert (value.given[1] > 0).equal(score.given[1] > 0)
    assert float(value.given[1].max()) > 0.5
    wanted = sum((k.given[0] - k.given[1]).square().mean() for k in (score, value))
    torch.testing.assert_close(cost, wanted)


def shared_pixel() -> Events:
    """Two hits in one pixel, and one elsewhere."""
    x, y, t = (np.array(a) for a in ([1, 1, 3], [2, 2, 0], [10, 60, 50]))
    return Events(FRAME, np.array([0, 3]), x, y, t, np.array([1, 0, 1]))


def test_hits_of_one_pixel_share_its_score():
    output = torch.full((1, 1, FRAME.height, FRAME.width), -3.0)
    output[0, 0, 2, 1], output[0, 0, 0, 3] = 2.0, -1.0
    scores = FrameReading().score(Constant(output), shared_pixel()).detach()
    torch.testing.assert_close(scores, torch.tensor([2.0, 2.0, -1.0]).sigmoid())
    plain = FrameReading(is_logit=False).score(Constant(output), shared_pixel()).detach()
    torch.testing.assert_close(plain, (8 * torch.tensor([2.0, 2.0, -1.0]) - 4).sigmoid())


def test_a_value_scores_each_hit_by_its_own_time():
    output = torch.zeros(1, 1, FRAME.height, FRAME.width)
    output[0, 0, 2, 1] = 0.8  # the gapped time of 60
    scores = FrameReading(output="value").score(Constant(output), shared_pixel()).detach()
    torch.testing.assert_close(scores, torch.tensor([1 - 0.25 / 0.55, 1.0, 0.0]))


def test_validation_counts_each_hit_once_over_any_processes(path):
    """Hidden hits count with the score of their pixel: a denoiser decides on them, too."""
    task = denoiser(path, Keep(), batch_size=1)
    whole = task.validate(task.network, CPU, 0, 1)
    events = task.validation.degraded(np.arange(4), 2**31 - 1)
    assert events.hit["is_occluded"].any()
    n = task.histogram.n_signal, task.histogram.n_noise
    assert n == (int((events.label > 0).sum()), int((events.label == 0).sum()))
    assert whole["auc"] == 0.5
    parts = []
    for process in range(3):
        task.validate(task.network, CPU, process, 3)
        parts.append((task.histogram.n_signal, task.histogram.n_noise))
    assert tuple(map(sum, zip(*parts, strict=True))) == n
    assert task.validate(task.network, CPU, 0, 1) == whole


def test_validation_counts_the_fakes_of_noise_only_events(path, tmp_path):
    task = denoiser(path, Keep())
    task.validation = replace(task.validation, degradation=Degradation(signal=(0, 1), noise=10))
    task.validate(task.network, CPU, 0, 1)
    events = task.validation.degraded(np.arange(4), 2**31 - 1)
    n_noise_only = sum(not (one.label > 0).any() for one in events)
    assert task.histogram.n_noise_only == n_noise_only > 0
    task.save_scores(tmp_path / "scores.json")
    stored = ScoreHistogram.load(tmp_path / "scores.json")
    assert stored.at(0.0).fakes == 10
    assert stored.operating_point(fakes=3).fakes == 0  # all scores are equal


def test_shares_of_the_gradient_are_of_one_and_change_nothing(path):
    from tests.runs.tiny import Remembering

    task = denoiser(path, Remembering(), pixels="frame")
    batch = task.batch(np.arange(4), 0, CPU)
    shares = task.gradient_shares(task.network, batch)
    assert sum(shares.values()) == pytest.approx(1)
    # the network says 0 and the target is 1: only signal pixels pull
    assert shares["gradient_share_signal"] == pytest.approx(1)
    assert float(task._losses[0].scale) == 1
    task.network.output.data += 1
    shares = task.gradient_shares(task.network, batch)
    n_pixels, n_lit = batch.is_signal.numel(), len(batch.lit)
    n_signal = float(batch.is_signal.sum())
    assert shares["gradient_share_signal"] == 0
    assert shares["gradient_share_empty"] == pytest.approx(
        (n_pixels - n_lit) / (n_pixels - n_signal)
    )


def test_events_without_hits_cost_nothing(tmp_path):
    empty = Events(FRAME, np.zeros(3, np.int64), *(np.zeros(0, np.uint16) for _ in range(3)))
    data = VirtualEvents(HitsFile(write_events(tmp_path / "none.h5", empty)), None, 0)
    task = denoiser(write_events(tmp_path / "some.h5", clean_events(16)), nn.BCEWithLogitsLoss())
    task.train = data
    with pytest.raises(AssertionError):  # without labels there is no target, and it was checked
        task.batch(np.arange(2), 0, CPU)
    labelled = dataclasses.replace(data, degradation=Degradation(noise=(0, 1)))
    task.train = labelled
    n_lit = [len(task.batch(np.array([0]), epoch, CPU).lit) for epoch in range(8)]
    cost = task.cost(task.network, task.batch(np.array([0]), n_lit.index(0), CPU))
    cost.backward()
    assert cost.item() == 0
    assert task.network.output.grad is not None


LOSSES = {
    "torch.nn:BCEWithLogitsLoss": {},
    "torch.nn:MSELoss": {},
    "torch.nn:SmoothL1Loss": {"output": "value"},
    "monai.losses:DiceLoss(sigmoid=True)": {},
    "monai.losses:FocalLoss()": {},
    'segmentation_models_pytorch.losses:DiceLoss(mode="binary")': {},
    'segmentation_models_pytorch.losses:FocalLoss("binary")': {},
    "ce": {},
    "flg2a50": {},
    "hmld10000000g05a75": {},
    "BalancedSoftmaxLoss(class_counts=(100, 10))": {},
    "ClassDependentTemperatureLoss(class_counts=(100, 10))": {},
    "BiasCompensatedLoss(class_counts=(100, 10))": {},
    "LDAMLoss(class_counts=(100, 10))": {},
    "HardMiningLoss(balance={})": {},
    "FocalLoss(gamma=2.0, balance={})": {},
    "CrossEntropyLoss(class_weight=(1.0, 3.0))": {},
    "HardMiningLoss(balance={}) + 0.5 * monai.losses:DiceLoss(sigmoid=True)": {},
    "ACBMSELoss + torch.nn:L1Loss": {"output": "value"},
}
OURS = {entry.name for entry in CATALOGUE} - {text.partition("(")[0] for text in LOSSES}
LOSSES |= {name: {} for name in sorted(OURS - {"CompoundLoss"})}  # that one is a sum, above


@pytest.mark.parametrize("pixels", ["lit", "frame"])
@pytest.mark.parametrize("text", LOSSES)
def test_losses_of_anybody_train(path, text, pixels):
    if text == "RangeLoss":
        pytest.skip("takes features, not frames")
    config = tiny(path, loss=text, hits={**LOSSES[text], "pixels": pixels})
    task = build_task(config)
    optimizer = torch.optim.SGD(task.network.parameters(), 1e-4)
    before = [p.detach().clone() for p in task.network.parameters()]
    for step in range(2):
        cost = task.cost(task.network, task.batch(np.arange(4), step, CPU))
        cost.backward()
        optimizer.step()
    assert math.isfinite(cost.item())
    assert cost.shape == ()
    moved = [not torch.equal(p, b) for p, b in zip(task.network.parameters(), before, strict=True)]
    assert any(moved)


def test_a_loss_of_features_is_refused(path):
    with pytest.raises(
        ValueError, match="Expected a loss of the output, got .*, a loss of features"
    ):
        build_task(tiny(path, loss="RangeLoss(8)"))


@pytest.mark.parametrize(
    ("text", "logits"),
    [
        ("CrossEntropyLoss", True), ("ACBMSELoss", False), ("torch.nn:BCEWithLogitsLoss", True),
        ("torch.nn:MSELoss", False), ("torch.nn:L1Loss", False),
    ],
)  # fmt: skip
def test_what_a_score_is_depends_on_the_loss(path, text, logits):
    assert takes_logits(build_loss(text)) is logits
    assert Recipe.of(tiny(path, loss=text)).is_logit is logits


def test_building_a_network_leaves_the_callers_random_numbers_alone(path):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    recipe = Recipe.of(tiny(path))
    first = recipe.network(recipe.network_sizes(FRAME))
    assert torch.equal(torch.rand(3), wanted)
    again = recipe.network(recipe.network_sizes(FRAME))
    for name, value in again.state_dict().items():
        assert torch.equal(value, first.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"noise": 0}, "noise hits"),
        ({"signal": 0}, "signal hits"),
        ({"validation_share": 0.999}, "at least two events"),
    ],
)
def test_data_that_teaches_nothing_is_refused(path, change, told):
    with pytest.raises(ValueError, match=told):
        build_task(tiny(path, hits=change))


def test_other_validation_frames_are_refused(path, tmp_path):
    other = write_events(tmp_path / "other.h5", clean_events(4, frame=Geometry(20, 12, 100)))
    with pytest.raises(ValueError, match="geometry"):
        build_task(tiny(path, hits={"validation": other}))


def test_a_setup_in_words_tells_data_apart(path, tmp_path):
    same = write_events(tmp_path / "same.h5", clean_events(16))
    other = write_events(tmp_path / "other.h5", clean_events(16, seed=1))
    plain = "CrossEntropyLoss"  # one without the class counts
    mine, theirs, others = (build_task(tiny(p, loss=plain)).describe() for p in (path, same, other))
    assert mine == theirs
    differ = {name for name in mine if mine[name] != others[name]}
    assert differ == {"data", "validation data"}
