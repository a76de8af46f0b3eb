"""Runs that sample by class and mix: resumed to the bit, with every loss or a sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dense_imb.config import MixingConfig, SamplingConfig
from dense_imb.data.epochs.samplers import ClassSampling
from dense_imb.data.images.labelled import IGNORED
from dense_imb.data.images.split import split_by_image
from dense_imb.engine import Interrupted
from dense_imb.hits import Events
from dense_imb.hits.events import concatenate
from dense_imb.losses.foreign.catalogue import CATALOGUE
from dense_imb.losses.foreign.soft_feeding import check_takes_soft
from dense_imb.runs import SamplingWarning, TrainConfig, train
from dense_imb.runs.write import RunFiles
from dense_imb.tasks.recipe import build_task
from tests.engine.test_loop import Signal
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import Line, assert_same_content, clean_events, loop_of, tiny, write_events

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
padded = pytest.mark.filterwarnings("ignore::dense_imb.tasks.images.recipe.PatchWarning")
CPU = torch.device("cpu")


def without_rare_class(folders: tuple[str, str], *numbers: int) -> tuple[str, str]:
    """The folders, the last class of these images gone."""
    for number in numbers:
        path = Path(folders[1]) / f"{number:03d}.png"
        mask = np.array(Image.open(path))
        mask[mask == mask.max()] = 0
        Image.fromarray(mask).save(path)
    return folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folders = write_folders(tmp_path_factory.mktemp("pictures"), n_classes=3)
    return without_rare_class(folders, 0, 1, 2, 3)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 events, of which 4 are of the rare class, label 2."""
    frequent, rare = clean_events(20), clean_events(4, seed=1)
    rare = dataclasses.replace(rare, label=np.full(rare.n_hits, 2, np.uint8))
    events = concatenate([frequent, rare]).take(np.argsort(np.arange(24) % 6 * 24).tolist())
    return write_events(tmp_path_factory.mktemp("hits") / "two.h5", events)


def quiet(config: TrainConfig, folder: Path, **options: Any):
    return train(config, folder, is_quiet=True, **options)


def images(folders: tuple[str, str], kind: str = "none", by: str = "instance", **more: Any):
    options = more.pop("mixing", {})
    return tiny_images(
        folders, sampling=SamplingConfig(by), mixing=MixingConfig(kind, **options), **more
    )


def events(path: str, kind: str = "none", by: str = "instance", **more: Any):
    options = more.pop("mixing", {})
    return tiny(path, sampling=SamplingConfig(by), mixing=MixingConfig(kind, **options), **more)


RUNS = [
    (images, {"kind": "balanced-mixup", "by": "progressive"}),
    (images, {"kind": "mixup", "by": "class"}),
    (images, {"kind": "unimix", "by": "sqrt"}),
    (events, {"kind": "balanced-mixup", "by": "class"}),
    (events, {"kind": "mixup", "hits": {"mixing": "union"}}),
    (events, {"kind": "unimix", "by": "power", "hits": {"mixing": "union"}}),
]


