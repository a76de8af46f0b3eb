"""Commands under torchrun: several processes share the events, and the result is that of one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dense_imb.cli import main
from dense_imb.runs import train
from tests.cli.test_train_command import ended, start
from tests.runs.pictures import tiny_images, write_folders

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "raw.h5"
    options = ["--events", "50", "--signal", "30", "--noise", "60", "--quiet"]
    assert main(["simulate", str(path), *options]) == 0
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.mark.slow
def test_denoise_is_that_of_one_process(raw, tmp_path):
    typed = ["--choose-on", str(raw), "--batch-size", "4", "--quiet"]
    assert main(["denoise", "hit-density", str(raw), str(tmp_path / "one.h5"), *typed]) == 0
    three = ["denoise", "hit-density", str(raw), str(tmp_path / "three.h5"), *typed]
    process = start(three, *TORCHRUN)
    code, told = ended(process)
    assert code == 0, told
    assert (tmp_path / "three.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.h5", "three.h5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [[], ["--events", "31"], ["--purity", "0.5", "--noise", "9", "40"]]
)
def test_evaluate_is_that_of_one_process(raw, tmp_path, options):
    source = raw
    if "--noise" in options:
        source = tmp_path / "clean.h5"
        assert main(["simulate", str(source), "--events", "23", "--quiet"]) == 0
    words = ["evaluate", str(source), "--batch-size", "4", "--quiet", *options]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    code, told = ended(start([*words, "--out", str(tmp_path / "three")], *TORCHRUN))
    assert code == 0, told
    one, three = (rows_of(tmp_path / name / "evaluation.csv") for name in ("one", "three"))
    for row in (*one, *three):
        assert float(row.pop("events_per_second")) > 0
    assert three == one


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_segment_is_that_of_one_process(tmp_path):
    images, masks = write_folders(tmp_path, n=7, values=(0, 255))
    config = tiny_images((images, masks), images={"labels": [0, 255]})
    folder = train(config, tmp_path / "run", is_quiet=True).folder
    words = ["segment", str(folder), images]
    assert main([*words, str(tmp_path / "one"), "--quiet"]) == 0
    code, told = ended(start([*words, str(tmp_path / "three"), "--quiet"], *TORCHRUN))
    assert code == 0, told
    one, three = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "three")
    )
    assert three == one
    assert len(one) == 8
