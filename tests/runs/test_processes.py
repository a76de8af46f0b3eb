"""Two processes: as one, stopped as one, and none left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dense_imb.cli import main
from dense_imb.runs import open_run
from tests.cli.test_train_command import ENVIRONMENT, arguments, ended, start, wait_for_step
from tests.limits import HANG_SECONDS
from tests.runs.labelled_pictures import write_cifar
from tests.runs.pictures import write_folders
from tests.runs.tiny import Line, assert_same_runs, clean_events, loop_of, write_events
from tests.tasks.hits.test_networks_of_hits import telescope_events

pytestmark = pytest.mark.slow

STEPS = 40


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    # 27 events: 7 to validate on, in 2 batches of the first process and 1 of the second... uneven
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(27))


def typed(path: str, folder: Path, *more: object, steps: int = STEPS) -> list[str]:
    loss = "CrossEntropyLoss(balance={'scope': 'global'})"
    options = ["--save_every", 0, "--validate_every", 10, "--loss", loss, "--resume"]
    options += ["--report", "false"]
    return arguments(path, folder, *options, *more, steps=steps)


@pytest.fixture(scope="module")
def whole(path, tmp_path_factory) -> Path:
    """A run of two processes that was never stopped, started by torchrun."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    code, told = ended(start(typed(path, folder), *torchrun))
    assert code == 0, told
    return folder


def test_two_processes_are_one_with_a_global_loss(path, tmp_path, whole):
    assert main(typed(path, tmp_path / "one")) == 0
    one, two = open_run(tmp_path / "one"), open_run(whole)
    for name, value in one.weights("last").items():
        torch.testing.assert_close(two.weights("last")[name], value, rtol=1e-3, atol=1e-4)
    first, second = one.history, two.history
    assert len(first) == len(second) == 4
    for name in ("loss", "auc", "removal_at_97", "lit_at_half"):
        assert second[0][name] == pytest.approx(first[0][name], abs=1e-4), name


def test_a_stopped_pair_is_resumed_to_the_bit(path, tmp_path, whole, capsys):
    folder = tmp_path / "run"
    process = start(typed(path, folder, "--devices", 2))
    wait_for_step(process, folder, 6)
    process.send_signal(signal.SIGTERM)
    code, told = ended(process)
    assert code == 75, told
    assert len(re.findall("stopped by SIGTERM", told)) == 1, told
    code, told = ended(start(typed(path, folder, "--devices", 2)))
    assert code == 0, told
    assert_same_runs(folder, whole)
    # and one process refuses to go on with what two have begun
    assert main([*typed(path, folder)]) == 2
    assert "processes: 2 there, 1 here" in capsys.readouterr().err


def test_a_pair_writes_one_live_page_and_learns_the_same(path, tmp_path, whole):
    folder = tmp_path / "run"
    code, told = ended(start(typed(path, folder, "--devices", 2, "--live")))
    assert code == 0, told
    assert "LiveWarning" not in told
    assert "step 40 of 40 (100 %), finished" in (folder / "live.html").read_text()
    assert_same_runs(folder, whole)


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that train, not the one that tracks their resources."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_a_killed_process_ends_all_in_one_sentence(path, tmp_path, whole):
    folder = tmp_path / "run"
    process = start(typed(path, folder, "--devices", 2, steps=4000))
    wait_for_step(process, folder, 5)
    trainers = children_of(process)
    assert len(trainers) == 2
    os.kill(trainers[1], signal.SIGKILL)
    code, told = ended(process)
    assert code == 1
    assert "process 1 was ended by SIGKILL; the others were stopped" in told
    for pid in trainers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_ctrl_c_of_a_pair_is_told_apart(path, tmp_path):
    folder = tmp_path / "run"
    process = start(typed(path, folder, "--devices", 2, steps=4000))
    wait_for_step(process, folder, 3)
    process.send_signal(signal.SIGINT)
    code, told = ended(process)
    assert code == 130, told
    assert "stopped by SIGINT" in told


def test_loops_of_two_processes(tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).parent / "pair.py")
    command = [sys.executable, *torchrun, script, str(tmp_path)]
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    task = Line()
    loop = loop_of(task, batch_size=6, steps=8)
    loop.run()
    two = torch.load(tmp_path / "line.pt", weights_only=True)
    assert two.pop("loss") == pytest.approx(loop.state.history[-1]["loss"], rel=1e-6)
    for name, value in task.network.state_dict().items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)


