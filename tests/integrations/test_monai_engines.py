"""Every loss of the catalogue in MONAI's own engines, on MONAI's own tensors."""

from __future__ import annotations

import copy
import math

import pytest
import torch

pytest.importorskip("ignite", reason="pytorch-ignite is not installed: MONAI's engines need it")

from ignite.engine import Events
from monai.data import MetaTensor
from monai.handlers import CheckpointLoader, CheckpointSaver, IgniteMetricHandler, ValidationHandler
from monai.inferers import SimpleInferer
from monai.losses import DeepSupervisionLoss, MaskedLoss
from monai.transforms import ConcatItemsd
from monai.utils import set_determinism
from torch import Tensor, nn

from dense_imb.losses import BiasCompensatedLoss, HardMiningLoss, RangeLoss
from dense_imb.losses.foreign.catalogue import CATALOGUE
from dense_imb.metrics import SegmentationScores
from tests.integrations.engines import (
    MAKE,
    PRED_LABEL,
    evaluator_of,
    loader,
    losses_of,
    tiny,
    trainer_of,
)

KINDS = {entry.name: entry.feeds_on for entry in CATALOGUE}
every_loss = pytest.mark.parametrize("name", KINDS)


class OneHotForFeatures(nn.Module):
    """Features have no channel for each class: hand their loss the class indices."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        return self.loss(features, target.argmax(1))


def channels_of(name: str, one_hot: bool) -> int:
    """Values are as many as the target's, logits and features two."""
    return 1 if KINDS[name] == "values" and not one_hot else 2


def test_no_loss_is_forgotten():
    assert set(KINDS) <= set(MAKE)


@every_loss
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("one_hot", [False, True], ids=["indices", "one-hot"])
def test_a_loss_trains_in_the_engines(name, spatial_dims, one_hot):
    loss = MAKE[name]()
    if one_hot and KINDS[name] == "features":
        loss = OneHotForFeatures(loss)
    network = tiny(spatial_dims=spatial_dims, out_channels=channels_of(name, one_hot))
    batches = loader(spatial_dims, one_hot=one_hot)
    first = next(iter(batches))
    assert isinstance(first["image"], MetaTensor)
    assert isinstance(first["label"], MetaTensor)
    plain = copy.deepcopy(loss)(
        network(first["image"].as_tensor()), first["label"].as_tensor()
    ).item()

    metric = IgniteMetricHandler(loss_fn=copy.deepcopy(loss), output_transform=PRED_LABEL)
    evaluator = evaluator_of(network, batches, key_val_metric={"val_loss": metric})
    trainer = trainer_of(
        network, loss, batches, epochs=6, train_handlers=[ValidationHandler(1, evaluator)]
    )
    seen = losses_of(trainer)
    trainer.run()

    assert seen[0] == pytest.approx(plain, rel=1e-6)
    assert all(map(math.isfinite, seen))
    assert sum(seen[-2:]) < sum(seen[:2])  # it learns; an epoch has two iterations
    assert math.isfinite(evaluator.state.metrics["val_loss"])


@every_loss
@pytest.mark.parametrize("one_hot", [False, True], ids=["indices", "one-hot"])
def test_deep_supervision_is_the_weighted_sum_of_its_levels(name, one_hot):
    loss = MAKE[name]()
    if one_hot and KINDS[name] == "features":
        loss = OneHotForFeatures(loss)
    network = tiny(n_levels=2, out_channels=channels_of(name, one_hot))
    batches = loader(one_hot=one_hot)
    first = next(iter(batches))
    fine, coarse = network(first["image"])
    alone = copy.deepcopy(loss)
    half = first["label"][..., 1::2, 1::2]  # what nearest-exact interpolation takes
    expected = alone(fine, first["label"]) + 0.5 * alone(coarse, half)

    trainer = trainer_of(network, DeepSupervisionLoss(loss), batches)
    seen = losses_of(trainer)
    trainer.run()
    assert seen[0] == pytest.approx(expected.item(), rel=1e-6)
    assert all(map(math.isfinite, seen))


