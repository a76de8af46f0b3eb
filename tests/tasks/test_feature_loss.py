"""A loss of the features: it trains what is before the last layer, and leaves no trace behind."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dense_imb.config import MixingConfig
from dense_imb.data.images.labelled import IGNORED
from dense_imb.engine import Interrupted
from dense_imb.losses import RangeLoss, range_loss
from dense_imb.models import head_of
from dense_imb.runs import TrainConfig, train
from dense_imb.runs.write import RunFiles
from dense_imb.tasks.feature_loss import FeatureTerm, coarse_label, rank_of_rarity
from dense_imb.tasks.recipe import Recipe, build_task
from tests.cli.test_train_command import refused
from tests.engine.test_loop import Signal
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import (
    assert_same_content,
    assert_same_runs,
    clean_events,
    tiny,
    write_events,
)

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
CPU = torch.device("cpu")
# few pixels are drawn, so that the draw decides, and the margin is never reached
LOSS = "RangeLoss(k=1, margin=1000.0, intra_weight=0.01, max_pixels=4)"
KINDS = ("classifier", "segmenter", "denoiser")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "classifier": write_tables(folder / "table"),
        "segmenter": write_folders(folder / "pictures", n_classes=3),
        "denoiser": write_events(folder / "hits.h5", clean_events(24)),
    }


def config_of(kind: str, data: dict[str, Any], **changes: Any) -> TrainConfig:
    make = {"classifier": of_table, "segmenter": tiny_images, "denoiser": tiny}[kind]
    return make(data[kind], **{"feature_loss": LOSS, **changes})


def quiet(config: TrainConfig, folder: Path, **options: Any):
    return train(config, folder, is_quiet=True, **options)


def body_gradient(task: Any, batch: Any) -> dict[str, Tensor]:
    """Of the weights before the head, and of the head."""
    task.network.zero_grad()
    task.cost(task.network, batch).backward()
    return {
        name: torch.zeros(1) if weight.grad is None else weight.grad.clone()
        for name, weight in task.network.named_parameters()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_body_learns_from_it_and_the_head_does_not(data, kind):
    with_term, plain = (
        build_task(config_of(kind, data, feature_loss=loss)) for loss in (LOSS, None)
    )
    batch = plain.batch(np.arange(4), 0, CPU)
    got, without = (body_gradient(task, batch) for task in (with_term, plain))
    head = {
        name
        for name, w in plain.network.named_parameters()
        if w in set(head_of(plain.network).parameters())
    }
    assert len(head) == 2
    differ = {name for name in got if not torch.equal(got[name], without[name])}
    assert differ
    assert not differ & head


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_is_the_sum_of_both_losses(data, kind):
    task = build_task(config_of(kind, data))
    caught = []
    head_of(task.network).register_forward_pre_hook(lambda head, fed: caught.append(fed[0]))
    batch = task.batch(np.arange(4), 0, CPU)
    total = task.cost(task.network, batch).detach()
    label = task.feature_label(batch)
    if label.dim() > 1:
        label = coarse_label(
            label, caught[0].shape[2:], task.network.padded(label.shape[1:]), task.features.rank
        )
    alone = RangeLoss(k=1, margin=1000.0, intra_weight=0.01, max_pixels=4, ignore_index=IGNORED)(
        caught[0].detach(), label
    )
    assert float(alone) > 0
    assert task.features.value == alone
    with torch.no_grad():
        plain = task.cost_of(task.network(batch.shown), batch)
    assert float(total) == pytest.approx(float(plain + alone))


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_same_to_the_bit(data, tmp_path, monkeypatch, kind):
    config = config_of(kind, data)
    quiet(config, tmp_path / "whole")
    signal_at = Signal(7)
    monkeypatch.setattr(RunFiles, "on_step", lambda self, loop: signal_at.on_step(loop))
    with pytest.raises(Interrupted):
        quiet(config, tmp_path / "again")
    monkeypatch.undo()
    run = quiet(config, tmp_path / "again", resume=True)
    assert_same_runs(tmp_path / "again", tmp_path / "whole")
    # a call each step: neither validations nor looks at the gradient are among them
    assert run.checkpoint("last")["loss"]["features.loss.n_calls"] == config.steps
    rows = run.history
    assert all(row["loss_features"] > 0 for row in rows)
    assert len({row["loss_features"] for row in rows}) == len(rows)


def test_looking_on_changes_nothing_and_keeps_nothing(data):
    task = build_task(config_of("segmenter", data))
    batch = task.batch(np.arange(4), 0, CPU)
    before = copy.deepcopy(task.loss.state_dict())
    task.gradient_shares(task.network, batch)
    with torch.no_grad():
        task.validate(task.network, CPU, 0, 1)
    assert_same_content(task.loss.state_dict(), before)
    assert task.features._caught is None
    task.cost(task.network, batch)
    assert task.features._caught is None
    assert task.features.loss.n_calls == 1


def test_the_first_samples_alone_can_be_asked_for(data):
    """As a task does whose network sees unlabelled images in the same pass."""
    one, both = (build_task(config_of("segmenter", data)) for _ in range(2))
    batch, more = (one.batch(samples, 0, CPU) for samples in (np.arange(3), np.arange(3, 8)))
    one.network(batch.shown)
    both.network(torch.cat([batch.shown, more.shown]))
    torch.testing.assert_close(one.feature_cost(batch, 3), both.feature_cost(batch, 3))


def test_a_frozen_body_has_no_term(data):
    task = build_task(config_of("classifier", data))
    for name, weight in task.network.named_parameters():
        weight.requires_grad_(name.startswith("head"))
    batch = task.batch(np.arange(4), 0, CPU)
    task.cost(task.network, batch).backward()
    assert task.features.value is None
    assert task.features.loss.n_calls == 0


def slowly_coarse(label: Any, cells: Any, frame: Any, counts: Any) -> Any:
    """The rarest class of each cell, with loops."""
    found = np.full((len(label), *cells), IGNORED)
    step = [side // n for side, n in zip(frame, cells, strict=True)]
    for place in np.ndindex(found.shape):
        image, row, column = place
        for y in range(row * step[0], (row + 1) * step[0]):
            for x in range(column * step[1], (column + 1) * step[1]):
                if y >= label.shape[1] or x >= label.shape[2] or label[image, y, x] == IGNORED:
                    continue
                best, new = found[place], label[image, y, x]
                if best == IGNORED or counts[new] < counts[best]:
                    found[place] = new
    return found


@pytest.mark.parametrize("halvings", [1, 2])
def test_coarse_labels_have_the_rarest_class_of_each_cell(halvings):
    rng = np.random.default_rng(0)
    counts = [900, 3, 50, 700]
    label = rng.choice([0, 1, 2, 3, IGNORED], (3, 13, 18), p=[0.5, 0.02, 0.06, 0.12, 0.3])
    label[0, :4, :4] = IGNORED
    frame = (16, 24)
    cells = tuple(side >> halvings for side in frame)
    got = coarse_label(torch.tensor(label), cells, frame, rank_of_rarity(counts))
    expected = slowly_coarse(label, cells, frame, counts)
    assert (expected == IGNORED).any()
    assert set(np.unique(expected)) == {0, 1, 2, 3, IGNORED}
    np.testing.assert_array_equal(got.numpy(), expected)


def test_features_of_padded_frames_have_the_labels_of_their_own_pixels(data):
    """12 rows become 16 before they are halved."""
    config = config_of(
        "denoiser", data, hits={"pixels": "frame"}, model={"options": {"widths": [4, 4, 8]}}
    )
    task = build_task(config)
    asked: list[tuple[Tensor, Tensor]] = []

    class Noting(RangeLoss):
        def forward(self, features: Tensor, label: Tensor, *, mask: Tensor | None = None) -> Any:
            assert mask is not None
            asked.append((features, label.masked_fill(~mask, IGNORED)))
            return super().forward(features, label, mask=mask)

    task.features.loss = Noting()
    batch = task.batch(np.arange(4), 0, CPU)
    task.cost(task.network, batch)
    ((features, label),) = asked
    assert batch.shown.shape[2:] == (12, 16)
    assert features.shape[2:] == (8, 8)
    own = batch.is_signal[:, 0].long().numpy()
    expected = slowly_coarse(own, (8, 8), (16, 16), task.class_counts)
    np.testing.assert_array_equal(label.numpy(), expected)
    assert (label[:, 6:] == IGNORED).all()


def test_coarse_labels_of_volumes():
    label = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    label[0, 3, 0, 2] = 1
    got = coarse_label(label, (2, 2, 2), (4, 4, 4), rank_of_rarity([9, 1]))
    assert got.nonzero().tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize("pixels", ["lit", "frame"])
def test_a_denoiser_compares_the_pixels_that_its_loss_sees(data, pixels):
    task = build_task(config_of("denoiser", data, hits={"pixels": pixels}))
    batch = task.batch(np.arange(4), 0, CPU)
    label = task.feature_label(batch)
    is_lit = torch.zeros(label.numel(), dtype=torch.bool)
    is_lit[batch.lit] = True
    is_seen = is_lit.view_as(label) if pixels == "lit" else torch.ones_like(label).bool()
    assert torch.equal(label != IGNORED, is_seen)
    assert torch.equal(label[is_seen] > 0, batch.is_signal[:, 0][is_seen] > 0)
    assert is_lit.sum() < is_lit.numel() / 4


def test_ignored_pixels_have_no_part():
    """Features under ignored pixels get no gradient."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 1, 1)

        def forward(self, frames: Tensor) -> Tensor:
            self.features = self.body(frames)
            self.features.retain_grad()
            answer: Tensor = self.head(self.features)
            return answer

    torch.manual_seed(0)
    network = Plain()
    term = FeatureTerm(network, RangeLoss(k=1, margin=1000.0, intra_weight=1.0))
    label = torch.tensor([[[0, 1, 0], [IGNORED, 1, IGNORED]]])
    network(torch.randn(1, 1, 2, 3))
    cost = term.cost(label, 1)
    cost.backward()
    has_gradient = network.features.grad.abs().sum(1) > 0
    assert torch.equal(has_gradient, label != IGNORED)
    kept = (label != IGNORED).flatten()
    features = network.features.detach().movedim(1, -1).reshape(-1, 3)[kept]
    expected = range_loss(features, label.flatten()[kept], k=1, margin=1000.0, intra_weight=1.0)
    torch.testing.assert_close(cost.detach(), expected)


