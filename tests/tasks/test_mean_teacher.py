"""A task that learns from unlabelled samples: its teacher, its cost, and its resume."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb.data.epochs.samplers import ClassSampling
from dense_imb.engine import Callback, CheckpointError, Interrupted
from dense_imb.tasks.mean_teacher import SemiSupervised
from tests.cli.test_train_command import ENVIRONMENT
from tests.engine.test_loop import Signal
from tests.limits import HANG_SECONDS
from tests.runs.labelled_pictures import write_tables
from tests.runs.semi import semi_classes, semi_hits
from tests.runs.tiny import assert_same_content, clean_events, loop_of, write_events

CPU = torch.device("cpu")
MAKERS = {"classes": semi_classes, "hits": semi_hits}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    hits = write_events(folder / "clean.h5", clean_events(40))
    return {"classes": write_tables(folder), "hits": hits}


@pytest.fixture(params=MAKERS)
def made(request, places):
    """Makes the task afresh."""
    return lambda **options: MAKERS[request.param](places[request.param], **options)


class Following(Callback):
    """The weights after each step, of the network and of the teacher."""

    def __init__(self, task: SemiSupervised) -> None:
        self.task = task
        self.network = [flat_weights(task.network)]
        self.teacher = [flat_weights(task.teacher.network)]

    def on_step(self, loop) -> None:
        self.network.append(flat_weights(self.task.network))
        self.teacher.append(flat_weights(self.task.teacher.network))


def flat_weights(network) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in network.parameters()])


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_the_teacher_follows_with_the_stated_decay(made, decay):
    task = made(decay=decay)
    following = Following(task)
    loop_of(task, callbacks=[following]).run()
    teacher = following.network[0]
    torch.testing.assert_close(following.teacher[0], teacher)
    for n, network in enumerate(following.network[1:], 1):
        d = min(decay, n / (9 + n))
        teacher = d * teacher + (1 - d) * network
        torch.testing.assert_close(following.teacher[n], teacher, rtol=1e-4, atol=1e-6)
    assert (following.network[-1] - following.teacher[-1]).abs().max() > 1e-4
    pairs = zip(task.network.buffers(), task.teacher.network.buffers(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert task.teacher.n_steps == 12


@pytest.mark.parametrize("sampling", ["instance", "reverse"])
def test_a_resume_is_exact_to_the_bit_with_the_teacher(made, sampling, tmp_path):
    whole = loop_of(made(sampling=sampling, ratio=2), tmp_path / "whole")
    whole.run()
    assert float(whole.task.teacher.sure.sum()) > 0
    assert bool(whole.task.teacher.content.any()) == (sampling == "reverse")
    for step in (3, 5, 7):  # before, at and after a validation
        folder = tmp_path / str(step)
        stopped = loop_of(made(sampling=sampling, ratio=2), folder, callbacks=[Signal(step)])
        with pytest.raises(Interrupted):
            stopped.run()
        again = loop_of(made(sampling=sampling, ratio=2), folder)
        again.run(resume=True)
        assert_same_content(again.snapshot(), whole.snapshot())


def test_a_resume_with_other_unlabelled_data_is_refused(made, tmp_path):
    loop_of(made(), tmp_path / "run", steps=3).run()
    for options in ({"ratio": 2}, {"decay": 0.9}, {"threshold": 0.7}, {"sampling": "class"}):
        with pytest.raises(CheckpointError, match="unlabelled"):
            loop_of(made(**options), tmp_path / "run", steps=3).run(resume=True)


def test_a_resume_with_other_files_is_refused(tmp_path):
    paths = [write_events(tmp_path / f"{k}.h5", clean_events(40, seed=k)) for k in range(2)]
    loop_of(semi_hits(paths[0]), tmp_path / "run", steps=3).run()
    other = semi_hits(paths[0])
    other.unlabelled = semi_hits(paths[1]).unlabelled
    with pytest.raises(CheckpointError, match="unlabelled: 18 events from 12 .* there, 18"):
        loop_of(other, tmp_path / "run", steps=3).run(resume=True)


def test_a_ratio_of_three_gives_three_times_the_views(made):
    task = made(ratio=3)
    batch = task.batch(np.array([3, 4]), 0, CPU)  # neighbours share no view
    pseudo, _ = task.unlabelled.label_views(task.teacher.network, batch.unlabelled, 0.9)
    assert len(batch.shown) == 2
    assert len(pseudo.shown) == 6
    assert len({one.numpy().tobytes() for one in pseudo.shown}) == 6
    later = task.batch(np.array([4]), 0, CPU)
    alone, _ = task.unlabelled.label_views(task.teacher.network, later.unlabelled, 0.9)
    assert torch.equal(alone.shown, pseudo.shown[3:])


def parts(task: SemiSupervised, batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two losses and the share that the teacher is sure of."""
    pseudo, sure = task.unlabelled.label_views(
        task.teacher.network, batch.unlabelled, task.threshold
    )
    task.network.eval()  # batch statistics would mix the two
    with torch.no_grad():
        labelled = task.task.cost(task.network, batch.labelled)
        of_pseudo = task.unlabelled.cost(task.network(pseudo.shown).float(), pseudo)
    return labelled, of_pseudo, sure.sum()


