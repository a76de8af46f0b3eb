"""dense-imb train: exit codes, signals, faults and several processes."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dense_imb.cli import main
from dense_imb.cli.train import TrainParser, config_of
from dense_imb.config import TrainConfig
from dense_imb.runs import open_run
from tests.limits import HANG_SECONDS
from tests.runs.pictures import write_folders
from tests.runs.tiny import assert_same_runs, clean_events, write_events

ROOT = Path(__file__).parents[2]
NETWORK = ["--model.name", "fast_unet", "--model.options", '{"widths": [4, 8]}']


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(24))


def arguments(path: str, folder: Path, *more: object, steps: int = 8) -> list[str]:
    return [
        "train", "hits", "--out", str(folder), "--hits.train", path, "--hits.noise", "20",
        "--hits.signal", "6", "--hits.validation_share", "0.25", "--steps", str(steps),
        "--batch_size", "4", "--quiet", *NETWORK, *map(str, more),
    ]  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], typed: list[str]) -> str:
    """The one line that a refused command prints."""
    try:
        code = main(typed)
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr().err
    assert code == 2
    assert told.count("\n") == 1, told
    assert "Traceback" not in told
    return told


def test_a_run_tells_what_came_out_and_a_finished_one_that_nothing_is_left(path, tmp_path, capsys):
    assert main(arguments(path, tmp_path / "run")) == 0
    told = capsys.readouterr()
    assert "8 steps" in told.out
    assert "finished before" not in told.out
    weights = (tmp_path / "run" / "last.safetensors").read_bytes()
    assert main(arguments(path, tmp_path / "run", "--resume")) == 0
    assert "finished before, nothing was left to do" in capsys.readouterr().out
    assert main(["train", "hits", "--out", str(tmp_path / "run"), "--resume", "--quiet"]) == 0
    assert "finished before, nothing was left to do" in capsys.readouterr().out
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == weights
    assert (tmp_path / "run" / "report.html").exists()  # a run may be killed before its report


def test_the_written_config_is_a_config(path, tmp_path):
    options = ("--hits.noise", "[10, 20]", "--report", "false")
    assert main(arguments(path, tmp_path / "run", *options)) == 0
    config = tmp_path / "run" / "config.yaml"
    typed = ["train", "hits", "--config", str(config), "--quiet", "--out", str(tmp_path / "again")]
    assert main(typed) == 0
    assert_same_runs(tmp_path / "again", tmp_path / "run")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--stepz", "3"], "--stepz.* Did you mean --steps"),
        (["--optimizer.learning_rat", "3"], "Did you mean --optimizer.learning_rate"),
        (["--steps", "many"], "a whole number in --steps, got 'many'"),
        (["--hits.pixels", "some"], "--hits.pixels to be .*lit.*frame.* got 'some'"),
        (["--optimizer.name", "adamx"], "--optimizer.name to be .*adamw.*Did you mean 'adam'"),
        (["--loss", "os:system('touch executed')"], "nothing else is imported"),
        (["--loss", "subprocess:Popen(['touch', 'executed'])"], "nothing else is imported"),
        (["--model.name", "fast_unit"], "Did you mean 'fast_unet'"),
        (["--hits.train", "none.h5"], r"none\.h5"),
        (["--devices", "0"], "--devices of at least 1, got 0"),
        (["--warm-start", "nowhere"], "Expected the folder of a run"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(path, tmp_path, capsys, monkeypatch, typed, told):
    monkeypatch.chdir(tmp_path)
    assert re.search(told, refused(capsys, arguments(path, tmp_path / "run", *typed)))
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stepz: 3", "`stepz` is no name of a config.*Did you mean 'steps'"),
        ("optimizer: {learning_rat: 3}", "learning_rat.*Did you mean 'optimizer.learning_rate'"),
        ("steps: many", "steps"),
        ("pixels: some", "pixels"),
        ("data: {train: 3.5}", "train"),
        ("loss: !!python/object/apply:os.system ['touch executed']", "Expected"),
        ("loss: !!python/name:os.system", "Expected"),
        ("loss: os:system('touch executed')", "nothing else is imported"),
        ("model: {class_path: os.system}", "`model.class_path` is no name of a configuration"),
        ("steps: [", "Expected"),
        ("- 3", "Expected"),
    ],
)
def test_bad_configs_are_one_line(path, tmp_path, capsys, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(text)
    typed = ["train", "hits", "--config", str(config), "--out", str(tmp_path / "run")]
    if "data" not in text:
        typed += ["--hits.train", path]
    assert re.search(told, refused(capsys, typed))
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text",
    ["steps: !!python/object/apply:os.system ['touch executed']", "stepz: 3", "- 3", "steps: [",
     "steps: many", "optimizer: 3"],
)  # fmt: skip
def test_a_stored_config_that_was_tampered_with_is_one_line(
    path, tmp_path, capsys, monkeypatch, text
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    assert re.search("Expected|no name of", refused(capsys, arguments(path, folder, "--resume")))
    assert not (tmp_path / "executed").exists()


def test_a_run_of_other_options_is_refused(path, tmp_path, capsys):
    assert main(arguments(path, tmp_path / "run", "--report", "false")) == 0
    capsys.readouterr()
    told = refused(capsys, arguments(path, tmp_path / "run", "--resume", "--seed", 4))
    assert "seed: 0 there, 4 here" in told
    told = refused(capsys, arguments(path, tmp_path / "run"))
    assert "continue it with --resume" in told


def test_other_files_are_not_mixed_with_a_run(path, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert "with files" in refused(capsys, arguments(path, tmp_path))
    assert "got the file" in refused(capsys, arguments(path, tmp_path / "notes.txt"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(path, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refused(capsys, arguments(path, tmp_path / "run"))


def test_a_folder_where_none_can_be_is_one_line(path, capsys):
    assert "/proc/run" in refused(capsys, arguments(path, Path("/proc/run")))


def test_damage_is_passed_over_in_one_line(path, tmp_path, capsys):
    typed = arguments(path, tmp_path / "run", "--validate_every", 4, "--report", "false")
    assert main(typed) == 0
    weights = (tmp_path / "run" / "last.safetensors").read_bytes()
    (tmp_path / "run" / "checkpoints" / "step-00000008.pt").write_bytes(b"")
    (tmp_path / "run" / "metrics.json").unlink()
    capsys.readouterr()
    typed.append("--resume")
    assert main(typed) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "checkpoint skipped" in line]
    assert len(told) == 1
    assert told[0].startswith("dense-imb train hits: warning: checkpoint skipped")
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == weights
    for damaged in (tmp_path / "run" / "checkpoints").glob("step-*.pt"):
        damaged.write_bytes(b"")
    assert main(typed) == 2
    assert "got none" in capsys.readouterr().err


# what follows starts processes, each of which imports torch first

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(typed: list[str], *before: str, **options) -> subprocess.Popen[str]:
    command = [sys.executable, *before, "-m", "dense_imb", *typed]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        **options,
    )  # fmt: skip


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Until a checkpoint of the step or a later one is written, or the process has ended."""
    until = time.monotonic() + HANG_SECONDS
    while process.poll() is None and time.monotonic() < until:
        found = sorted((folder / "checkpoints").glob("step-*.pt"))
        if found and int(found[-1].stem[5:]) >= step:
            return
        time.sleep(0.01)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    told = process.communicate(timeout=HANG_SECONDS)[1]
    return process.returncode, told


