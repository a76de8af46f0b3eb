"""What looks on: it warns once, stops, rolls back, and forgets nothing over a resume."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import pytest
import torch

from dense_imb.engine import (
    Callback,
    CollapseAlarm,
    CollapseWarning,
    EarlyStopping,
    GradientShares,
    Interrupted,
    ProgressBar,
    load_checkpoint,
    save_checkpoint,
)
from dense_imb.engine.loop import Loop
from tests.engine.test_loop import Signal
from tests.runs.tiny import Line, assert_same_content, loop_of

GOOD = {"auc": 0.9, "recall_at_half": 0.8, "lit_at_half": 0.3}
CHANCE = {"auc": 0.5, "recall_at_half": 0.5, "lit_at_half": 0.5}
BLANK = {"auc": 0.9, "recall_at_half": 0.0, "lit_at_half": 0.0}
LIT = {"auc": 0.9, "recall_at_half": 1.0, "lit_at_half": 1.0}
NOTHING = {"auc": math.nan, "recall_at_half": 0.5, "lit_at_half": 0.5}


class Scripted(Line):
    """Validations come out as written, the last one again and again."""

    def __init__(self, *scores: dict[str, float], accuracy: tuple[float, ...] = (0.0,)) -> None:
        super().__init__()
        self.scores, self.accuracy = scores or (GOOD,), accuracy

    def validate(self, network, device, process, n_processes):
        i = self.loop.state.step - 1
        scores = self.scores[min(i, len(self.scores) - 1)]
        return {**scores, "accuracy": self.accuracy[min(i, len(self.accuracy) - 1)]}


def scripted(task: Scripted, folder: Path | None, *callbacks: Callback, **settings) -> Loop:
    task.loop = loop_of(task, folder, callbacks=callbacks, validate_every=1, **settings)
    return task.loop


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (CHANCE, "no better than chance .*balanced loss"),
        (NOTHING, "no better than chance"),
        (BLANK, r"calls nothing signal at a probability of 1/2 .*\(BalancedSoftmaxLoss\)"),
        (LIT, "predicts signal everywhere .*balanced loss"),
    ],
)
def test_a_collapse_is_told_once_with_its_cure(scores, told):
    with pytest.warns(CollapseWarning, match=told) as caught:
        state = scripted(Scripted(scores), None, CollapseAlarm()).run()
    assert len(caught) == 1
    assert state.stop is None


@pytest.mark.parametrize("scores", [(GOOD,), (CHANCE, GOOD), (GOOD, BLANK, GOOD, BLANK, GOOD)])
def test_a_healthy_run_is_left_alone(scores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scripted(Scripted(*scores), None, CollapseAlarm()).run()


def test_a_second_collapse_is_told_again():
    scores = (CHANCE, CHANCE, CHANCE, GOOD, CHANCE)
    with pytest.warns(CollapseWarning) as caught:
        scripted(Scripted(*scores), None, CollapseAlarm()).run()
    assert [str(w.message).partition(":")[0] for w in caught] == ["step 3", "step 6"]


def test_a_young_network_is_not_judged_but_one_without_gradient_is():
    late = CollapseAlarm(grace=0.5)
    with pytest.warns(CollapseWarning, match="^step 6: .*no better than chance"):
        scripted(Scripted(CHANCE), None, late).run()
    dead = {**GOOD, "gradient_share_signal": math.nan}
    with pytest.warns(CollapseWarning, match="^step 2: .*no gradient"):
        scripted(Scripted(dead), None, CollapseAlarm(grace=0.5)).run()
    with pytest.raises(ValueError, match="`grace`"):
        CollapseAlarm(grace=1.5)


def test_a_blank_network_is_not_called_harmless():
    scores = {**BLANK, "average_precision": 0.18}
    with pytest.warns(CollapseWarning) as caught:
        scripted(Scripted(scores), None, CollapseAlarm()).run()
    message = str(caught[0].message)
    assert "harmless" not in message
    assert "average_precision 0.1800" in message
    assert "lit pixels" not in message


def test_the_cure_is_that_of_the_task():
    task = Scripted(CHANCE)
    task.balance_cure = "look at lit pixels"
    with pytest.warns(CollapseWarning, match="; look at lit pixels"):
        scripted(task, None, CollapseAlarm()).run()


def test_a_collapse_is_not_told_again_after_a_resume(tmp_path):
    with pytest.warns(CollapseWarning), pytest.raises(Interrupted):
        scripted(Scripted(CHANCE), tmp_path, CollapseAlarm(), Signal(5)).run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scripted(Scripted(CHANCE), tmp_path, CollapseAlarm()).run(resume=True)


@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_a_run_of_chance_is_stopped_where_asked():
    state = scripted(Scripted(GOOD, GOOD, CHANCE), None, CollapseAlarm("stop", patience=3)).run()
    assert state.step == 5
    assert "no better than chance" in str(state.stop)


@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_a_blank_run_is_not_stopped():
    assert scripted(Scripted(BLANK), None, CollapseAlarm("stop")).run().step == 12


class Weights(Callback):
    """Notes the weights, the rate and the optimizer's state before each step's end."""

    def __init__(self) -> None:
        self.weights: dict[int, torch.Tensor] = {}
        self.rates: dict[int, float] = {}

    def on_step(self, loop: Loop) -> None:
        self.weights[loop.state.step] = loop.task.network.weight.detach().clone()
        self.rates[loop.state.step] = loop.rate


ROLL = (GOOD, GOOD, CHANCE, CHANCE, GOOD)
ACCURACY = (0.5, 0.9, 0.1)


@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_a_roll_back_takes_the_best_weights_and_half_the_rate(tmp_path):
    seen = Weights()
    task = Scripted(*ROLL, accuracy=ACCURACY)
    loop = scripted(task, tmp_path, CollapseAlarm("roll-back"), seen, schedule="constant")
    loop.run()
    assert loop.state.rate_scale == 0.5
    assert seen.rates[4] == 0.05
    assert seen.rates[5] == 0.025
    best = load_checkpoint(tmp_path / "best-00000002.pt")
    assert torch.equal(best["network"]["weight"], seen.weights[2])
    # the fifth step starts from the weights after the second
    moved = (seen.weights[5] - seen.weights[2]).abs()
    assert moved < 1.1 * 0.025
    assert not torch.equal(seen.weights[5], seen.weights[4])


@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_a_roll_back_is_the_same_after_a_resume_at_any_step(tmp_path):
    def make(folder: Path, *more: Callback) -> Loop:
        alarm = CollapseAlarm("roll-back")
        return scripted(Scripted(*ROLL, accuracy=ACCURACY), folder, alarm, *more)

    whole = make(tmp_path / "whole")
    whole.run()
    for step in (2, 3, 4, 5, 8):
        folder = tmp_path / str(step)
        with pytest.raises(Interrupted):
            make(folder, Signal(step)).run()
        again = make(folder)
        again.run(resume=True)
        assert_same_content(again.snapshot(), whole.snapshot())


@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_a_roll_back_takes_the_best_of_its_own_history(tmp_path):
    """A run killed after a later best network was written, and resumed from before it."""

    def make(folder: Path, *more: Callback) -> Loop:
        alarm = CollapseAlarm("roll-back")
        return scripted(Scripted(*ROLL, accuracy=ACCURACY), folder, alarm, *more)

    whole, folder = make(tmp_path / "whole"), tmp_path / "killed"
    whole.run()
    with pytest.raises(Interrupted):
        make(folder, Signal(3)).run()
    later = load_checkpoint(folder / "step-00000003.pt")
    later["network"]["weight"] += 1
    save_checkpoint(folder / "best-00000009.pt", later)
    again = make(folder)
    again.run(resume=True)
    assert_same_content(again.snapshot(), whole.snapshot())


def test_a_roll_back_needs_a_folder():
    with pytest.raises(ValueError, match="Expected a folder"):
        scripted(Scripted(), None, CollapseAlarm("roll-back")).run()


def test_a_run_that_gets_no_better_is_stopped():
    task = Scripted(accuracy=(0.1, 0.2, 0.205, 0.2, 0.1))
    state = scripted(task, None, EarlyStopping(3, least_gain=0.01)).run()
    assert state.step == 5
    assert "has not improved on 0.2000 for 3 validations" in str(state.stop)


def test_early_stopping_counts_on_after_a_resume(tmp_path):
    def make(*more: Callback) -> Loop:
        return scripted(Scripted(accuracy=(0.1, 0.5, 0.2)), tmp_path, EarlyStopping(4), *more)

    with pytest.raises(Interrupted):
        make(Signal(4)).run()
    state = make().run(resume=True)
    assert state.step == 6
    assert make().run(resume=True).step == 6, "a stopped run stays stopped"


def test_a_signal_with_the_last_validation_of_a_stopped_run_ends_it(tmp_path):
    task = Scripted(accuracy=(0.5, 0.2))
    assert scripted(task, tmp_path, EarlyStopping(2), Signal(3)).run().stop is not None


@pytest.mark.parametrize("make", [lambda: CollapseAlarm("panic"), lambda: EarlyStopping(0)])
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError, match="Expected `"):
        make()


def test_gradient_shares_leave_other_tasks_alone():
    state = loop_of(Line(), callbacks=[GradientShares()]).run()
    assert not any("share" in name for row in state.history for name in row)


def test_the_bar_ends_where_the_run_does(tmp_path, monkeypatch):
    told = io.StringIO()
    monkeypatch.setattr("sys.stderr", told)
    with pytest.raises(Interrupted):
        loop_of(Line(), tmp_path, callbacks=[ProgressBar(), Signal(6)]).run()
    assert told.getvalue().endswith("\n"), "what is printed next has a line of its own"
    loop_of(Line(), tmp_path, callbacks=[ProgressBar()]).run(resume=True)
    last = told.getvalue().replace("\r", "\n").strip().splitlines()[-1]
    assert "12/12" in last
    assert "accuracy=" in last


def test_a_quiet_run_prints_nothing(capsys):
    loop_of(Line(), callbacks=[ProgressBar(is_quiet=True)]).run()
    assert capsys.readouterr() == ("", "")