class MaskInTarget(nn.Module):
    """A loss fed through an engine: the target's last channel is the mask."""

    def __init__(self, loss: nn.Module, is_monais: bool = False) -> None:
        super().__init__()
        self.loss = MaskedLoss(loss) if is_monais else loss

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.loss(prediction, target[:, :-1], mask=target[:, -1:])


def on_valid_pixels_alone(loss: nn.Module, prediction: Tensor, target: Tensor) -> float:
    """The loss of a list of pixels, of those where the mask in the target's last channel is 1."""
    n_channels = prediction.shape[1]
    is_valid = target[:, -1].bool().flatten()
    pixels = prediction.movedim(1, -1).reshape(-1, n_channels)[is_valid]
    label = target[:, 0].flatten()[is_valid]
    return loss(pixels, label.view_as(pixels) if n_channels == 1 else label.long()).item()


@every_loss
def test_our_mask_is_right_where_masked_loss_is_not(name):
    """MaskedLoss multiplies by the mask, so that masked pixels become easy background."""
    network = tiny(out_channels=channels_of(name, False))
    batches = loader(more=[ConcatItemsd(keys=["label", "valid"], name="label")])
    first = next(iter(batches))
    expected = on_valid_pixels_alone(
        MAKE[name](), network(first["image"]).as_tensor(), first["label"].as_tensor()
    )
    firsts = {}
    for is_monais in (False, True):
        loss = MaskInTarget(MAKE[name](), is_monais)
        trainer = trainer_of(copy.deepcopy(network), loss, batches, epochs=1)
        seen = losses_of(trainer)
        trainer.run()
        firsts[is_monais] = seen[0]
    assert firsts[False] == pytest.approx(expected, rel=1e-6)
    assert firsts[True] != pytest.approx(expected, rel=1e-4)


class InBfloat16(SimpleInferer):
    """What amp=True with bfloat16 is on an accelerator."""

    def __call__(self, inputs: Tensor, network: nn.Module, *args, **kwargs) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            answer = super().__call__(inputs, network, *args, **kwargs)
        assert answer.dtype == torch.bfloat16
        return answer


@every_loss
def test_bfloat16_trains_close_to_single_precision(name):
    start = tiny(out_channels=channels_of(name, False))
    runs = []
    for inferer in (None, InBfloat16()):
        trainer = trainer_of(copy.deepcopy(start), MAKE[name](), loader(), inferer=inferer)
        runs.append(losses_of(trainer))
        trainer.run()
    assert runs[1] == pytest.approx(runs[0], rel=0.1)


@pytest.mark.filterwarnings("ignore:.*(CUDA|cuda):")  # MONAI's: there is none here
def test_amp_does_nothing_on_a_cpu():
    """The reason for `InBfloat16`: an engine's own amp=True shows nothing here."""
    runs = []
    for amp in (False, True):
        trainer = trainer_of(tiny(), HardMiningLoss(), loader(), amp=amp)
        runs.append(losses_of(trainer))
        trainer.run()
    assert runs[0] == runs[1]


@every_loss
def test_bfloat16_logits_under_autocast(name):
    generator = torch.Generator().manual_seed(0)
    shape = (2, channels_of(name, False), 8, 8)
    label = (torch.rand((2, 1, 8, 8), generator=generator) < 0.1).float()
    logits = torch.randn(shape, generator=generator).bfloat16()
    values, gradients = [], []
    for is_half in (True, False):
        given = (logits if is_half else logits.float()).clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            value = MAKE[name]()(MetaTensor(given), MetaTensor(label))
        value.backward()
        assert value.dtype == torch.float32
        assert type(value) is Tensor  # MetaTensor's notes cost more than our formulas
        values.append(value.item())
        gradients.append(given.grad.float())
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.01, atol=1e-6)


@every_loss
def test_set_determinism_makes_two_runs_equal_to_the_bit(name):
    runs = []
    try:
        for _ in range(2):
            set_determinism(7)
            network = tiny(out_channels=channels_of(name, False))
            trainer = trainer_of(network, MAKE[name](), loader(is_random=True), epochs=3)
            seen = losses_of(trainer)
            trainer.run()
            runs.append((seen, [p.detach().clone() for p in network.parameters()]))
    finally:
        set_determinism(None)
    (one, one_weights), (two, two_weights) = runs
    assert one == two
    assert all(map(torch.equal, one_weights, two_weights))


