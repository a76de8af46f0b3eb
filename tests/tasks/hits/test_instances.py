"""Losses per instance of hits: the particles are the instances, and noise belongs to none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dense_imb.config import MixingConfig, UnlabelledConfig
from dense_imb.data.epochs.mixing import union
from dense_imb.hits import Events
from dense_imb.tasks.hits.frames import FramesTask
from dense_imb.tasks.hits.task import HitsTask
from dense_imb.tasks.hits.units import number_units, pad_events
from dense_imb.tasks.recipe import Recipe, build_task
from tests.runs.tiny import assert_same_runs, clean_events, tiny, write_events
from tests.tasks.hits.test_networks_of_hits import config, quiet, telescope_events

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
CPU = torch.device("cpu")
PER_INSTANCE = 'CrossEntropyLoss(per="instance")'


@pytest.fixture(scope="module")
def telescope(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "telescope.h5", telescope_events(24))


@pytest.fixture(scope="module")
def arcs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(24))


class Recording(nn.Module):
    """A loss of a user's that wants instances, and keeps what it is given."""

    per, feeds_on = "instance", "logits"

    def forward(self, logits, target, *, instance=None, mask=None):
        self.given = target, instance, mask
        return logits.square().mean()


def test_signal_hits_of_one_particle_have_one_number():
    events = telescope_events(3).torch()
    number = number_units(events, "particle")
    assert number.dtype == torch.int32
    assert ((number > 0) == (events.label > 0)).all()
    for k in range(3):
        own = events[k]
        numbers = number[events.event_index() == k]
        of_number: dict[int, set[tuple[int, int]]] = {}
        for n, *key in zip(
            *(one.tolist() for one in (numbers, own.label, own.hit["particle"])), strict=True
        ):
            if n:
                of_number.setdefault(n, set()).add((key[0], key[1]))
        assert sorted(of_number) == list(range(1, len(of_number) + 1))
        assert all(len(keys) == 1 for keys in of_number.values())
        assert len(set.union(*of_number.values())) == len(of_number)
    # the unit may be an event: one number for each of its classes
    assert number_units(events, "events").unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("over", ["hits", "particle"])
def test_the_loss_gets_the_particles_and_no_weights(telescope, over):
    task = build_task(config(telescope, {"balance_over": over}, loss=PER_INSTANCE))
    batch = task.batch(np.arange(4), 0, CPU)
    assert batch.weight is None
    events = task.train.degraded(np.arange(4), 0, task.train.clean(np.arange(4))).torch()
    assert torch.equal(batch.instance, number_units(events, "particle"))
    assert "over particle" in task.describe()["target"]
    loss = Recording()
    own = HitsTask(task.network, loss, task.data, task.reading)
    own.cost(own.network, batch)
    target, instance, mask = loss.given
    assert target.shape == instance.shape == mask.shape == (4, 39)
    assert mask.all()
    assert torch.equal(instance.flatten(), batch.instance)
    assert ((instance > 0) == (target > 0)).all()


def test_events_are_padded_and_ignored_hits_left_out():
    output = torch.arange(10.0).view(5, 2).requires_grad_()
    label, instance = torch.tensor([1, 0, 255, 0, 2]), torch.tensor([1, 0, 3, 0, 2])
    padded = pad_events(output, label, instance, torch.tensor([0, 0, 3, 5]))
    assert padded["logits"][2].tolist() == [[6, 8, 0], [7, 9, 0]]
    assert padded["label"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 2, 0]]
    assert padded["options"]["instance"].tolist() == [[0, 0, 0], [1, 0, 3], [0, 2, 0]]
    assert padded["options"]["mask"].tolist() == [
        [False] * 3, [True, True, False], [True, True, False],
    ]  # fmt: skip
    padded["logits"].sum().backward()
    assert (output.grad == 1).all()
    for n_events in (0, 2):
        nothing = pad_events(
            output[:0], label[:0], instance[:0], torch.zeros(n_events + 1, dtype=torch.long)
        )
        assert nothing["logits"].shape == (n_events, 2, 1)
        assert not nothing["options"]["mask"].any()


