"""Losses compared on images with maps of values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from dense_imb.cli import compare as command
from dense_imb.cli import main
from dense_imb.compare import ComparisonTable, Contestant, compare, contestants, parse_contestant
from dense_imb.compare.maps import draw_map_examples, make_map_examples
from dense_imb.compare.values import edges_of
from dense_imb.data.values.pairs import open_values
from dense_imb.runs import Recipe, open_run
from dense_imb.tasks.values.evaluate import Predicts, evaluate_values
from dense_imb.tasks.values.recipe import open_test_images
from tests.data.values.value_files import spots, write_hdf5
from tests.tasks.values.tiny_values import tiny_values

NAMES = ["MSE", "ACB-MSE", "value bins of power 1/2", "balanced cells"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory):
    images, targets = spots(8, (32, 32))
    cells = (targets > 0).astype("uint16")
    cells[:, :16] |= 2
    path = tmp_path_factory.mktemp("spots") / "a.h5"
    write_hdf5(path, ["spot", "upper"], image=images, target=targets, cells=cells)
    values = {"cells": "cells", "cell_kind": "bits", "test_share": 0.25, "patch": [16, 16]}
    return tiny_values(str(path), values=values)


@pytest.fixture(scope="module")
def table(config, tmp_path_factory: pytest.TempPathFactory) -> ComparisonTable:
    folder = tmp_path_factory.mktemp("compared") / "all"
    return compare(config, folder, losses=NAMES, n_seeds=1, steps=4, is_quiet=True,
                   say=lambda line: None)  # fmt: skip


def test_every_loss_has_its_scores_beside_rows_without_a_network(table):
    assert {row["loss"] for row in table.rows} == {*NAMES}
    assert not any(row["failed"] for row in table.rows)
    assert table.plain == "MSE"
    blank, mean = table.references
    assert (blank["loss"], blank["skill"], blank["lit_f1"], blank["blank_rate"]) == (
        "blank", 0, 0, 1,
    )  # fmt: skip
    assert mean["loss"] == "mean of training"
    stored = json.loads((Path(table.folder) / "comparison.json").read_text())
    assert [row["loss"] for row in stored["references"]] == ["blank", "mean of training"]
    text = table.text()
    assert "gain in skill over MSE" in text
    assert "blank images: fraction of the images with lit pixels" in text
    assert text.index("blank  ") > text.index("ACB-MSE  ")


def test_scores_are_those_of_evaluate(table, config):
    test = open_test_images(config.values)
    run = open_run(table.run_folder("ACB-MSE", 0))
    network = run.trained(device="cpu")
    rows = [Predicts("raw", network, True), Predicts("read out", network, False)]
    wanted = evaluate_values(rows, test)
    (got,) = (one for one in table.runs if one["loss"] == "ACB-MSE")
    for raw, read_out, name in (
        ("skill", "read_out_skill", "skill"),
        ("lit_ratio", "read_out_lit_ratio", "lit_ratio"),
        ("", "rmse", "rmse"),
        ("", "lit_f1", "f1"),
    ):
        assert not raw or got[raw] == wanted["raw"][name]
        assert got[read_out] == wanted["read out"][name]
    assert table.references[0]["rmse"] == wanted["blank"]["rmse"]
    assert table.references[1]["skill"] == wanted["mean of training"]["skill"]
    lit = np.array(network.reading.lit_levels())[:, None, None]  # as scores compare, in double
    is_blank = [not (network.predict(test.image(i)).numpy() > lit).any() for i in range(len(test))]
    assert got["blank_rate"] == np.mean(is_blank)


def test_all_runs_share_split_network_and_steps(table):
    configs = [open_run(table.run_folder(name, 0)).config for name in NAMES]
    assert len({repr(one.values) for one in configs}) == 1
    assert len({(repr(one.model), one.steps, one.batch_size) for one in configs}) == 1
    losses = {name: one.loss for name, one in zip(NAMES, configs, strict=True)}
    assert losses["balanced cells"] == 'BalancedRegressionLoss("l1", "masks", n_classes=2)'
    assert "power=0.5" in losses["value bins of power 1/2"]


def test_the_page_shows_maps(table):
    from dense_imb.compare import write_page

    page = write_page(table).read_text()
    assert "<h2>Examples</h2>" in page
    assert "mean of training" in page
    examples = make_map_examples(table)
    figure = Figure()
    draw_map_examples(examples, figure)
    assert len(figure.axes) == len(examples) * (1 + 2 + len(examples[0].prediction))
    for one in examples:
        assert {values.shape for values in one.prediction.values()} == {one.target.shape}


def test_edges_leave_no_bin_empty(config):
    rng = np.random.default_rng(0)
    samples = [
        np.concatenate([np.zeros(50), rng.exponential(1.0, 50)]),
        np.array([0.0, 7.0]),
        np.array([0.0, 1.0, 1.0, 1.0, 1.0, 9.0]),
        rng.normal(100, 1, 50),  # nothing below the level
        open_values(config.values.train).target(0),
    ]
    for values in samples:
        level = float(np.abs(values[values != 0]).mean() / 2)
        edges = edges_of(values.ravel(), level)
        counts = np.bincount(np.searchsorted(edges, values.ravel(), "right"))
        assert len(counts) == len(edges) + 1
        assert counts.all()
        assert list(edges) == sorted(set(edges))
    assert edges_of(np.zeros(4), 0.5) == ()


def table_of(**values: tuple[float, list[float]]) -> ComparisonTable:
    """Losses with a skill and an RMSE of each seed."""
    runs = [
        {"loss": name, "seed": seed, "skill": skill + seed / 1000, "rmse": one, "cpu_seconds": 1.0}
        for name, (skill, rmse) in values.items()
        for seed, one in enumerate(rmse)
    ]
    losses = [Contestant(name, f"{name}()") for name in values]
    blank = {"loss": "blank", "skill": 0.0, "rmse": 2.0}
    return ComparisonTable.from_runs(runs, ["skill", "rmse"], losses, 400, references=[blank])


def test_the_advice_names_who_leads_in_another_score_and_who_is_no_better_than_blank():
    advice = table_of(a=(0.5, [1.0, 1.1]), b=(0.4, [0.5, 0.6])).advice()
    assert "Other scores have other leaders: RMSE b (0.55 +- 0.0707)." in advice
    assert "Other scores" not in table_of(a=(0.5, [1.0, 1.1]), b=(0.4, [0.9, 1.1])).advice()
    assert "Other scores" not in table_of(a=(0.5, [0.5, 0.6]), b=(0.4, [1.0, 1.1])).advice()
    assert "does not beat" not in advice
    poor = table_of(a=(-0.1, [1.0, 1.1]), b=(-0.2, [1.0, 1.1]))
    assert "It does not beat blank, which needs no network: train longer." in poor.advice()


def test_names_of_value_bins_can_be_typed():
    known = contestants("values", edges=(0.5,), cells=("labels", 3))
    for one in known:
        assert parse_contestant(one.name.upper(), known) == one
        assert parse_contestant(f"{one.name}={one.loss}", []).loss == one.loss
    assert [one.name for one in contestants("values")] == ["MSE", "ACB-MSE", "MAE"]


@pytest.mark.parametrize(
    "words",
    [
        ["images", "--targets", "maps", "--cells", "c", "--cell-kind", "bits", "--cell-names", "a",
         "--counted", "m", "--level", "0.5", "--patch", "16", "16", "--test-share", "0.5"],
        ["{file}"],
        ["{file}", "--targets", "dose"],
    ],
    ids=len,
)  # fmt: skip
def test_options_make_a_configuration_of_values(config, words):
    words = [word.format(file=config.values.train) for word in words]
    made = command._config(command.make_parser().parse_args(words))
    assert Recipe.of(made).config.values == made.values
    assert made.values.train == words[0]
    if len(words) > 3:
        values = made.values
        assert (values.targets, values.cells, values.cell_kind) == ("maps", "c", "bits")
        assert (values.cell_names, values.level, values.patch) == (["a"], 0.5, [16, 16])
        assert (values.test_share, values.counted) == (0.5, "m")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--labels", "0", "1"], "--labels is an option for images with masks, got maps of values"),
        (["--noise", "5"], "--noise is an option for hits files, got maps of values"),
        (["--test", "t.csv"], "--test is an option for whole images, got maps of values"),
        (["--test-share", "0"], "Expected `test_share` above 0 to have images for tests, got 0"),
        (["--loss", "MSE", "--loss", "focal"], "a loss of values, got FocalLoss, a loss of logits"),
        (["--loss", "MSE", "--loss", "value bin"], "Did you mean 'value bins'?"),
    ],
    ids=lambda case: case[0] if isinstance(case, list) else "",
)
def test_words_that_do_not_fit_are_one_sentence(config, tmp_path, capsys, words, sentence):
    out = ["--out", str(tmp_path / "out"), "--quiet"]
    assert main(["compare", config.values.train, *words, *out]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_options_of_values_are_refused_for_other_data(capsys):
    options = command.make_parser().parse_args(["images", "--masks", "m", "--level", "1"])
    with pytest.raises(ValueError, match="`level` is an option for maps of values, got images"):
        command._config(options)
