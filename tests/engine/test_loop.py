"""The loop, on a task of two lines: it knows no task by name, and forgets nothing."""

from __future__ import annotations

import gc
import math
import os
import signal

import numpy as np
import pytest
import torch

from dense_imb.base.random import epoch_order
from dense_imb.engine import Callback, Interrupted, LoopSettings, TrainingError, load_checkpoint
from dense_imb.engine.checkpoint import newest_checkpoint
from dense_imb.engine.loop import Loop
from dense_imb.engine.schedule import rate_factor, step_seed
from dense_imb.losses import BiasCompensatedLoss
from tests.runs.tiny import Dropping, Line, Remembering, assert_same_content, loop_of


class Signal(Callback):
    """Sends a signal to this process after a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times

    def on_step(self, loop: Loop) -> None:
        if loop.state.step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


class Steps(Callback):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step(self, loop: Loop) -> None:
        self.seen.append(loop.state.step)


def dropping_line() -> Line:
    task = Line(network=None)
    torch.manual_seed(0)
    task.network = Dropping()
    task.loss = Remembering()
    return task


def test_a_line_is_learnt():
    task = Line()
    state = loop_of(task, steps=200, schedule="cosine").run()
    assert state.best > -1e-2
    assert task.network.weight.item() == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("make", [Line, dropping_line])
def test_a_run_stopped_after_any_step_ends_as_if_it_had_not_been(tmp_path, make):
    whole = loop_of(make(), tmp_path / "whole")
    whole.run()
    wanted = whole.snapshot()
    for step in range(1, 12):
        folder, steps = tmp_path / str(step), Steps()
        with pytest.raises(Interrupted, match=f"SIGTERM after step {step}, saved"):
            loop_of(make(), folder, callbacks=[steps, Signal(step)]).run()
        again = loop_of(make(), folder, callbacks=[steps])
        again.run(resume=True)
        assert_same_content(again.snapshot(), wanted)
        assert steps.seen == list(range(1, 13))


def test_a_run_stopped_after_every_step_ends_the_same(tmp_path):
    wanted = loop_of(dropping_line())
    wanted.run()
    for step in range(1, 12):
        with pytest.raises(Interrupted):
            loop_of(dropping_line(), tmp_path, callbacks=[Signal(step)]).run(resume=True)
    last = loop_of(dropping_line(), tmp_path)
    last.run(resume=True)
    assert_same_content(last.snapshot(), wanted.snapshot())


def test_when_it_saves_changes_nothing(tmp_path):
    often, seldom = loop_of(dropping_line(), tmp_path, save_every=0.0), loop_of(dropping_line())
    often.run()
    seldom.run()
    assert_same_content(often.snapshot(), seldom.snapshot())


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_every_signal_that_asks_to_stop_is_told(tmp_path, number):
    with pytest.raises(Interrupted) as stopped:
        loop_of(Line(), tmp_path, callbacks=[Signal(3, number)]).run()
    assert stopped.value.number == number
    assert load_checkpoint(tmp_path / "step-00000003.pt")["state"]["step"] == 3


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        loop_of(Line(), tmp_path, callbacks=[Signal(3, signal.SIGINT, times=2)]).run()


def test_a_signal_in_the_last_step_stops_nothing(tmp_path):
    assert loop_of(Line(), tmp_path, callbacks=[Signal(12)]).run().step == 12


def test_signals_mean_what_they_did_after_a_run(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    loop_of(Line(), tmp_path).run()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_resuming_where_nothing_is_starts_afresh(tmp_path):
    assert loop_of(Line(), tmp_path).run(resume=True).step == 12


def test_resuming_a_finished_run_does_nothing(tmp_path):
    loop_of(Line(), tmp_path).run()
    steps = Steps()
    assert loop_of(Line(), tmp_path, callbacks=[steps]).run(resume=True).step == 12
    assert steps.seen == []


class Faulty(Line):
    """A loss, or its gradient only, that is no number in one step."""

    def __init__(self, step: int, kind: str) -> None:
        super().__init__()
        self.left, self.kind = step, kind

    def cost(self, network, batch):
        cost = super().cost(network, batch)
        self.left -= 1
        if self.left == 0:
            if self.kind == "loss":
                return cost * math.nan
            return cost + 0 * torch.sqrt(0 * network.weight.sum())  # finite, of slope inf * 0
        return cost


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_what_is_no_number_stops_the_run_with_step_and_samples(tmp_path, kind):
    task = Faulty(8, kind)
    loop = loop_of(task, tmp_path)
    with pytest.raises(TrainingError, match=f"finite {kind}, got nan in step 8") as problem:
        loop.run()
    for sample in loop.samples_of(7):
        assert str(sample) in str(problem.value)
    kept = newest_checkpoint(tmp_path)
    assert kept is not None
    assert kept["state"]["step"] == 5
    assert all(torch.isfinite(value).all() for value in kept["network"].values())
    assert all(torch.isfinite(p).all() for p in task.network.parameters())


def test_infinity_is_no_number_either(tmp_path):
    class Infinite(Line):
        def cost(self, network, batch):
            return super().cost(network, batch) + math.inf

    with pytest.raises(TrainingError, match="finite loss, got inf in step 1 "):
        loop_of(Infinite(), tmp_path).run()


def test_an_epoch_is_a_permutation_and_each_has_its_own():
    orders = [epoch_order(50, 3, epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(50))
    assert len({tuple(order) for order in orders}) == 3
    assert not np.array_equal(epoch_order(50, 4, 0), orders[0])


def test_processes_share_the_samples_of_a_step():
    class Fake:
        num_processes = 1

        def __init__(self, process: int, of: int) -> None:
            self.process_index, self.num_processes = process, of

    loop = loop_of(Line(n_samples=23), batch_size=6)
    for step in (0, 2, 3, 7):
        wanted = loop.samples_of(step)
        shards = []
        for process in range(4):
            other = loop_of(Line(n_samples=23), batch_size=6)
            other.accelerator = Fake(process, 4)  # type: ignore[assignment]
            shards.append(other.samples_of(step))
        assert sorted(np.concatenate(shards)) == sorted(wanted)
    assert [loop.epoch_of(step) for step in (0, 2, 3, 7)] == [0, 0, 1, 2]


def test_seeds_of_steps_and_processes_differ():
    seeds = {step_seed(0, step, process) for step in range(50) for process in range(3)}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_the_rate_is_never_above_its_peak_nor_zero_before_the_end(schedule):
    factors = [rate_factor(schedule, i / 1000) for i in range(1000)]
    assert max(factors) == pytest.approx(1, abs=1e-4)
    assert min(factors) > 0


def test_clipping_bounds_the_gradient():
    task = Line()
    loop = loop_of(task, clip=1e-3, steps=1)
    norms = []
    step = loop.optimizer.step
    loop.optimizer.step = lambda: (
        norms.append(math.hypot(*(float(p.grad.norm()) for p in task.network.parameters()))),
        step(),
    )
    loop.run()
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)


def test_tensors_do_not_pile_up():
    counts = []

    class Count(Callback):
        def on_step(self, loop: Loop) -> None:
            if loop.state.step in (100, 300, 500, 599):
                gc.collect()
                counts.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))

    gc.freeze()  # older objects are not counted
    loop_of(Line(), steps=600, callbacks=[Count()], validate_every=50).run()
    gc.unfreeze()
    assert max(counts[1:]) <= counts[0]


def test_batches_made_ahead_are_the_same_in_the_same_order(tmp_path, monkeypatch):
    here, there = Line(), Line()
    loop_of(here, tmp_path / "here").run()
    monkeypatch.setattr(Loop, "_makes_ahead", True)
    with pytest.raises(Interrupted):
        loop_of(there, tmp_path / "there", callbacks=[Signal(4)]).run()
    made = len(there.seen)
    assert made <= 5, "one batch ahead, no more"
    again = Line()
    loop_of(again, tmp_path / "there").run(resume=True)
    assert there.seen[:4] + again.seen == here.seen
    assert torch.equal(again.network.weight, here.network.weight)


def test_a_problem_in_the_thread_that_makes_batches_is_raised(monkeypatch):
    class Broken(Line):
        def batch(self, samples, epoch, device):
            if len(self.seen) == 3:
                raise OSError("the file is gone")
            return super().batch(samples, epoch, device)

    monkeypatch.setattr(Loop, "_makes_ahead", True)
    steps = Steps()
    with pytest.raises(OSError, match="the file is gone"):
        loop_of(Broken(), callbacks=[steps]).run()
    assert steps.seen == [1, 2, 3]


def test_the_samples_of_a_step_do_not_depend_on_what_was_asked_before():
    loop = loop_of(Line())
    first = [tuple(loop.samples_of(step)) for step in range(20)]
    assert [tuple(loop.samples_of(step)) for step in reversed(range(20))] == first[::-1]


def test_what_is_not_trained_keeps_its_batch_statistics_and_drops_nothing(tmp_path):
    task = dropping_line()
    task.network.layers[0].requires_grad_(False)
    task.network.layers[1].requires_grad_(False)
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    modes = []

    class Modes(Callback):
        def on_step(self, loop: Loop) -> None:
            modes.append([layer.training for layer in task.network.layers])

    loop_of(task, callbacks=[Modes()]).run()
    after = task.network.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == ["layers.3.weight", "layers.3.bias"]
    assert modes[0][:2] == [False, False]  # after a validation, too
    assert [mode[:2] for mode in modes] == [[False, False]] * 12
    assert modes[0][3]


def test_batch_statistics_of_what_is_trained_move():
    task = dropping_line()
    before = task.network.layers[1].running_mean.clone()
    loop_of(task).run()
    assert not torch.equal(before, task.network.layers[1].running_mean)


class Classes(Line):
    """A line of two logits, and a loss that is told how far the run is."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Linear(1, 2)  # after the seed
        self.loss = BiasCompensatedLoss([30, 3])
        self.told: list[float] = []

    def cost(self, network, batch):
        self.told.append(float(self.loss.progress))
        return self.loss(network(batch[0]), (batch[0][:, 0] > 0.5).long())

    def validate(self, network, device, process, n_processes):
        return {"accuracy": float(network(torch.ones(1, 1))[0, 1])}


def test_a_loss_with_a_schedule_is_told_which_share_is_done_and_is_resumed(tmp_path):
    whole = loop_of(Classes(), tmp_path / "whole")
    whole.run()
    assert whole.task.told == pytest.approx([step / 12 for step in range(12)])
    stored = newest_checkpoint(tmp_path / "whole")["loss"]
    assert float(stored["progress"]) == pytest.approx(11 / 12)
    first = loop_of(Classes(), tmp_path / "run", callbacks=[Signal(7)])
    with pytest.raises(Interrupted):
        first.run()
    again = loop_of(Classes(), tmp_path / "run")
    again.run(resume=True)
    assert first.task.told + again.task.told == whole.task.told
    assert_same_content(again.snapshot(), whole.snapshot())


def test_the_share_of_the_weights_that_move_is_part_of_the_setup():
    task = Line()
    assert "parts" not in loop_of(task).setup()
    loop = Loop(task, torch.optim.SGD([task.network.weight], 0.1), LoopSettings(3, 4))
    assert loop.setup()["parts"] == "1 of 2 weights"