@pytest.mark.parametrize(
    ("make", "options"), RUNS, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_resumed_run_is_the_same_to_the_bit(folders, path, tmp_path, monkeypatch, make, options):
    config = make(folders if make is images else path, **options)
    whole = quiet(config, tmp_path / "whole")
    signal_at = Signal(7)
    monkeypatch.setattr(RunFiles, "on_step", lambda self, loop: signal_at.on_step(loop))
    with pytest.raises(Interrupted):
        quiet(config, tmp_path / "again")
    monkeypatch.undo()
    again = quiet(config, tmp_path / "again", resume=True)
    assert_same_content(whole.weights("last"), again.weights("last"))
    assert whole.metrics["is_finished"]


def test_options_of_another_run_are_refused(folders, tmp_path):
    quiet(images(folders, steps=2), tmp_path / "run")
    for other in (images(folders, "mixup", steps=2), images(folders, by="class", steps=2)):
        with pytest.raises(ValueError, match="got another"):
            quiet(other, tmp_path / "run", resume=True)


class Drawn(Line):
    """A line whose points are drawn by class."""

    def __init__(self) -> None:
        super().__init__()
        self.sampling = ClassSampling.of([0] * 23 + [1], "class")

    def order(self, seed: int, epoch: int) -> Any:
        return self.sampling.order(seed, epoch)


def test_a_loop_follows_the_order_of_a_task():
    task = Drawn()
    loop_of(task, steps=40, batch_size=6, seed=3).run()
    seen = np.array(task.seen).ravel()
    wanted = np.concatenate([task.sampling.order(3, epoch) for epoch in range(10)])
    assert np.array_equal(seen, wanted)
    assert 0.4 < (seen % 24 == 23).mean() < 0.6


def test_an_image_that_comes_twice_is_cropped_twice(folders):
    task = build_task(images(folders, by="class"))
    n = len(task.train)
    batch = task.batch(np.array([1, 1 + n, 1]), 0, CPU)
    assert torch.equal(batch.shown[0], batch.shown[2])
    assert not torch.equal(batch.shown[0], batch.shown[1])


def test_an_event_that_comes_twice_has_other_noise(path):
    task = build_task(events(path, by="class"))
    n = len(task.train)
    batch = task.batch(np.array([1, 1 + n, 1]), 0, CPU)
    assert torch.equal(batch.shown[0], batch.shown[2])
    assert not torch.equal(batch.shown[0], batch.shown[1])
    # the clean event is the same
    assert np.array_equal(task.train.clean(np.array([1 + n])).x, task.train.clean(np.array([1])).x)


def test_events_of_the_rare_label_are_drawn_as_often(path):
    task = build_task(events(path, by="class"))
    label = [int(task.train.clean(np.array([i])).label[0]) for i in range(len(task.train))]
    assert 2 * sum(k == 2 for k in label) < len(label)
    orders = np.concatenate([task.order(0, epoch) for epoch in range(30)])
    share = np.mean([label[s % len(label)] == 2 for s in orders])
    assert share == pytest.approx(0.5, abs=0.08)


# batches


def test_images_are_mixed_as_their_targets(folders):
    task = build_task(images(folders, "balanced-mixup", mixing={"alpha": 0.5}))
    samples = np.arange(4)
    plan = task.mixer.plan(samples, 2)
    batch = task.batch(samples, 2, CPU)
    plain = dataclasses.replace(images(folders), steps=10)
    first = build_task(plain).batch(samples, 2, CPU)
    share = torch.tensor(plan.share).float()[:, None, None, None]
    one_hot = torch.nn.functional.one_hot(first.label, 3).movedim(-1, 1)
    rest = batch.probability - share * one_hot
    assert ((rest > -1e-6) & (rest < 1 - share + 1e-6)).all()
    torch.testing.assert_close(batch.probability.sum(1), torch.ones(first.label.shape))
    second = (batch.shown - share * first.shown) / (1 - share)
    of_partners = torch.stack(
        [torch.from_numpy(task.reading.shown(task.train.image(i))) for i in plan.partner]
    )
    clear = plan.share < 0.9
    for found, image in zip(second[clear], of_partners[clear], strict=True):
        assert image.min() - 0.1 < found.min()
        assert found.max() < image.max() + 0.1


def test_an_image_that_is_its_own_partner_is_cropped_anew(folders):
    task = build_task(images(folders, "balanced-mixup", mixing={"alpha": 1e9}))
    samples = np.arange(task.n_samples)
    plan = task.mixer.plan(samples, 0)
    own = samples[plan.partner == samples % len(task.train)]
    plain = build_task(images(folders)).batch(own, 0, CPU)
    assert len(own) > 0
    for mixed, crop in zip(task.batch(own, 0, CPU).shown, plain.shown, strict=True):
        assert not torch.allclose(mixed, crop)  # all of it is the partner's


def test_a_checkpoint_knows_what_was_sampled_and_mixed(folders, path):
    for build, make, data in (
        (build_task, images, folders),
        (build_task, events, path),
    ):
        plain = build(make(data)).describe()
        told = build(make(data, "balanced-mixup", "sqrt")).describe()
        assert not {"sampling", "mixing"} & plain.keys()
        assert told["sampling"].startswith("sqrt, (")
        assert "kind='balanced-mixup', alpha=0.2" in told["mixing"]


def test_two_samples_with_the_same_partner_see_it_with_other_noise(path):
    union = {"mixing": "union"}
    task = build_task(events(path, "balanced-mixup", mixing={"alpha": 1e9}, hits=union))
    samples = np.arange(task.n_samples)
    partner = task.mixer.plan(samples, 0).partner
    twice = samples[partner == np.bincount(partner).argmax()]
    batch = task.batch(twice, 0, CPU)
    assert len(twice) > 1
    assert not torch.equal(batch.shown[0], batch.shown[1])


def test_a_share_of_one_is_no_mixing(folders):
    """With a large alpha, Beta(alpha, 1) is 1: the partner's; the target is hard again."""
    task = build_task(images(folders, "balanced-mixup", mixing={"alpha": 1e9}))
    batch = task.batch(np.arange(4), 0, CPU)
    assert torch.equal(batch.probability.argmax(1), batch.label)
    assert batch.probability.amax(1).min() > 0.999


@pytest.mark.filterwarnings("ignore::dense_imb.tasks.images.recipe.FewPixelsWarning")
@padded
def test_a_pixel_ignored_in_either_pulls_at_nothing(tmp_path):
    folders = write_folders(tmp_path, n=5, size=(24, 24), n_classes=3)
    config = images(folders, "mixup", images={"patch": [40, 40], "flips": False})
    task = build_task(config)
    batch = task.batch(np.arange(4), 0, CPU)
    is_ignored = batch.label == IGNORED
    plain = build_task(images(folders, images={"patch": [40, 40], "flips": False}))
    alone = plain.batch(np.arange(4), 0, CPU).label == IGNORED
    assert (is_ignored >= alone).all()
    assert is_ignored.sum() > alone.sum()
    output = torch.randn(batch.probability.shape, requires_grad=True)
    task.cost_of(output, batch).backward()
    assert not output.grad.abs().sum(1)[is_ignored].any()
    assert output.grad.abs().sum(1)[~is_ignored].all()


@padded
def test_a_loss_that_can_not_leave_pixels_out_mixes_small_images(tmp_path):
    folders = write_folders(tmp_path, n=5, size=(24, 24))
    loss = "torch.nn:BCEWithLogitsLoss"
    config = images(folders, "mixup", images={"patch": [40, 40]}, loss=loss)
    assert not build_task(config).batch(np.arange(4), 0, CPU).has_ignored
    assert quiet(config, tmp_path / "run").metrics["is_finished"]


def test_a_union_of_hits_keeps_its_targets_hard(path):
    task = build_task(
        events(path, "balanced-mixup", mixing={"alpha": 1.0}, hits={"mixing": "union"})
    )
    batch = task.batch(np.arange(8), 0, CPU)
    assert not batch.is_soft
    assert set(batch.is_signal.unique().tolist()) == {0.0, 1.0}
    is_lit = torch.zeros(batch.is_signal.numel(), dtype=torch.bool)
    is_lit[batch.lit] = True
    assert len(batch.lit) == is_lit.sum(), "a pixel shows one hit"
    assert is_lit[batch.is_signal.flatten() > 0].all()
    shown = batch.shown[:, 1].flatten()  # the channel "hit"
    assert torch.equal(shown > 0, is_lit)


def test_frames_of_hits_are_mixed_with_all_their_pixels(path):
    task = build_task(events(path, "mixup", mixing={"alpha": 1.0}))
    batch = task.batch(np.arange(8), 0, CPU)
    alone = build_task(events(path)).batch(np.arange(8), 0, CPU)
    assert set(alone.lit.tolist()) < set(batch.lit.tolist())
    assert batch.is_soft
    soft = (batch.is_signal > 0) & (batch.is_signal < 1)
    assert soft.any()
    shares = torch.from_numpy(task.mixer.plan(np.arange(8), 0).share).float()
    of_own = batch.is_signal[alone.is_signal > 0]
    wanted = shares[:, None, None, None].expand_as(batch.is_signal)[alone.is_signal > 0]
    assert (of_own >= wanted - 1e-6).all()


# losses

OPTIONS = {"BalancedRegressionLoss": "(partition='hits')"}
REFUSE = ("LDAMLoss", "ComplementCrossEntropyLoss", "LovaszLoss")
# a compound loss is written as a sum
NAMES = [e.name for e in CATALOGUE if e.feeds_on != "features" and e.name != "CompoundLoss"]
LOSSES = [name + OPTIONS.get(name, "") for name in NAMES]
LOSSES += [
    "CrossEntropyLoss(balance={})",
    "CrossEntropyLoss + 0.5 * FocalLoss",
    "CrossEntropyLoss + LDAMLoss",
    "hmld10000000g05a75",
    "torch.nn:CrossEntropyLoss",
    "torch.nn:BCEWithLogitsLoss",
    "torch.nn:MSELoss",
    "monai.losses:DiceLoss(sigmoid=True)",
    "monai.losses:DiceCELoss(sigmoid=True)",
    "segmentation_models_pytorch.losses:LovaszLoss(mode='multiclass')",
]  # fmt: skip


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_with_mixing_or_says_why_not(tmp_path, loss, n_classes):
    if "BCE" in loss and n_classes > 2:
        pytest.skip("of two classes")
    kept, _ = split_by_image(6, 0.2, 0)  # the image that is held out keeps its classes
    folders = without_rare_class(write_folders(tmp_path, n=6, n_classes=n_classes), *kept[:2])
    config = images(folders, "balanced-mixup", "sqrt", loss=loss, steps=3)
    if any(name in loss for name in REFUSE):
        told = "Expected a loss that takes the soft targets of `mixing`, got"
        with pytest.raises(ValueError, match=told) as caught:
            quiet(config, tmp_path / "run")
        assert "\n" not in str(caught.value)
        return
    run = quiet(config, tmp_path / "run")
    assert all(np.isfinite(row["loss"]) for row in run.history)


@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "LDAMLoss", "FocalLoss(balance={})"])
def test_a_union_trains_every_loss(path, tmp_path, loss):
    run = quiet(events(path, "mixup", loss=loss, hits={"mixing": "union"}), tmp_path / "run")
    assert run.metrics["is_finished"]