def test_half_precision_is_close_to_full(data):
    tasks = [build_task(config_of("classifier", data)) for _ in range(2)]
    batch = tasks[0].batch(np.arange(8), 0, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        half = tasks[0].cost(tasks[0].network, batch)
    full = tasks[1].cost(tasks[1].network, batch)
    assert float(half.detach()) == pytest.approx(float(full.detach()), rel=0.03)


def test_a_run_without_it_is_told_as_before(data):
    plain, with_term = (
        build_task(config_of("classifier", data, feature_loss=loss)).describe()
        for loss in (None, LOSS)
    )
    assert "RangeLoss" in with_term["feature loss"]
    assert {**plain, "feature loss": with_term["feature loss"]} == dict(with_term)
    assert plain["loss"].startswith("CrossEntropyLoss(")


def test_a_run_is_not_taken_up_without_its_loss_of_features(data, tmp_path):
    quiet(config_of("classifier", data, steps=2), tmp_path)
    with pytest.raises(ValueError, match="feature_loss: RangeLoss.* there, None here"):
        quiet(config_of("classifier", data, steps=2, feature_loss=None), tmp_path, resume=True)


REFUSED = [
    ({"feature_loss": "CrossEntropyLoss"}, "Expected a loss of features, .* a loss of logits"),
    ({"feature_loss": "torch.nn:MSELoss"}, "Expected a loss of features, .* a loss of values"),
    ({"feature_loss": "0.5 * RangeLoss"}, "weights of its own, got '0.5 \\* RangeLoss'"),
    ({"feature_loss": "RangeLoss + RangeLoss"}, "Expected one loss of features"),
    ({"feature_loss": "RangeLoss(k=0)"}, "Expected options that RangeLoss takes"),
    ({"feature_loss": "antigravity:Fly"}, "nothing else is imported"),
    ({"mixing": MixingConfig("mixup")}, "Expected no mixing with a `feature_loss`, got mixup"),
    ({"compile": True}, "`compile` and `feature_loss` exclude each other"),
    (
        {"optimizer": {"parts": "head"}},
        "`optimizer.parts=head` and `feature_loss` exclude each other",
    ),
    ({"loss": "RangeLoss"}, "a loss of the output, got .*, a loss of features; use `feature_loss`"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_read(data, changes, sentence):
    for kind in KINDS:
        with pytest.raises(ValueError, match=sentence) as told:
            Recipe.of(config_of(kind, data, **changes))
        assert "\n" not in str(told.value)


def test_the_command_refuses_in_one_line(data, tmp_path, capsys):
    typed = ["train", "hits", "--out", str(tmp_path / "run"), "--hits.train", data["denoiser"]]
    told = refused(capsys, [*typed, "--hits.noise", "20", "--feature_loss", "FocalLoss"])
    assert "Expected a loss of features" in told
    assert not (tmp_path / "run").exists()


def test_united_hits_are_not_mixed_features(data):
    config = config_of("denoiser", data, mixing=MixingConfig("mixup"), hits={"mixing": "union"})
    Recipe.of(config)
    task = build_task(config)
    assert math.isfinite(task.cost(task.network, task.batch(np.arange(4), 0, CPU)).detach())


def test_a_network_that_does_not_call_its_last_layer_is_refused():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    term = FeatureTerm(network, RangeLoss())
    network[0](torch.zeros(1, 2))
    with pytest.raises(ValueError, match="calls its last layer, Linear"):
        term.cost(torch.zeros(1), 1)


def test_coarse_features_want_counts():
    network = nn.Sequential(nn.Conv2d(1, 2, 2, 2), nn.ConvTranspose2d(2, 1, 2, 2))
    term = FeatureTerm(network, RangeLoss())
    network(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="Expected `class_counts` of the training set"):
        term.cost(torch.zeros(1, 4, 4), 1, (4, 4))
