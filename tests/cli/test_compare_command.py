"""`dense-imb compare`: options reach the configuration of the runs."""

from __future__ import annotations

import shlex

import pytest

from dense_imb.cli import compare, main
from dense_imb.compare import ComparisonTable, Contestant
from dense_imb.runs import Recipe, open_run
from tests.runs.tiny import write_events
from tests.tasks.hits.test_networks_of_hits import telescope_events


@pytest.mark.parametrize("typed", [["--above", "127"], ["--labels", "0", "255"]])
def test_options_of_masks_make_a_configuration_that_trains(typed):
    options = compare.make_parser().parse_args(["images", "--masks", "masks", *typed])
    config = compare._config(options)
    assert Recipe.of(config).config.images == config.images
    assert config.images.above in (None, 127)
    assert isinstance(config.images.above, int | None)


def test_the_command_with_more_seeds_can_be_pasted():
    typed = ["compare", "my images", "--masks", "masks", "--labels", "0", "255", "--loss", "focal",
             "--minutes", "3", "--out", "cmp", "--false-objects", "2", "--allow-import", "a",
             "--allow-import", "b", "--quiet"]  # fmt: skip
    again = compare._typed(compare.make_parser().parse_args(typed[1:]))
    runs = [{"loss": name, "seed": seed, "ap": value + seed / 100, "cpu_seconds": 1.0}
            for name, value in (("focal", 0.5), ("Dice", 0.5)) for seed in range(2)]  # fmt: skip
    losses = [Contestant("focal", "FocalLoss"), Contestant("Dice", "DiceLoss")]
    table = ComparisonTable.from_runs(runs, ["ap"], losses, 40, folder="cmp", typed=again)
    last = table.advice().splitlines()[-1]
    assert last.startswith("More seeds make it more certain: dense-imb compare ")
    words = shlex.split(last.partition(": ")[2])
    options = compare.make_parser().parse_args(words[2:])
    wanted = compare.make_parser().parse_args(typed[1:])
    assert (options.data, options.labels, options.steps) == ("my images", [0, 255], 40)
    assert (options.seeds, options.out, options.loss) == (
        5,
        "cmp-5-seeds",
        ["focal=FocalLoss", "Dice=DiceLoss"],
    )
    assert options.allow_import == ["a", "b"]
    assert compare._config(options) == compare._config(wanted)
    assert options.false_objects == 2


@pytest.fixture
def telescope(tmp_path):
    return write_events(tmp_path / "telescope.h5", telescope_events(12))


@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
def test_losses_are_compared_on_hits_of_sensors_with_features(telescope, tmp_path, capsys):
    typed = ["compare", telescope, "--out", str(tmp_path / "out"), "--loss", "focal", "--loss",
             "cross-entropy", "--steps", "2", "--seeds", "1", "--model", "hits:tiny",
             "--batch-size", "2", "--features", "charge", "direction", "--quiet"]  # fmt: skip
    assert main(typed) == 0
    assert "removed at 97 %" in capsys.readouterr().out
    run = open_run(tmp_path / "out" / "focal-0")
    assert run.config.hits.features == ["charge", "direction"]
    assert run.config.model.name == "hits:tiny"


def test_features_of_frames_and_frames_of_sensors_are_refused_with_the_option_of_compare(
    telescope, tmp_path, capsys
):
    typed = ["compare", telescope, "--out", str(tmp_path / "out"), "--steps", "2", "--quiet",
             "--model", "fast_unet"]  # fmt: skip
    assert main([*typed, "--features", "charge"]) == 2
    assert "or take --model hits" in capsys.readouterr().err
    assert main(typed) == 2
    assert "take a network of hits, --model hits" in capsys.readouterr().err
    options = compare.make_parser().parse_args(["images", "--masks", "masks", "--features", "a"])
    with pytest.raises(ValueError, match="is an option for hits files, got images with masks"):
        compare._config(options)