ADAMW = ["--optimizer.name", "adamw"]
NETWORKS_OF_HITS = {
    "grid": ["--hits.signal", 6, "--hits.noise", 20, *ADAMW],
    "table": ["--hits.features", "charge", "direction", "--hits.n_classes", 3],
    "particles": ["--hits.balance_over", "particle", *ADAMW],
    "instances": ADAMW,
}
GLOBAL = "CrossEntropyLoss(balance={'scope': 'global'})"
PER_INSTANCE = "CrossEntropyLoss(per='instance', balance={'scope': 'global'})"


@pytest.mark.parametrize("kind", NETWORKS_OF_HITS)
def test_two_processes_score_hits_as_one_with_a_global_loss(kind, path, tmp_path):
    """Events have unequal numbers of hits, and the last events are validated by one process."""
    if kind != "grid":
        path = write_events(tmp_path / "telescope.h5", telescope_events(27))
    words = [
        "train", "hits", "--hits.train", path, "--hits.validation_share", "0.25", "--steps", "8",
        "--validate_every", "4", "--batch_size", "4", "--quiet", "--report", "false",
        "--model.options", '{"width": 8, "depth": 2, "heads": 1}',
        "--loss", PER_INSTANCE if kind == "instances" else GLOBAL,
        *map(str, NETWORKS_OF_HITS[kind]),
    ]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    code, told = ended(start([*words, "--out", str(tmp_path / "two"), "--devices", "2"]))
    assert code == 0, told
    one, two = (open_run(tmp_path / name) for name in ("one", "two"))
    atol = 5e-3 if one.config.optimizer.name == "muon" else 1e-4  # Muon rounds to bfloat16
    for name, value in one.weights("last").items():
        torch.testing.assert_close(two.weights("last")[name], value, rtol=1e-3, atol=atol)
    for first, second in zip(one.history, two.history, strict=True):
        for name in ("loss", "auc", "removal_at_97", "lit_at_half"):
            assert second[name] == pytest.approx(first[name], abs=1e-4), name
    assert one.scores().n_signal == two.scores().n_signal


@pytest.mark.parametrize("loss", [GLOBAL, PER_INSTANCE])
def test_two_processes_segment_as_one_with_a_global_loss(tmp_path, loss):
    images, masks = write_folders(tmp_path, n=9)
    typed = [
        "train", "images", "--images.train", images, "--images.masks", masks,
        "--images.patch", "32", "32", "--model.options", '{"widths": [4, 8]}', "--steps", "8",
        "--validate_every", "4", "--batch_size", "4", "--quiet",
        "--loss", loss, "--report", "false",
    ]  # fmt: skip
    assert main([*typed, "--out", str(tmp_path / "one")]) == 0
    code, told = ended(start([*typed, "--out", str(tmp_path / "two"), "--devices", "2"]))
    assert code == 0, told
    first, second = (open_run(tmp_path / name).history for name in ("one", "two"))
    for score in ("loss", "average_precision", "iou", "lit_at_half"):
        assert second[0][score] == pytest.approx(first[0][score], abs=2e-3), score


def test_two_processes_classify_as_one_with_a_global_loss(tmp_path):
    path = write_cifar(tmp_path, 10)
    typed = [
        "train", "labels", "--labels.train", path, "--imb-ratio", "4", "--model.name", "resnet32",
        "--model.options", '{"depth": 8, "width": 4}', "--steps", "6", "--validate_every", "3",
        "--batch_size", "16", "--loss", "CrossEntropyLoss(balance={'scope': 'global'})", "--quiet",
    ]  # fmt: skip
    assert main([*typed, "--out", str(tmp_path / "one")]) == 0
    code, told = ended(start([*typed, "--out", str(tmp_path / "two"), "--devices", "2"]))
    assert code == 0, told
    first, second = (open_run(tmp_path / name).history for name in ("one", "two"))
    # the first step's images are the same; batch normalisation sees half of them at a time
    assert second[0]["loss"] == pytest.approx(first[0]["loss"], rel=0.1)
    scores = [open_run(tmp_path / name).scores() for name in ("one", "two")]
    assert scores[0].n_images == scores[1].n_images == 40
