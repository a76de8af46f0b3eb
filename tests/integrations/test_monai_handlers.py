"""Handlers and metrics in MONAI's engines: what they say, write, stop, and leave alone."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import warnings

import pytest
import torch

pytest.importorskip("ignite", reason="pytorch-ignite is not installed: MONAI's engines need it")

from ignite.engine import Events
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, ValidationHandler
from monai.losses import DeepSupervisionLoss
from monai.transforms import Activationsd, AsDiscreted, Compose
from torch import nn

from dense_imb.engine import CollapseWarning
from dense_imb.integrations.monai import (
    CollapseHandler,
    GradientShareHandler,
    OperatingPointHandler,
    PixelAveragePrecision,
    PixelDice,
    PixelIoU,
    ProgressHandler,
)
from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    BiasCompensatedLoss,
    CrossEntropyLoss,
    HardMiningLoss,
    Hits,
    cross_entropy_loss,
)
from dense_imb.metrics import OperatingPoint, ScoreHistogram, SegmentationScores
from tests.integrations.engines import (
    PRED_LABEL,
    evaluator_of,
    loader,
    losses_of,
    tiny,
    trainer_of,
)


class Fixed(nn.Module):
    """Logits [0, gain * image + bias]: right where the gain is positive."""

    def __init__(self, gain: float, bias: float = 0.0) -> None:
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.tensor(gain)), nn.Parameter(torch.tensor(bias))

    def forward(self, image):
        logit = self.gain * image + self.bias
        return torch.cat([torch.zeros_like(logit), logit], 1)


def watched(network, *handlers, n=1, **options):
    """An evaluator that has run n times."""
    evaluator = evaluator_of(network, loader(), val_handlers=list(handlers), **options)
    for epoch in range(1, n + 1):
        evaluator.run(epoch)
    return evaluator


HEALTHY, BLANK, LIT, CHANCE = (
    Fixed(9.0, -4.0),
    Fixed(9.0, -25.0),
    Fixed(9.0, 15.0),
    Fixed(0.0, -1.0),
)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (BLANK, "epoch 2: the network is blank .*OperatingPointHandler"),
        (LIT, "epoch 2: the network calls every pixel foreground .*balanced loss"),
        (CHANCE, "epoch 2: the network ranks the foreground no better than chance"),
        (Fixed(-9.0), "epoch 2: the network ranks the foreground no better than chance"),
    ],
)
def test_a_collapse_is_told_once_with_its_cure(network, told):
    with pytest.warns(CollapseWarning, match=told) as caught:
        watched(network, CollapseHandler(), n=4)
    assert len(caught) == 1


def test_patience_counts_evaluations_in_a_row():
    with pytest.warns(CollapseWarning, match="epoch 3: the network is blank"):
        watched(BLANK, CollapseHandler(patience=3), n=3)
    now_and_then = copy.deepcopy(BLANK)
    evaluator = evaluator_of(now_and_then, loader(), val_handlers=[CollapseHandler(patience=2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch in range(1, 6):
            now_and_then.bias.data.fill_(-4.0 if epoch % 2 else -25.0)
            evaluator.run(epoch)


def test_a_healthy_network_is_left_alone():
    handler = CollapseHandler("stop", trainer=trainer_of(tiny(), CrossEntropyLoss(), loader()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluator = watched(HEALTHY, handler, n=3)
    assert evaluator.state.metrics["auc"] > 0.95
    assert evaluator.state.metrics["recall_at_half"] > 0.9
    assert evaluator.state.metrics["lit_at_half"] < 0.2


def test_images_without_foreground_say_nothing_about_the_network():
    empty = [
        {"image": MetaTensor(torch.randn(1, 1, 8, 8)), "label": MetaTensor(torch.zeros(1, 1, 8, 8))}
    ]
    evaluator = evaluator_of(
        BLANK, empty, val_handlers=[CollapseHandler(), OperatingPointHandler()]
    )
    for epoch in (1, 2, 3):
        evaluator.run(epoch)
    for name in ("auc", "recall_at_half", "threshold", "recall", "f1", "average_precision"):
        assert math.isnan(evaluator.state.metrics[name])


class FrozenChance(nn.Module):
    """A loss that has a gradient and leads nowhere."""

    def forward(self, prediction, target):
        return 0 * prediction.sum()


@pytest.mark.parametrize(("action", "epochs"), [("stop", 2), ("warn", 4)])
def test_stop_ends_the_trainer_where_the_network_ranks_by_chance(action, epochs):
    network, batches = copy.deepcopy(CHANCE), loader()
    alarm = CollapseHandler(action)
    validation = ValidationHandler(1, evaluator_of(network, batches, val_handlers=[alarm]))
    trainer = trainer_of(network, FrozenChance(), batches, epochs=4, train_handlers=[validation])
    alarm.set_trainer(trainer)
    with pytest.warns(CollapseWarning, match="no better than chance"):
        trainer.run()
    assert trainer.state.epoch == epochs


def test_stop_leaves_a_blank_network_that_ranks_well_alone():
    network, batches = copy.deepcopy(BLANK), loader()
    alarm = CollapseHandler("stop")
    validation = ValidationHandler(1, evaluator_of(network, batches, val_handlers=[alarm]))
    trainer = trainer_of(network, FrozenChance(), batches, epochs=4, train_handlers=[validation])
    alarm.set_trainer(trainer)
    with pytest.warns(CollapseWarning, match="is blank"):
        trainer.run()
    assert trainer.state.epoch == 4


def test_a_loss_without_a_gradient_is_told_as_such():
    """A softmax over one channel is 1 whatever the network does."""
    network, batches = tiny(out_channels=1), loader()

    def softmax_over_one_channel(prediction, target):
        return -prediction.log_softmax(1)[:, :1].mul(target).mean()

    alarm = CollapseHandler("stop")
    validation = ValidationHandler(1, evaluator_of(network, batches, val_handlers=[alarm]))
    shares = GradientShareHandler(every=1)
    trainer = trainer_of(
        network, softmax_over_one_channel, batches, epochs=4, train_handlers=[shares, validation]
    )
    alarm.set_trainer(trainer)
    with pytest.warns(CollapseWarning, match="gets no gradient from its loss .*one channel"):
        trainer.run()
    assert trainer.state.epoch == 2
    assert math.isnan(trainer.state.metrics["gradient_share_0"])


def test_stop_without_a_trainer_is_refused():
    evaluator = evaluator_of(HEALTHY, loader(), val_handlers=[CollapseHandler("stop")])
    evaluator.logger.disabled = True
    with pytest.raises(ValueError, match=r"Expected a `trainer` .*set_trainer"):
        evaluator.run()


@pytest.mark.parametrize("postprocessing", [False, True])
def test_the_operating_point_is_the_histograms(postprocessing):
    """Whatever the postprocessing makes of the logits afterwards."""
    expected = ScoreHistogram(scale="logit")
    for batch in loader():
        logits = HEALTHY(batch["image"]).detach().as_tensor()
        expected.update(logits[:, 1] - logits[:, 0], batch["label"][:, 0].as_tensor() > 0)
    made_masks = Compose(
        [Activationsd(keys="pred", softmax=True), AsDiscreted(keys="pred", argmax=True)]
    )
    handler = OperatingPointHandler(0.8, prefix="val_")
    options = {"postprocessing": made_masks} if postprocessing else {}
    metrics = watched(HEALTHY, handler, n=2, **options).state.metrics
    assert handler.point == expected.operating_point(0.8)
    assert metrics["val_recall"] == handler.point.retention
    assert metrics["val_recall"] >= 0.8
    assert metrics["val_precision"] == handler.point.purity
    assert metrics["val_threshold"] == pytest.approx(1 / (1 + math.exp(-handler.point.threshold)))
    assert metrics["val_average_precision"] == expected.average_precision()


def test_best_f1_is_the_best_of_all_thresholds():
    noisy = Fixed(1.0)
    best = OperatingPointHandler(None)
    metrics = watched(noisy, best).state.metrics
    curve = best.histogram.curve()
    every = 2 * curve.retention * curve.purity / (curve.retention + curve.purity)
    assert metrics["f1"] == pytest.approx(float(every[~every.isnan()].max()), rel=1e-12)
    assert 0.5 < metrics["f1"] < 1.0


def test_the_point_on_disk_is_that_of_the_best_weights(tmp_path):
    """The second evaluation is worse than the first, the third better."""
    network, path = Fixed(0.5), tmp_path / "models" / "point.json"
    handler = OperatingPointHandler(0.9, path=path)
    metric = IgniteMetricHandler(PixelDice(), output_transform=PRED_LABEL)
    evaluator = evaluator_of(
        network, loader(), key_val_metric={"dice": metric}, val_handlers=[handler]
    )
    points = []
    for epoch, bias in ((1, -0.5), (2, -9.0), (3, -0.25)):
        network.bias.data.fill_(bias)
        evaluator.run(epoch)
        points.append(handler.point)
        assert OperatingPoint.load(path) == (points[2] if epoch == 3 else points[0])
    assert len({point.threshold for point in points}) == 3


def test_one_class_against_the_rest():
    class Three(nn.Module):
        def forward(self, image):
            return torch.cat([torch.zeros_like(image), -image, image], 1)

    of_two = OperatingPointHandler(0.9, foreground=2)
    batches = [{"image": image, "label": 2 * label} for image, label in _pairs()]
    evaluator_of(Three(), batches, val_handlers=[of_two]).run()
    assert of_two.histogram.n_signal == sum(int((label > 0).sum()) for _, label in _pairs())
    scores = SegmentationScores(3)
    for batch in batches:
        scores.update(Three()(batch["image"]), batch["label"])
    assert of_two.point == scores.histograms[2].operating_point(0.9)
    of_one = OperatingPointHandler(0.9, foreground=1)
    evaluator_of(Three(), batches, val_handlers=[of_one]).run()
    assert of_one.point is None


def _pairs():
    return [(batch["image"], batch["label"]) for batch in loader()]


def test_gradient_shares_are_autograds_and_change_no_training():
    start = tiny()
    first = next(iter(loader()))
    logits = start(first["image"].as_tensor()).detach().requires_grad_()
    cross_entropy_loss(logits, first["label"].as_tensor()).backward()
    size = logits.grad.abs().sum(1, keepdim=True)
    is_hit = first["label"].as_tensor() > 0
    expected = float(size[is_hit].sum() / size.sum())

    runs = []
    for handlers in ([], [GradientShareHandler(every=100)]):
        network = copy.deepcopy(start)
        trainer = trainer_of(network, CrossEntropyLoss(), loader(), train_handlers=handlers)
        runs.append(losses_of(trainer))
        trainer.run()
    assert runs[0] == runs[1]
    assert trainer.state.metrics["gradient_share_1"] == pytest.approx(expected, rel=1e-5)
    assert trainer.state.metrics["gradient_share_0"] == pytest.approx(1 - expected, rel=1e-5)


def test_gradient_shares_come_every_so_often():
    shares = GradientShareHandler(every=3)
    trainer = trainer_of(tiny(), CrossEntropyLoss(), loader(), epochs=4, train_handlers=[shares])
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append(engine.state.metrics.pop("gradient_share_1", None) is not None),
    )
    trainer.run()
    assert [i + 1 for i, is_there in enumerate(seen) if is_there] == [1, 3, 6]


def test_a_balance_gives_the_foreground_its_gradient():
    found = []
    for loss in (CrossEntropyLoss(), CrossEntropyLoss(balance=Balance())):
        trainer = trainer_of(
            tiny(), loss, loader(), epochs=1, train_handlers=[GradientShareHandler()]
        )
        trainer.run()
        found.append(trainer.state.metrics["gradient_share_1"])
    assert found[0] < 0.15
    assert found[1] == pytest.approx(0.5, abs=0.1)


def test_gradient_shares_of_values_and_of_deep_supervision():
    values = trainer_of(
        tiny(out_channels=1), ACBMSELoss(), loader(),
        train_handlers=[GradientShareHandler(class_of=Hits())],
    )  # fmt: skip
    values.run()
    deep = trainer_of(
        tiny(n_levels=2), DeepSupervisionLoss(CrossEntropyLoss(balance=Balance())), loader(),
        train_handlers=[GradientShareHandler()],
    )  # fmt: skip
    deep.run()
    for trainer in (values, deep):
        shares = [trainer.state.metrics[f"gradient_share_{k}"] for k in (0, 1)]
        assert sum(shares) == pytest.approx(1)
        assert 0.2 < shares[1] < 0.8


def test_progress_goes_from_0_towards_1_over_the_epochs():
    loss, seen = BiasCompensatedLoss((9, 1)), []
    trainer = trainer_of(
        tiny(), DeepSupervisionLoss(loss), loader(), epochs=4,
        train_handlers=[ProgressHandler(DeepSupervisionLoss(loss))],
    )  # fmt: skip
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: seen.append(float(loss.progress)))
    trainer.run()
    assert seen == [0.0, 0.25, 0.5, 0.75]
    with pytest.raises(TypeError, match="with a BiasCompensatedLoss in it, got CrossEntropyLoss"):
        ProgressHandler(CrossEntropyLoss())


METRICS = {PixelAveragePrecision: "average_precision", PixelIoU: "iou", PixelDice: "dice"}


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("decollate", [False, True])
@pytest.mark.parametrize("one_hot", [False, True])
def test_a_metric_in_an_evaluator_is_the_score_of_all_images(kind, decollate, one_hot):
    expected = SegmentationScores()
    for batch in loader():
        expected.update(HEALTHY(batch["image"]), batch["label"])
    evaluator = evaluator_of(
        HEALTHY,
        loader(one_hot=one_hot),
        decollate=decollate,
        key_val_metric={"score": IgniteMetricHandler(kind(), output_transform=PRED_LABEL)},
    )
    for epoch in (1, 2):  # the second starts afresh
        evaluator.run(epoch)
    by_class = getattr(expected, METRICS[kind])()
    assert evaluator.state.metrics["score"] == pytest.approx(by_class[1], rel=1e-9)
    assert evaluator.state.best_metric == pytest.approx(by_class[1], rel=1e-9)
    assert evaluator.state.metric_details["score"].tolist() == [[pytest.approx(by_class[1])]]


@pytest.mark.parametrize("n_channels", [1, 2])
def test_probabilities_score_as_their_logits_do(n_channels):
    logits = torch.randn(2, n_channels, 6, 6)
    label = (torch.rand(2, 1, 6, 6) < 0.3).float()
    probability = logits.sigmoid() if n_channels == 1 else logits.softmax(1)
    for kind in METRICS:
        found = []
        for given, is_probability in ((logits, False), (probability, True)):
            metric = kind(include_background=True, is_probability=is_probability)
            metric(given, label)
            found.append(metric.aggregate().item())
        assert found[0] == pytest.approx(found[1], abs=0.01)


def test_masks_made_by_postprocessing_score_as_they_are():
    mask = AsDiscreted(keys="pred", argmax=True, to_onehot=2)
    dice = IgniteMetricHandler(PixelDice(), output_transform=PRED_LABEL)
    options = {"key_val_metric": {"dice": dice}}
    plain = watched(HEALTHY, **options).state.metrics["dice"]
    options["key_val_metric"] = {
        "dice": IgniteMetricHandler(PixelDice(), output_transform=PRED_LABEL)
    }
    made = watched(HEALTHY, postprocessing=mask, **options).state.metrics["dice"]
    assert made == plain


def test_probabilities_where_logits_belong_are_told():
    metric = PixelIoU()
    metric(torch.rand(1, 1, 5, 5), torch.ones(1, 1, 5, 5))
    with pytest.warns(UserWarning, match="between 0 and 1.*PixelIoU\\(is_probability=True\\)"):
        metric.aggregate()
    with pytest.raises(ValueError, match="between 0 and 1 with is_probability=True, got -3 to 3"):
        PixelIoU(is_probability=True)(torch.tensor([[-3.0, 3.0]]), torch.ones(1))


@pytest.mark.parametrize("is_probability", [False, True])
def test_an_argmaxed_prediction_is_named(is_probability):
    logits, label = torch.randn(2, 4, 5, 5), torch.randint(0, 4, (2, 5, 5))
    metric = PixelAveragePrecision(4, is_probability=is_probability)
    for prediction in (
        logits.argmax(1),
        logits.argmax(1, keepdim=True),
        logits.argmax(1, keepdim=True).float(),
    ):
        with pytest.raises(ValueError, match="for each of 4 classes, got .* before any argmax or"):
            metric(prediction, label)
    with pytest.raises(ValueError, match="got torch.int64 .* and `y_pred` before `y`"):
        metric(label.unsqueeze(1), logits)
    metric(logits.softmax(1), label)
    metric = PixelAveragePrecision(4, is_probability=is_probability)
    metric(torch.nn.functional.one_hot(logits.argmax(1), 4).movedim(-1, 1).float(), label)
    with pytest.warns(UserWarning, match="is 0 or 1, as after an argmax or a threshold"):
        metric.aggregate()


def test_a_metric_goes_on_after_a_look_at_it():
    metric = PixelDice()
    metric(torch.tensor([[-1.0, 1.0]]), torch.tensor([1]))
    assert metric.aggregate().item() == 1.0
    metric(torch.tensor([[-1.0, 1.0]]), torch.tensor([0]))
    assert metric.aggregate().item() == pytest.approx(2 / 3)


def test_a_metric_keeps_counts_and_no_image():
    metric = PixelAveragePrecision()
    for _ in range(20):
        metric(torch.randn(2, 2, 32, 32), torch.zeros(2, 1, 32, 32))
    assert metric._buffers is None
    assert int(metric.scores.confusion.sum()) == 20 * 2 * 32 * 32


def test_the_room_itself_imports_neither_monai_nor_ignite():
    code = "import sys, dense_imb.integrations; print({'monai', 'ignite'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_missing_ignite_is_told_with_the_cure():
    code = (
        "import sys; sys.modules['ignite'] = None\n"
        "try:\n    import dense_imb.integrations.monai\n"
        "except ImportError as why:\n    print(why)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ignite is missing" in done.stdout
    assert 'pip install "dense-imb[monai]"' in done.stdout


def test_an_operating_point_of_natural_probabilities():
    """The map rises: the same pixels are kept, at a threshold of natural probabilities."""
    loss, share = CrossEntropyLoss(balance=Balance()), (0.9, 0.1)
    raw, natural = (
        watched(HEALTHY, OperatingPointHandler(0.9, **options)).state.metrics
        for options in ({}, {"loss": loss, "class_share": share})
    )
    shift = math.log(share[1] / share[0])
    assert natural["threshold_logit"] == pytest.approx(raw["threshold_logit"] + shift, abs=0.05)
    assert natural["recall"] == pytest.approx(raw["recall"], abs=0.01)
    assert natural["average_precision"] == pytest.approx(raw["average_precision"], abs=0.01)
    with pytest.raises(ValueError, match="the training `loss` with `class_share`, got none"):
        OperatingPointHandler(0.9, class_share=share)
    with pytest.raises(ValueError, match="HardMiningLoss.* gives no probabilities"):
        watched(HEALTHY, OperatingPointHandler(0.9, loss=HardMiningLoss()))
