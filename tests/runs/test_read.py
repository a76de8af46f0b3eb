"""A whole run from its config: resumed to the bit, repeated from its folder, refused in words."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib
import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dense_imb.config import with_defaults
from dense_imb.engine import Callback, CheckpointError, CollapseWarning, Interrupted, TrainingError
from dense_imb.engine.loop import Loop
from dense_imb.hits import Geometry, HitsFile
from dense_imb.runs import TrainConfig, open_run, train
from dense_imb.runs.read import read_config
from dense_imb.runs.seen import OverlapWarning
from dense_imb.tasks.recipe import build_task
from tests.engine.test_loop import Signal
from tests.leftovers import leave_behind
from tests.runs.tiny import (
    assert_same_content,
    assert_same_runs,
    changed,
    clean_events,
    tiny,
    write_events,
)

fit_module = importlib.import_module("dense_imb.runs.train")

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(20))


def quiet(config: TrainConfig, folder: Path, **options):
    return train(config, folder, is_quiet=True, **options)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch):
    """Let further callbacks look on in the next runs."""
    further: list[Callback] = []
    real = fit_module.RunFiles

    class Both(real):
        def on_step(self, loop: Loop) -> None:
            for callback in further:
                callback.on_step(loop)

    monkeypatch.setattr(fit_module, "RunFiles", Both)
    return further


KINDS = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "dropout and batch statistics": {
        "model": {"name": "monai:UNet", "options": {
            "channels": [4, 8], "strides": [2], "dropout": 0.3, "norm": "batch"}},
    },
    "both outputs": {"hits": {"output": "both"}, "loss": "HardMiningLoss(balance={})"},
    "roll back": {"collapse": "roll-back", "validate_every": 1, "loss": "torch.nn:L1Loss"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_same_to_the_bit(path, tmp_path, watched, kind):
    config = tiny(path, **KINDS[kind])
    quiet(config, tmp_path / "whole")
    for step in (1, 4, 7):
        folder = tmp_path / str(step)
        watched[:] = [Signal(step, signal.SIGUSR1)]
        with pytest.raises(Interrupted):
            quiet(config, folder, resume=True)
        watched[:] = []
        quiet(config, folder, resume=True)
        assert_same_runs(folder, tmp_path / "whole")


def test_the_stored_config_repeats_the_run(path, tmp_path):
    config = tiny(
        [path],
        hits={"signal": [3, 6], "noise": [10, 20], "profiles": ["uniform", "blob(width=2.0)"]},
    )
    first = quiet(config, tmp_path / "first")
    stored = read_config(tmp_path / "first" / "config.yaml")
    assert stored == with_defaults(dataclasses.replace(config, loss="BalancedSoftmaxLoss"))
    quiet(stored, tmp_path / "again")
    assert_same_runs(tmp_path / "again", tmp_path / "first")
    other = quiet(changed(config, seed=1), tmp_path / "other")
    assert not torch.equal(*(run.weights("last")["output.weight"] for run in (first, other)))


def test_several_files_and_patterns_are_one_data_set(path, tmp_path):
    for i in range(2):
        write_events(tmp_path / f"part-{i}.h5", clean_events(20)[10 * i : 10 * i + 10])
    pattern = str(tmp_path / "part-*.h5")
    files = sorted(map(str, tmp_path.glob("part-*.h5")))
    runs = [
        quiet(tiny(train), tmp_path / f"run{i}") for i, train in enumerate([path, pattern, files])
    ]
    first, *others = (run.weights("last") for run in runs)
    for weights in others:
        assert_same_content(weights, first)


def test_measured_noise_is_drawn_from(path, tmp_path):
    noise = clean_events(30, seed=9)
    noise = noise.with_hits(noise.offset, {**noise.hit_columns(), "label": 0 * noise.label})
    noisy = write_events(tmp_path / "noise.h5", noise)
    run = quiet(tiny(path, hits={"measured_noise": noisy, "noise": 20}), tmp_path / "run")
    assert "Measured" in run.checkpoint("last")["setup"]["degradation"]
    other = write_events(tmp_path / "noise.h5", dataclasses.replace(noise, t=noise.t + 1))
    assert other == noisy
    with pytest.raises(CheckpointError, match="degradation: "):
        quiet(run.config, tmp_path / "run", resume=True)


def test_the_folder_of_a_run_is_not_written_over(path, tmp_path):
    quiet(tiny(path), tmp_path / "run")
    with pytest.raises(ValueError, match="which holds one; continue it with `resume`"):
        quiet(tiny(path), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 3}, "seed: 0 there, 3 here"),
        ({"batch_size": 2}, "batch_size: 4 there, 2 here"),
        ({"loss": "FocalLoss"}, "loss: BalancedSoftmaxLoss there, FocalLoss here"),
        ({"optimizer": {"learning_rate": 0.5}}, "learning_rate: 0.006 there, 0.5 here"),
        ({"model": {"options": {"widths": [4]}}}, r"\[4, 8\].* there, .*\[4\].* here"),
    ],
)
def test_another_config_is_refused_with_both_values(path, tmp_path, change, told):
    quiet(tiny(path), tmp_path / "run")
    with pytest.raises(ValueError, match=told):
        quiet(tiny(path, **change), tmp_path / "run", resume=True)


def test_how_often_to_save_may_change(path, tmp_path, watched):
    watched[:] = [Signal(3)]
    with pytest.raises(Interrupted):
        quiet(tiny(path), tmp_path / "run")
    watched[:] = []
    quiet(tiny(path, save_every=0.0), tmp_path / "run", resume=True)


def test_other_hits_under_the_old_name_are_refused(tmp_path):
    data = write_events(tmp_path / "data.h5", clean_events(20))
    quiet(tiny(data), tmp_path / "run")
    write_events(Path(data).with_suffix(".new"), clean_events(20, seed=1))
    Path(data).with_suffix(".new").replace(data)
    with pytest.raises(CheckpointError, match="data: .* there, .* here"):
        quiet(tiny(data), tmp_path / "run", resume=True)


def test_hits_that_were_edited_in_place_are_refused(tmp_path):
    data = write_events(tmp_path / "data.h5", clean_events(20))
    quiet(tiny(data, steps=2), tmp_path / "run")
    with h5py.File(data, "r+") as file:
        file["hit/t"][7] += 1
    for folder, resume in ((tmp_path / "run", True), (tmp_path / "new", False)):
        with pytest.raises(
            ValueError, match=r"to match its hash, got another in `/hit/t`; restore"
        ):
            quiet(tiny(data, steps=2), folder, resume=resume)


def test_other_hits_without_a_hash_are_refused(tmp_path):
    data = write_events(tmp_path / "data.h5", clean_events(20))
    for seed in (0, 1):
        write_events(Path(data), clean_events(20, seed=seed))
        with h5py.File(data, "r+") as file:
            del file.attrs["content_hash"]
        if seed == 0:
            quiet(tiny(data, steps=2), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"data: .* there, .* here"):
        quiet(tiny(data, steps=2), tmp_path / "run", resume=True)


def test_two_runs_in_one_folder_are_refused(path, tmp_path):
    quiet(tiny(path), tmp_path / "run")
    with (tmp_path / "run" / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="no other process works in"):
            quiet(tiny(path), tmp_path / "run", resume=True)


def test_what_a_killed_run_left_half_written_is_removed(path, tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml.123.partial").write_text("half")
    (folder / "checkpoints" / "step-00000003.pt.123.partial").write_text("half")
    quiet(tiny(path), folder, resume=True)
    assert not list(folder.rglob("*.partial"))


def test_a_kill_between_two_names_of_a_folder_loses_none(path, tmp_path):
    folder = tmp_path / "run"
    quiet(tiny(path, steps=4), folder)
    natural = folder / "natural"
    content = (natural / "natural.json").read_bytes()
    natural.rename(folder / "natural.123.old")  # as an older version left it
    (folder / "natural.123.new").mkdir()
    quiet(tiny(path, steps=4), folder, resume=True)
    assert (natural / "natural.json").read_bytes() == content
    assert not list(folder.glob("natural.*"))


def test_files_of_others_stay_when_a_run_begins_and_resumes(path, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    others = [
        folder / "download.tgz.partial",
        leave_behind(folder / "clean.h5", os.getppid()),  # a denoise that is running
    ]
    for resume in (False, True):
        others[0].write_text("of another program")
        quiet(tiny(path), folder, resume=resume)
        assert all(other.exists() for other in others)


def test_a_run_that_loads_longer_does_not_train_over_another(path, tmp_path, monkeypatch):
    folder, check = tmp_path / "run", fit_module._check_parts

    def meanwhile(config):
        monkeypatch.setattr(fit_module, "_check_parts", check)
        quiet(tiny(path), folder)
        check(config)

    monkeypatch.setattr(fit_module, "_check_parts", meanwhile)
    with pytest.raises(ValueError, match=r"a new folder for the run, got .*, which holds one"):
        quiet(tiny(path, seed=7), folder)
    run = open_run(folder)
    assert run.config.seed == 0
    assert run.checkpoint("last")["setup"]["seed"] == "0"


def test_a_warm_start_begins_from_the_best_weights(path, tmp_path, watched):
    first = quiet(tiny(path, optimizer={"learning_rate": 0.1}), tmp_path / "first")

    class First(Callback):
        def on_step(self, loop: Loop) -> None:
            if loop.state.step == 1:
                self.weights = {k: v.clone() for k, v in loop.task.network.state_dict().items()}

    watched[:] = [begun := First()]
    still = tiny(path, optimizer={"learning_rate": 0.0, "weight_decay": 0.0})
    quiet(still, tmp_path / "warm", warm_start=tmp_path / "first")
    assert_same_content(begun.weights, first.weights("best"))
    smaller = tiny(path, model={"options": {"widths": [4]}})
    with pytest.raises(
        CheckpointError, match="to be this one, FastUNet.*, got the weights of fast_unet"
    ) as refused:
        quiet(smaller, tmp_path / "small", warm_start=tmp_path / "first")
    told = str(refused.value)
    assert "model.options: {'widths': [4, 8]} there, {'widths': [4]} here; train with" in told
    assert told.endswith("""of that run (`model.options` '{"widths": [4, 8]}').""")
    assert "model.name" not in told, "what is the same is not told"
    assert "size mismatch" not in told


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(path, tmp_path, watched):
    class Poison(Callback):
        def on_step(self, loop: Loop) -> None:
            if loop.state.step == 6:
                with torch.no_grad():
                    next(loop.task.network.parameters()).mul_(float("nan"))

    watched[:] = [Poison()]
    with pytest.raises(TrainingError, match=r"in step 7 \(samples \d+, \d+"):
        quiet(tiny(path), tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.checkpoint("last")["state"]["step"] == 4
    for weights in (run.weights("best"), run.weights("last")):
        assert all(torch.isfinite(value).all() for value in weights.values())
    assert run.metrics["is_finished"] is False


def test_a_run_is_read_again(path, tmp_path):
    with pytest.warns(OverlapWarning, match="20 of the 20 validation events"):
        run = quiet(tiny(path, hits={"validation": path}), tmp_path / "run")
    rows = run.history
    assert [row["step"] for row in rows] == [4, 8, 10]
    assert rows[-1]["learning_rate"] < rows[0]["learning_rate"]
    for row in rows:
        shares = [row[f"gradient_share_{kind}"] for kind in ("signal", "noise", "empty")]
        assert sum(shares) == pytest.approx(1)
    assert run.metrics["is_finished"] is True
    assert "10 steps" in run.summary()
    state = torch.random.get_rng_state()
    events = HitsFile(path)[:]
    few = run.trained(device="cpu")
    few.batch_size = 3
    scores = few.score(events)
    assert scores.shape == (events.n_hits,)
    torch.testing.assert_close(run.trained(device="cpu").score(events), scores)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert 0 <= run.operating_point().threshold <= 1


def test_best_is_what_was_scored(path, tmp_path):
    """The network of the folder gives the stored validation scores, of hidden hits, too."""
    from dense_imb.data.events.virtual import VALIDATION_EPOCH
    from dense_imb.metrics import ScoreHistogram
    from dense_imb.tasks.recipe import build_task

    run = quiet(tiny(path, steps=16, loss="CrossEntropyLoss"), tmp_path / "run")
    held_out = build_task(run.config).validation
    events = held_out.degraded(np.arange(len(held_out)), VALIDATION_EPOCH).torch()
    found = ScoreHistogram()
    found.update(run.trained(device="cpu").score(events), events.label > 0)
    assert torch.equal(found.curve().retention, run.scores().curve().retention)
    assert found.removal_at(0.97) == run.metrics["best"]["removal_at_97"]


def test_another_frame_is_refused(path, tmp_path):
    scorer = quiet(tiny(path), tmp_path / "run").trained(device="cpu")
    with pytest.raises(ValueError, match="Expected events of 16 x 12 x 100, .* got 20 x"):
        scorer.score(clean_events(2, frame=Geometry(20, 12, 100)))


def test_weights_of_another_network_are_refused(path, tmp_path):
    quiet(tiny(path), tmp_path / "run")
    stored = tmp_path / "run" / "config.yaml"
    stored.write_text(stored.read_text().replace("- 8", "- 16"))
    with pytest.raises(CheckpointError, match="Expected weights of fast_unet"):
        open_run(tmp_path / "run").trained()


@pytest.mark.parametrize("loss", ["csce", "CBLoss"])
def test_a_code_that_needs_class_counts_gets_them(path, tmp_path, loss):
    config = tiny(path, loss=loss, steps=2)
    assert train(config, tmp_path / "run", is_quiet=True).metrics["is_finished"]
    weight = build_task(config).loss[0].class_weight
    assert weight[1] > weight[0]  # signal is rarer than noise


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 0}, "`steps`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"seed": -1}, "`seed`"),
        ({"hits": {"retention": 1.5}}, "`retention`"),
        ({"patience": 0}, "`patience`"),
        ({"validate_every": 0}, "`validate_every`"),
        ({"loss": "FocalLos"}, "Did you mean 'FocalLoss'"),
        ({"loss": "csc"}, "or a code .ce, csce"),
        ({"loss": "os:system('true')"}, "nothing else is imported"),
        ({"loss": "RangeLoss(8)"}, "a loss of the output, got .*, a loss of features"),
        ({"hits": {"validation_share": 0.0}}, "`validation_share`"),
        ({"hits": {"validation_events": 0}}, "`validation_events`"),
        ({"hits": {"train": []}}, "training data, got none"),
        ({"hits": {"profiles": ["blub"]}}, "Did you mean 'blob'"),
        ({"hits": {"signal": [3]}}, "`signal`"),
        ({"hits": {"noise": -3}}, "`noise`"),
        ({"optimizer": {"clip": 0.0}}, "`clip`"),
        ({"optimizer": {"weight_decay": -1.0}}, "`weight_decay`"),
        ({"model": {"name": "fast_unit"}}, "Did you mean 'fast_unet'"),
        ({"hits": {"channels": ["time"]}}, "`channels`"),
        ({"hits": {"channels": []}}, "`channels`"),
        ({"hits": {"threshold": 1.5}}, "`threshold`"),
    ],
)  # fmt: skip
def test_bad_configs_are_refused_before_anything_is_written(path, tmp_path, change, told):
    hits = {"train": path, **change.pop("hits", {})}
    config = tiny(hits.pop("train"), hits=hits, **change)
    with pytest.raises(ValueError, match=told):
        quiet(config, tmp_path / "run")
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != ".lock"]


def test_runs_of_other_precision_follow_in_one_process(path, tmp_path):
    for precision in ("no", "bf16", "no"):
        run = quiet(
            tiny(path, precision=precision, steps=2),
            tmp_path / f"{precision}-{os.urandom(2).hex()}",
        )
        assert run.checkpoint("last")["setup"]["precision"] == precision


def test_a_tracker_follows_the_run(path, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra trackers")
    quiet(tiny(path, trackers=["tensorboard"]), tmp_path / "run")
    (events,) = (tmp_path / "run").rglob("events.out.tfevents*")
    assert b"removal_at_97" in events.read_bytes()


def test_a_tracker_that_is_missing_is_named(path, tmp_path):
    with pytest.raises(ValueError, match=r"trackers that are installed .*, got 'no_tracker'"):
        quiet(tiny(path, trackers=["no_tracker"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(path, tmp_path):
    plain = quiet(tiny(path, steps=3), tmp_path / "plain").history
    compiled = quiet(tiny(path, steps=3, compile=True), tmp_path / "compiled").history
    assert compiled[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=1e-4)
    assert (tmp_path / "compiled" / "best.safetensors").exists()


def test_a_loss_of_logits_is_refused_for_values(path, tmp_path):
    config = tiny(path, hits={"output": "value"}, loss="CrossEntropyLoss")
    with pytest.raises(ValueError, match=r"loss of values .* take `loss=ACBMSELoss`"):
        quiet(config, tmp_path / "run")


def test_a_loss_without_a_gradient_is_told(path, tmp_path):
    loss = "ACBMSELoss(empty_weight=0.0, hit_weight=0.0)"
    config = tiny(path, loss=loss, validate_every=2, collapse="stop")
    with pytest.warns(CollapseWarning, match="no gradient from its loss.*BCEWithLogitsLoss"):
        run = quiet(config, tmp_path / "run")
    assert "no gradient" in run.metrics["stopped"]


def test_weights_can_be_read_by_others(path, tmp_path):
    quiet(tiny(path), tmp_path / "run")
    for name in ("best", "last"):
        assert (tmp_path / "run" / f"{name}.safetensors").stat().st_mode & 0o444 == 0o444