LONG = 60  # steps, each saved


def long(path: str, folder: Path, *more: object) -> list[str]:
    options = ["--save_every", 0, "--validate_every", 20, "--resume", "--report", "false"]
    return arguments(path, folder, *options, *more, steps=LONG)


@pytest.fixture(scope="module")
def whole(path, tmp_path_factory) -> Path:
    """The same run, never stopped, with as many threads: sums depend on them to the bit."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert ended(start(long(path, folder)))[0] == 0
    return folder


@pytest.mark.slow
def test_a_run_killed_anywhere_is_resumed_to_the_bit(path, tmp_path, whole):
    rng = random.Random(4)
    folder = tmp_path / "run"
    for step in (3, 37):
        process = start(long(path, folder))
        wait_for_step(process, folder, step)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        ended(process)
        assert len(list((folder / "checkpoints").glob("step-*.pt"))) >= 1
    assert ended(start(long(path, folder)))[0] == 0
    assert_same_runs(folder, whole)
    steps = [row["step"] for row in open_run(folder).history]
    assert steps == list(range(20, LONG + 1, 20))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_saved_and_the_next_one_ends_the_same(
    path, tmp_path, whole, number, code
):
    folder = tmp_path / "run"
    process = start(long(path, folder))
    wait_for_step(process, folder, 10)
    process.send_signal(number)
    got, told = ended(process)
    assert got == code, told
    assert re.search(rf"stopped by {number.name} after step \d+, saved; --resume goes on", told)
    assert ended(start(long(path, folder)))[0] == 0
    assert_same_runs(folder, whole)


def _limited() -> None:
    import resource

    # a file may have so many bytes, and a longer one is an error, not a signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.slow
def test_no_room_for_a_checkpoint_is_one_line_and_no_partial_file(path, tmp_path, whole):
    folder = tmp_path / "run"
    process = start(long(path, folder), preexec_fn=_limited)
    code, told = ended(process)
    assert code == 2
    assert "File too large" in told
    assert "Traceback" not in told
    assert told.strip().count("\n") == 0, told
    assert not list(folder.rglob("*.partial"))
    assert ended(start(long(path, folder)))[0] == 0
    assert_same_runs(folder, whole)


def config_typed(kind: str, *typed: str) -> TrainConfig:
    options = TrainParser(kind).parse_args(["--out", "run", *typed])
    return config_of(options, kind, Path("run"))


@pytest.mark.parametrize(
    ("typed", "name", "wanted"),
    [
        (["--images.labels", "0", "255"], "labels", [0, 255]),
        (["--images.labels", "0,255"], "labels", [0, 255]),
        (["--images.labels=0, 255"], "labels", [0, 255]),
        (["--images.labels", "[0, 255]"], "labels", [0, 255]),
        (["--images.labels", "-1", "4"], "labels", [-1, 4]),
        (["--images.labels", "7"], "labels", [7]),
        (["--images.patch", "96", "96", "--steps", "3"], "patch", [96, 96]),
        (["--images.patch=96,96"], "patch", [96, 96]),
        (["--images.names", "sky", "a crack"], "names", ["sky", "a crack"]),
        (["--images.names", '["sky", "crack"]'], "names", ["sky", "crack"]),
        (["--images.names", "sky"], "names", ["sky"]),
    ],
)
def test_lists_may_be_typed_as_words(typed, name, wanted):
    assert getattr(config_typed("images", *typed).images, name) == wanted


def test_a_range_and_many_files_may_be_typed_as_words():
    typed = ["--hits.noise", "100", "200", "--hits.train", "a.h5", "b.h5", "--hits.signal", "30"]
    hits = config_typed("hits", *typed).hits
    assert (hits.noise, hits.signal) == ([100, 200], 30)
    assert hits.train == ["a.h5", "b.h5"]


def test_one_word_is_a_list_of_one():
    config = config_typed("hits", "--trackers", "tensorboard", "--hits.profiles", "blob(width=3)")
    assert (config.trackers, config.hits.profiles) == (["tensorboard"], ["blob(width=3)"])


@pytest.mark.parametrize("typed", [["0", "x"], ["0 x"], ["many"]])
def test_a_list_that_is_none_is_told_how_to_write_one(tmp_path, capsys, typed):
    told = refused(
        capsys, ["train", "images", "--out", str(tmp_path / "run"), "--images.labels", *typed]
    )
    assert "write --images.labels 0 255" in told


def test_sentences_name_the_option_of_the_command(tmp_path, capsys):
    images, masks = write_folders(tmp_path, n=3, values=(0, 255))
    run = ["train", "images", "--out", str(tmp_path / "run"), "--images.train", images]
    assert re.search(r"--images\.masks FOLDER", refused(capsys, run))
    told = refused(capsys, [*run, "--images.masks", masks])
    assert "--images.labels 0 255" in told
    masks = ["--images.masks", masks, "--images.labels", "0", "255"]
    told = refused(capsys, [*run, *masks, "--images.validation", images])
    assert "--images.validation_masks FOLDER" in told


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("--lr", "--optimizer.learning_rate"),
        ("--learning-rate", "--optimizer.learning_rate"),
        ("--learning_rate", "--optimizer.learning_rate"),
        ("--wd", "--optimizer.weight_decay"),
        ("--epochs", "--steps"),
        ("--batch", "--batch_size"),
        ("--model", "--model.name"),
        ("--gpu", "--device"),
        ("--output", "--out"),
    ],
)
def test_names_of_other_programs_lead_to_ours(tmp_path, capsys, typed, near):
    told = refused(capsys, ["train", "images", "--out", str(tmp_path / "run"), typed, "3"])
    assert told.endswith(f"got {typed}. Did you mean {near}?\n")


def test_training_without_a_folder_says_how_to_name_one(path, capsys):
    told = refused(capsys, ["train", "hits", "--hits.train", path])
    assert told == (
        "dense-imb train hits: error: Expected a folder for the run, got none; "
        "add --out runs/NAME.\n"
    )


def test_a_device_that_is_not_there_is_refused(path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    told = refused(capsys, arguments(path, tmp_path / "run", "--device", "cuda"))
    assert "a GPU for --device cuda, got none; use --device cpu" in told
    told = refused(capsys, arguments(path, tmp_path / "run", "--device", "gpu"))
    assert "--device to be one of 'auto', 'cpu', 'cuda', got 'gpu'" in told


def test_other_processes_get_the_kind_and_the_typed_words(path, tmp_path, monkeypatch):
    launched = []
    monkeypatch.setattr(
        "dense_imb.engine.launch",
        lambda main, words, n, *, on_cpu: launched.append((words, n)) or 0,
    )
    typed = arguments(path, tmp_path / "run", "--devices", "2")
    with pytest.raises(SystemExit):
        main(typed)
    assert launched == [(typed, 2)]


def test_a_run_ends_with_the_next_command(path, tmp_path, capsys):
    folder = tmp_path / "a run"
    assert main(arguments(path, folder, "--report", "false", steps=2)) == 0
    following = capsys.readouterr().out.splitlines()[-2:]
    assert following == [
        f"next: dense-imb evaluate '{folder}' test.h5",
        f"then: dense-imb denoise '{folder}' raw.h5 clean.h5",
    ]


def test_whole_images_train_with_a_network_of_their_own(tmp_path):
    from dense_imb.cli.train import TrainParser, config_of

    options = TrainParser("labels").parse_args(["--labels.train", "a.csv"])
    assert config_of(options, "labels", tmp_path).model.name == "resnet32"
    options = TrainParser("labels").parse_args(["--model.name", "timm:resnet18"])
    assert config_of(options, "labels", tmp_path).model.name == "timm:resnet18"