def test_each_particle_counts_the_same_and_so_does_the_noise_of_each_event(telescope):
    task = build_task(config(telescope, loss=PER_INSTANCE))
    batch = task.batch(np.arange(4), 0, CPU)
    output = torch.randn(len(batch.label), 1, generator=torch.Generator().manual_seed(0))
    error = nn.functional.binary_cross_entropy_with_logits(
        output[:, 0], batch.label.float(), reduction="none"
    )
    event = torch.repeat_interleave(batch.shown.offset.diff())
    means: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for one, number in sorted({*zip(event.tolist(), batch.instance.tolist(), strict=True)}):
        means[number > 0].append(error[(event == one) & (batch.instance == number)].mean())
    wanted = sum(torch.stack(of_class).mean() for of_class in means.values()) / 2
    torch.testing.assert_close(task.cost_of(output, batch), wanted)


def test_a_union_keeps_the_particles_of_both_events_apart(telescope):
    first, second = telescope_events(2, seed=1), telescope_events(2, seed=2)
    numbers = {"seed": 0, "epoch": 0, "samples": np.arange(2)}
    whole = [1.0, 1.0]

    def particles(events: Events) -> set[int]:
        return set(events.hit["particle"][events.label > 0].tolist())

    both = union(first, second, [0.5, 0.5], **numbers, apart="particle")
    plain = union(first, second, [0.5, 0.5], **numbers)
    assert len(particles(both)) > len(particles(plain))
    kept = union(first, second, whole, **numbers, apart="particle")
    np.testing.assert_array_equal(kept.hit["particle"], first.hit["particle"])
    np.testing.assert_array_equal(both.t, plain.t)
    mixing = MixingConfig("mixup", alpha=2.0)
    task = build_task(config(telescope, loss=PER_INSTANCE, mixing=mixing))
    batch = task.batch(np.arange(4), 0, CPU)
    assert task.cost(task.network, batch).isfinite()
    assert ((batch.instance > 0) == (batch.label > 0)).all()


def test_hits_without_particles_are_refused(arcs, telescope, tmp_path):
    sentence = (
        r"the particle of each hit for a loss per instance, in a column of the hits, got only .*; "
        "name another column with `hits.balance_over=COLUMN`, or keep that of the particle when"
    )
    with pytest.raises(ValueError, match=sentence):
        build_task(config(arcs, {"signal": 6, "noise": 20}, loss=PER_INSTANCE))
    task = build_task(
        config(arcs, {"signal": 6, "noise": 20, "balance_over": "events"}, loss=PER_INSTANCE)
    )
    assert task.batch(np.arange(3), 0, CPU).instance.max() == 1


def test_losses_of_frames_and_pseudo_labels_are_refused(arcs, telescope):
    sentence = r'A loss of frames takes no per="instance": a pixel .*; take `model.name=hits`'
    with pytest.raises(ValueError, match=sentence):
        Recipe.of(tiny(arcs, loss=PER_INSTANCE))
    task = build_task(tiny(arcs))
    with pytest.raises(ValueError, match=sentence):
        FramesTask(task.network, Recording(), task.data, task.reading)
    unlabelled = UnlabelledConfig(rest=True)
    wanted = config(telescope, loss=PER_INSTANCE, labelled_share=0.5, unlabelled=unlabelled)
    with pytest.raises(ValueError, match=r'A loss of pseudo-labels takes no per="instance"'):
        Recipe.of(wanted)
    unlabelled.loss = "CrossEntropyLoss"
    semi = build_task(wanted)
    semi.follow(semi.network, 0)
    assert semi.cost(semi.network, semi.batch(np.arange(2), 0, CPU)).isfinite()


def test_a_run_per_particle_is_repeated_to_the_bit(telescope, tmp_path):
    wanted = config(telescope, {"n_classes": 3}, loss=PER_INSTANCE)
    one, other = (quiet(wanted, tmp_path / name) for name in ("one", "other"))
    assert_same_runs(one.folder, other.folder)


def test_the_column_is_not_said_to_be_unused(telescope):
    assert "particle" in Recipe.of(config(telescope)).remark()
    assert "particle" not in Recipe.of(config(telescope, loss=PER_INSTANCE)).remark()