def test_the_weight_grows_over_the_ramp(made):
    task = made(ramp_steps=4, weight=0.7)
    loop_of(task).run()
    batch = task.batch(np.arange(4), 0, CPU)
    labelled, of_pseudo, sure = parts(task, batch)
    assert sure > 0
    for done, ramp in ((0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)):
        task.follow(task.network, done)
        task.teacher.network.load_state_dict(task.network.state_dict())
        labelled, of_pseudo, sure = parts(task, batch)
        cost = task.cost(task.network, batch)
        wanted = labelled + 0.7 * ramp * sure * of_pseudo
        torch.testing.assert_close(cost, wanted, rtol=1e-4, atol=1e-5)
        assert (cost - labelled).abs() > 1e-4 or ramp == 0


def test_a_teacher_sure_of_nothing_adds_nothing(made):
    task = made(threshold=1 - 1e-7, ramp_steps=0)
    batch = task.batch(np.arange(4), 0, CPU)
    labelled, _, sure = parts(task, batch)
    assert sure == 0
    cost = task.cost(task.network, batch)
    torch.testing.assert_close(cost, labelled, rtol=1e-4, atol=1e-5)
    cost.backward()
    together = [p.grad.clone() for p in task.network.parameters()]
    task.network.zero_grad()
    task.task.cost(task.network, batch.labelled).backward()
    for mine, p in zip(together, task.network.parameters(), strict=True):
        torch.testing.assert_close(mine, p.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sampling", ["class", "reverse"])
def test_rare_pseudo_labels_are_shown_as_often_as_their_sampling_says(places, sampling):
    task = semi_classes(places["classes"], sampling=sampling)
    n = task.unlabelled.n_images
    label = np.where(np.arange(n) < n - 3, 0, 2)  # no image seems of class 1
    task.teacher.content.copy_(torch.from_numpy(label[:, None] == np.arange(3)))
    number = (np.arange(20_000) + 0.5) / 20_000
    got = np.bincount(task._places(number), minlength=n) / len(number)
    wanted = ClassSampling.of((label > 0).astype(int), sampling).probabilities()
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert got[-3:].sum() > (0.49 if sampling == "class" else 0.8)
    shown = [task.batch(np.array([i]), 0, CPU).unlabelled for i in range(60)]
    assert len({views.images.tobytes() for views in shown}) > 50  # few shifts there are


def test_the_teacher_is_asked_about_every_image_by_any_processes(made):
    task = made(sampling="mean")
    found = [torch.zeros_like(task.teacher.content) for _ in range(3)]
    for process in range(3):
        task.refresh(CPU, process, 3)
        found[process] = task.teacher.content.clone()
    task.refresh(CPU, 0, 1)
    assert torch.equal(sum(found), task.teacher.content)
    assert bool((task.teacher.content.sum(1) > 0).all())


def test_a_validation_tells_the_share_that_is_sure(made):
    task = made()
    row = loop_of(task, steps=4).run().history[-1]
    assert row["sure_share"] == float(task.teacher.sure.sum())
    shares = [row[f"sure_share_{k}"] for k in range(len(task.teacher.sure))]
    assert shares == task.teacher.sure.tolist()
    assert task.monitor in row


@pytest.mark.slow
def test_two_processes_have_one_teacher(places, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).parent / "pair_semi.py")
    command = [sys.executable, *torchrun, script, str(tmp_path), *places.values()]
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