def with_progress(trainer, loss):
    """A BiasCompensatedLoss is told its epoch, the same way in every run."""
    for part in loss.modules():
        if isinstance(part, BiasCompensatedLoss):
            trainer.add_event_handler(
                Events.EPOCH_COMPLETED,
                lambda engine, p=part: p.set_progress(engine.state.epoch / 4),
            )
    return trainer


@every_loss
def test_a_checkpoint_brings_loss_network_and_optimizer_back(name, tmp_path):
    """Stopped after two epochs and loaded into fresh objects, it ends as if never stopped."""

    def parts(seed):
        network = tiny(seed=seed, out_channels=channels_of(name, False))
        optimizer = torch.optim.Adam(network.parameters(), 0.03)
        return {"network": network, "optimizer": optimizer, "loss": MAKE[name]()}

    def run(kept, epochs, *handlers, load=None):
        everything = dict(kept)
        trainer = trainer_of(
            kept["network"], kept["loss"], loader(), epochs=epochs, optimizer=kept["optimizer"]
        )
        everything["trainer"] = trainer
        with_progress(trainer, kept["loss"])
        if load is None:
            saver = CheckpointSaver(
                str(tmp_path), everything, save_final=True, final_filename="a.pt"
            )
            saver.attach(trainer)
        else:
            CheckpointLoader(str(load), everything).attach(trainer)
        trainer.run()
        return kept

    whole = run(parts(0), 4)
    stopped = run(parts(0), 2)
    resumed = run(parts(1), 4, load=tmp_path / "a.pt")
    for key in ("network", "loss"):
        got, wanted = resumed[key].state_dict(), whole[key].state_dict()
        assert list(got) == list(wanted)
        assert all(torch.equal(got[k], wanted[k]) for k in got)
    assert not torch.equal(
        next(stopped["network"].parameters()), next(whole["network"].parameters())
    )


@pytest.mark.parametrize(
    ("loss", "state"),
    [(MAKE["BiasCompensatedLoss"](), "progress"), (RangeLoss(), "n_calls")],
)
def test_a_loss_with_a_state_has_it_in_its_checkpoint(loss, state):
    """Else the test above would compare nothing."""
    assert state in loss.state_dict()


def test_sliding_windows_are_stitched_before_they_are_scored():
    """The windows' outputs, of a network that sees one pixel, are those of the whole image."""
    network = nn.Conv2d(1, 2, 1)
    batches = loader()
    found = SegmentationScores()
    evaluator = evaluator_of(network, batches, decollate=False)
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: found.update(engine.state.output["pred"], engine.state.output["label"]),
    )
    evaluator.run()
    whole = SegmentationScores()
    for batch in batches:
        whole.update(network(batch["image"]), batch["label"])
    assert found.iou() == whole.iou()
    assert found.average_precision() == pytest.approx(whole.average_precision(), abs=1e-6)


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (torch.full((1, 1, 4, 4), 3.0), r"Expected `target` between 0 and 1, got 3"),
        (torch.full((1, 1, 4, 4), 255.0), r"Expected `target` between 0 and 1, got 255"),
        (torch.zeros(1, 3, 4, 4), r"Expected `target` of the shape .* got \(1, 3, 4, 4\)"),
        (torch.full((1, 1, 4, 4), 0.5), r"Expected `target` to hold class indices, got 0.5"),
    ],
)
def test_bad_targets_stop_the_engine_with_one_sentence(label, told):
    batch = {"image": MetaTensor(torch.zeros(1, 1, 4, 4)), "label": MetaTensor(label)}
    trainer = trainer_of(tiny(), HardMiningLoss(), [batch])
    trainer.logger.disabled = True  # ignite prints the traceback, too
    with pytest.raises(ValueError, match=told):
        trainer.run()