def test_frames_refuse_a_loss_of_hard_targets(path, tmp_path):
    with pytest.raises(ValueError, match="got LDAMLoss, which takes one class for each pixel"):
        quiet(events(path, "mixup", loss="LDAMLoss"), tmp_path / "run")


def test_frames_of_values_are_mixed(path, tmp_path):
    config = events(
        path,
        "balanced-mixup",
        hits={"output": "both", "pixels": "frame", "value_loss": "ACBMSELoss"},
    )
    assert quiet(config, tmp_path / "run").metrics["is_finished"]


def test_what_is_wrong_with_labels_too_is_no_matter_of_mixing():
    from dense_imb.losses import BalancedSoftmaxLoss

    check_takes_soft(BalancedSoftmaxLoss((1, 2, 3, 4)), 1)


def test_a_mixed_loss_is_that_of_both_labels(folders):
    """Cross-entropy is linear in its target: s L(y_1) + (1 - s) L(y_2)."""
    task = build_task(images(folders, "mixup", mixing={"alpha": 1.0}))
    batch = task.batch(np.arange(4), 0, CPU)
    plain = build_task(images(folders)).batch(np.arange(4), 0, CPU)
    plan = task.mixer.plan(np.arange(4), 0)
    logits = torch.randn(batch.probability.shape)
    losses = [
        torch.nn.functional.cross_entropy(logits, label, reduction="none").mean((1, 2))
        for label in (plain.label, plain.label[torch.from_numpy(plan.partner)])
    ]
    share = torch.from_numpy(plan.share).float()
    wanted = (share * losses[0] + (1 - share) * losses[1]).mean()
    torch.testing.assert_close(task.cost_of(logits, batch), wanted)


# bad input


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mixing": MixingConfig("mixup", alpha=0.0)}, "`alpha` above 0 for mixing, got 0"),
        ({"sampling": SamplingConfig("power", power=-1.0)}, "`power` of at least 0"),
        ({"sampling": SamplingConfig("progressive", epochs=0)}, "sampling.epochs"),
        ({"sampling": SamplingConfig("often")}, "sampling"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bad_options_of_images_are_refused(folders, tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        quiet(tiny_images(folders, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_that_no_image_holds_is_refused(tmp_path):
    folders = write_folders(tmp_path, n_classes=2)
    for kind, by in (("none", "class"), ("balanced-mixup", "instance")):
        config = images(folders, kind, by, images={"n_classes": 3})
        with pytest.raises(ValueError, match="image of each class .* got none of class 2"):
            quiet(config, tmp_path / "run")


def test_images_that_hold_the_same_classes_are_told(tmp_path):
    folders = write_folders(tmp_path)
    with pytest.warns(SamplingWarning, match="each of the 6 images holds the same classes"):
        run = quiet(images(folders, by="class", steps=2), tmp_path / "run")
    assert run.metrics["is_finished"]


def test_hits_of_one_class_or_none_are_refused(tmp_path):
    one = write_events(tmp_path / "one.h5", clean_events(20))
    with pytest.raises(ValueError, match="events of at least two classes"):
        quiet(events(one, by="class"), tmp_path / "run")
    clean = clean_events(20)
    bare = Events(clean.geometry, clean.offset, clean.x, clean.y, clean.t)
    unlabelled = write_events(tmp_path / "none.h5", bare)
    with pytest.raises(ValueError, match="hits with labels"):
        quiet(events(unlabelled, "balanced-mixup"), tmp_path / "run")
    assert quiet(events(unlabelled, "mixup", steps=2), tmp_path / "run").metrics["is_finished"]


def test_a_union_can_not_ask_for_the_pattern(path, tmp_path):
    config = events(path, "mixup", hits={"mixing": "union", "target": "pattern"})
    with pytest.raises(
        ValueError, match="`hits.target=signal` with `hits.mixing=union`, got pattern"
    ):
        quiet(config, tmp_path / "run")


def test_lightning_refuses_a_task_that_orders_its_samples(folders):
    pytest.importorskip("lightning")
    from dense_imb.integrations.lightning import LightningTask

    with pytest.raises(ValueError, match="Expected a task without `sampling` for Lightning"):
        LightningTask(build_task(images(folders, by="class")))
