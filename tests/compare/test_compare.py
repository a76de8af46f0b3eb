"""A comparison of losses: alike for all, resumable, and honest about chance."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dense_imb.base.refusals import Refused
from dense_imb.cli import main
from dense_imb.compare import ComparisonTable, Contestant, compare, contestants, parse_contestant
from dense_imb.compare.contestants import N_FIRST, ORDER, PLAIN
from dense_imb.compare.figure import draw
from dense_imb.compare.plan import LEAST_STEPS, MOST_STEPS, count_runs, plan, run_seconds
from dense_imb.config import TrainConfig
from dense_imb.losses.foreign.parse import parse_loss
from dense_imb.runs import open_run
from dense_imb.tasks.images.recipe import open_images, open_test_images
from dense_imb.tasks.labels.evaluate import evaluate_labels
from dense_imb.tasks.labels.recipe import open_cifar_test, open_classified, open_test_table
from tests.runs.labelled_pictures import CLASSES, of_table, tiny_classes, write_cifar, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events

TWO = [Contestant(PLAIN, "CrossEntropyLoss", False), Contestant("ours", "HardMiningLoss")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folders = write_folders(tmp_path_factory.mktemp("pictures"), n=12)
    return tiny_images(folders, images={"test_share": 0.25})


def quiet(config: TrainConfig, folder: Path, **options):
    options = {"losses": TWO, "n_seeds": 2, "steps": 4, "say": lambda line: None, **options}
    return compare(config, folder, is_quiet=True, **options)


@pytest.fixture(scope="module")
def compared(config, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("compared") / "all"
    return folder, quiet(config, folder)


def test_every_loss_has_a_row_and_the_best_comes_first(compared):
    _, table = compared
    assert {row["loss"] for row in table.rows} == {PLAIN, "ours"}
    first, second = (float(row["average_precision"]) for row in table.rows)
    assert first >= second
    for row in table.rows:
        own = [run["average_precision"] for run in table.runs if run["loss"] == row["loss"]]
        assert row["average_precision"] == pytest.approx(sum(own) / 2)
        assert row["n_seeds"] == 2


def test_what_is_done_is_not_done_again(compared, config):
    folder, table = compared
    stored = folder / "ours-1" / "result.json"
    changed = json.loads(stored.read_text())
    changed["average_precision"] = 0.125
    stored.write_text(json.dumps(changed))
    again = quiet(config, folder)
    (row,) = (run for run in again.runs if run["loss"] == "ours" and run["seed"] == 1)
    assert row["average_precision"] == 0.125
    others = [run for run in again.runs if run is not row]
    assert others == [r for r in table.runs if (r["loss"], r["seed"]) != ("ours", 1)]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"n_seeds": 3}, "n_seeds"), ({"losses": [*TWO, Contestant("x", "FocalLoss")]}, "losses")],
    ids=str,
)
def test_another_comparison_in_the_folder_is_refused(compared, config, change, named):
    with pytest.raises(ValueError, match=rf"go on with it, got another \({named} differ\)"):
        quiet(config, compared[0], **change)


def test_a_folder_of_something_else_is_refused(config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        quiet(config, tmp_path)


def test_no_run_sees_a_test_image(config):
    train, validation = open_images(config.images)
    names = [set(part.names) for part in (train, validation, open_test_images(config.images))]
    assert [len(part) for part in names] == [7, 2, 3]
    assert len(set.union(*names)) == 12


def test_the_six_that_matter_most_may_have_more_seeds(config, tmp_path):
    table = quiet(config, tmp_path / "more", n_seeds=1, first_seeds=2, steps=2)
    assert [row["n_seeds"] for row in table.rows] == [2.0, 2.0]


@pytest.mark.parametrize(
    ("losses", "got"), [(TWO[:1], "got 1"), ([TWO[0], TWO[0]], "got cross-entropy twice")]
)
def test_one_loss_is_no_comparison(config, tmp_path, losses, got):
    with pytest.raises(ValueError, match=got):
        quiet(config, tmp_path / "x", losses=losses)


def runs_of(**values: list[float]) -> list[dict]:
    return [
        {"loss": name, "seed": seed, "ap": value, "cpu_seconds": 1.0}
        for name, of_loss in values.items()
        for seed, value in enumerate(of_loss)
    ]


def table_of(**values: list[float]) -> ComparisonTable:
    losses = [Contestant(name, f"{name}()") for name in values]
    return ComparisonTable.from_runs(runs_of(**values), ["ap"], losses, 10)


def test_the_test_is_paired_by_seed():
    stats = pytest.importorskip("scipy.stats")
    a, b = [0.5, 0.6, 0.9], [0.3, 0.45, 0.72]
    table = ComparisonTable.from_runs(
        [{**run, "loss": PLAIN} if run["loss"] == "b" else run for run in runs_of(a=a, b=b)],
        ["ap"],
        [Contestant("a", ""), Contestant(PLAIN, "CrossEntropyLoss")],
        10,
    )
    row = table.rows[0]
    assert row["gain"] == pytest.approx(sum(a) / 3 - sum(b) / 3)
    assert row["p"] == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_any_row_may_be_the_one_that_others_are_compared_with():
    losses = [Contestant("a", "CrossEntropyLoss"), Contestant("b", "CrossEntropyLoss")]
    runs = runs_of(a=[0.5, 0.6], b=[0.3, 0.5])
    gains = {}
    for plain in (None, "b"):
        table = ComparisonTable.from_runs(runs, ["ap"], losses, 10, plain=plain)
        gains[table.plain] = {row["loss"]: row["gain"] for row in table.rows}
    assert gains["a"] == pytest.approx({"a": 0.0, "b": -0.15})
    assert gains["b"] == pytest.approx({"a": 0.15, "b": 0.0})


def test_the_advice_begins_with_how_sure_it_is():
    pytest.importorskip("scipy")
    advice = table_of(a=[0.8, 0.82, 0.79], b=[0.79, 0.83, 0.78], c=[0.2, 0.21, 0.22]).advice()
    assert advice.startswith("No loss is clearly ahead. The first is a")
    assert "its lead over b may be chance. It is ahead of c." in advice
    assert "--seeds 5 --loss 'a=a()' --loss 'b=b()'" in advice
    sure = table_of(a=[0.8, 0.82, 0.79], c=[0.2, 0.21, 0.22]).advice()
    assert sure.startswith("Take a")
    assert "10 steps are few" in sure


def test_the_losses_of_the_advice_can_be_typed():
    names = ["focal", "balanced softmax + Dice", "mine", "FocalLoss(gamma=1.0)"]
    known = {one.name: one for one in contestants("images")}
    losses = [known.get(name, Contestant(name, "FocalLoss(gamma=1.0)")) for name in names]
    runs = [{"loss": name, "seed": 0, "ap": 0.5, "cpu_seconds": 1.0} for name in names]
    advice = ComparisonTable.from_runs(runs, ["ap"], losses, 10).advice()
    typed = re.findall(r"--loss '(.*?)'", advice.partition("More seeds")[2])
    assert len(typed) == 4
    for text in typed:
        one = parse_contestant(text, contestants("images"))
        assert (one.name, one.loss) in [(loss.name, loss.loss) for loss in losses]


def test_one_seed_proves_nothing():
    table = table_of(a=[0.8], b=[0.2])
    assert math.isnan(float(table.rows[0]["p_best"]))
    assert "lead over b may be chance" in table.advice()


@pytest.mark.parametrize(
    ("loss", "is_plain"),
    [("CrossEntropyLoss", True), ("CrossEntropyLoss()", True), ("torch.nn:BCEWithLogitsLoss", True),
     ("CrossEntropyLoss(balance={})", False), ("mine:CrossEntropyLoss", False), ("x", False)],
)  # fmt: skip
def test_plain_cross_entropy_is_known_by_what_it_is(loss, is_plain):
    assert Contestant("some name", loss).is_plain is is_plain


def test_without_plain_cross_entropy_nothing_is_said_of_it():
    text = table_of(a=[0.8, 0.7], b=[0.2, 0.3]).text()
    assert "gain" not in text
    assert "cross-entropy" not in text


def test_a_loss_that_became_nan_comes_last():
    table = table_of(a=[math.nan, 0.9], b=[0.2, 0.2])
    assert [row["loss"] for row in table.rows] == ["b", "a"]
    assert json.loads(table.json())["rows"][1]["ap"] is None


@pytest.mark.parametrize("first_seeds", [0, 5])
@pytest.mark.parametrize("n_losses", [2, 14])
@pytest.mark.parametrize("budget", [10.0, 60.0, 300.0, 3600.0, 1e6])
def test_a_plan_keeps_to_the_budget_or_is_refused(budget, n_losses, first_seeds):
    costs = {"step_seconds": 0.05, "score_seconds": 5}
    wanted = {**costs, "n_losses": n_losses, "n_seeds": 3, "first_seeds": first_seeds}
    least = count_runs(2, 1, first_seeds) * run_seconds(LEAST_STEPS, **costs)
    if budget < least:
        with pytest.raises(Refused, match=f"`minutes` of at least .* got {budget / 60:.3g}"):
            plan(budget, **wanted)
        return
    chosen = plan(budget, **wanted)
    n_runs = count_runs(chosen.n_losses, chosen.n_seeds, first_seeds)
    assert chosen.seconds == pytest.approx(n_runs * run_seconds(chosen.steps, **costs))
    assert LEAST_STEPS <= chosen.steps <= MOST_STEPS
    assert chosen.seconds <= budget


@pytest.mark.parametrize("score_seconds", [0.1, 8.0, 700.0])
def test_the_least_budget_that_a_refusal_names_is_enough(score_seconds):
    options = {"step_seconds": 0.013, "score_seconds": score_seconds, "n_losses": 9, "n_seeds": 3}
    with pytest.raises(Refused) as refused:
        plan(0.05 * 60, **options)
    least = float(re.search(r"at least ([\d.]+)", str(refused.value))[1])
    assert plan(60 * least, **options).seconds <= 60 * least
    with pytest.raises(Refused):
        plan(60 * (least - 0.1), **options)


def test_a_budget_too_small_starts_nothing(config, tmp_path):
    with pytest.raises(Refused, match=r"`minutes` of at least [\d.]+ .*; .*`steps`"):
        quiet(config, tmp_path / "out", minutes=0.001, steps=None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ORDER)
def test_contestants_are_losses_that_exist(kind):
    known = contestants(kind, n_classes=3, edges=(0.5, 2.0), cells=("masks", 4))
    for one in known:
        parse_loss(one.loss, class_counts=(9, 1))
    assert [one.name for one in known[:N_FIRST]] == list(ORDER[kind][:N_FIRST])
    assert len({one.folder for one in known}) == len(known)
    assert "complement" not in " ".join(one.name for one in contestants(kind, n_classes=2))


def test_who_competes_can_be_typed():
    known = contestants("images")
    assert parse_contestant("balanced Softmax", known).loss == "BalancedSoftmaxLoss"
    assert parse_contestant("FocalLoss(gamma=1.0)", known).name == "FocalLoss(gamma=1.0)"
    assert parse_contestant("mine = FocalLoss(gamma=1.0)", known)[:2] == (
        "mine", "FocalLoss(gamma=1.0)",
    )  # fmt: skip


def test_a_refusal_lists_every_name_once():
    with pytest.raises(ValueError, match="Expected `loss` to be one of") as refusal:
        parse_contestant("nothing", contestants("images"))
    assert str(refusal.value).count("'focal'") == 1


@pytest.mark.parametrize("typed", ["CrossEntropy", "balanced softmx"])
def test_a_misspelt_name_is_refused_with_the_nearest(typed):
    with pytest.raises(ValueError, match="Did you mean '(cross-entropy|balanced softmax)'"):
        parse_contestant(typed, contestants("images"))


def test_a_loss_that_cannot_be_made_is_refused_before_anything_is_timed(config, tmp_path):
    losses = [TWO[0], Contestant("x", "FocalLoss(gama=2)")]
    with pytest.raises(ValueError, match="Did you mean 'gamma'"):
        quiet(config, tmp_path / "out", losses=losses, steps=None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.5, 0.5], [0.0, 0.3], [0.301, 0.303]])
def test_an_axis_of_scores_is_neither_narrow_nor_below_0(values):
    table = table_of(a=values, b=values)
    figure = Figure()
    draw(table, figure)
    low, high = figure.axes[0].get_xlim()
    assert low <= min(values)
    assert high >= max(values)
    assert high - low >= 0.02
    assert low > -0.05
    assert all(tick >= 0 for tick in figure.axes[0].get_xticks() if low <= tick <= high)
    assert len(figure.axes[0].get_xticks()) < 8
    assert high > 1 or any(values)


def test_the_figure_has_a_row_for_each_loss(compared):
    figure = Figure()
    draw(compared[1], figure)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == [row["loss"] for row in compared[1].rows]


def test_hits_compete_by_the_noise_removed(tmp_path):
    path = write_events(tmp_path / "clean.h5", clean_events(40))
    config = tiny(path, hits={"validation_share": 0.4})
    losses = [*TWO, Contestant("weighted", "CrossEntropyLoss(class_weight='inverse')"),
              Contestant("softmax", "BalancedSoftmaxLoss")]  # fmt: skip
    table = quiet(config, tmp_path / "out", losses=losses, n_seeds=1)
    assert table.scores[0] == "removal_at_97"
    assert len(table.rows) == 4


@pytest.mark.slow
def test_the_command(config, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [config.images.train, "--masks", config.images.masks, "--out", str(out),
                 "--steps", "3", "--seeds", "1", "--widths", "4", "8", "--quiet",
                 "--loss", "cross-entropy", "--loss", "Dice"]  # fmt: skip
    assert main(["compare", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "The first is" in printed
    assert (out / "comparison.png").stat().st_size > 10_000
    assert {"comparison.json", "comparison.csv"} <= {path.name for path in out.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["{hits}", "--labels", "0", "255"],
            "--labels is an option for images with masks, got",
        ),
        (
            ["{folder}", "--noise", "3"],
            "--noise is an option for hits files, got images",
        ),
        (["{hits}", "--minutes", "0", "--noise", "5"], "Expected `minutes` above 0"),
        (["{hits}", "--minutes", "0.001", "--noise", "5"], "raise --minutes, or set the length"),
        (["{folder}/none.h5"], "none.h5"),
    ],
    ids=str,
)
def test_bad_options_are_one_sentence(tmp_path, capsys, arguments, sentence):
    hits = write_events(tmp_path / "clean.h5", clean_events(40))
    arguments = [a.format(hits=hits, folder=tmp_path) for a in arguments]
    assert main(["compare", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tables(tmp_path_factory.mktemp("tables"), (40, 25, 10))


def test_whole_images_compete_by_balanced_accuracy(labelled, tmp_path):
    losses = [PLAIN, "LDAM", "mine=CrossEntropyLoss(class_weight='inverse')"]
    table = quiet(of_table(labelled), tmp_path / "out", losses=losses, n_seeds=1, steps=8)
    assert table.scores == ("balanced_accuracy", "tail_accuracy", "accuracy", "calibration_error")
    assert {row["loss"] for row in table.rows} == {PLAIN, "LDAM", "mine"}
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["loss"] for row in stored["rows"]] == [row["loss"] for row in table.rows]
    for name, head in (("cross-entropy", None), ("LDAM", "cosine")):
        run = open_run(tmp_path / "out" / f"{name}-0")
        assert run.config.model.options.get("head") == head
        classifier = run.trained()
        _, validation = open_classified(run.config.labels)
        row = evaluate_labels([classifier], validation, classifier.reading)[classifier.name]
        (compared,) = (one for one in table.runs if one["loss"] == name)
        for score in table.scores:
            assert compared[score] == row[score]


def test_whole_images_are_scored_on_the_test_images_named(labelled, tmp_path):
    config = of_table(labelled)
    test = f"{labelled}/test.csv"
    table = quiet(config, tmp_path / "out", n_seeds=1, steps=2, test=test)
    classifier = open_run(tmp_path / "out" / "ours-0").trained()
    images = open_test_table(config.labels, test, config.labels.images)
    row = evaluate_labels([classifier], images, classifier.reading)[classifier.name]
    (compared,) = (one for one in table.runs if one["loss"] == "ours")
    assert compared["accuracy"] == row["accuracy"]
    with pytest.raises(ValueError, match=r"got another \(test differ\)"):
        quiet(config, tmp_path / "out", n_seeds=1, steps=2)


def test_held_out_images_of_cifar_choose_and_its_test_images_score(tmp_path):
    path = write_cifar(tmp_path, per_class=8)
    config = tiny_classes(labels={"train": path, "validation_share": 0.25})
    table = quiet(config, tmp_path / "out", n_seeds=1, steps=2)
    classifier = open_run(tmp_path / "out" / "ours-0").trained()
    images = open_cifar_test(config.labels)
    row = evaluate_labels([classifier], images, classifier.reading)[classifier.name]
    (compared,) = (one for one in table.runs if one["loss"] == "ours")
    assert table.scores[0] == "balanced_accuracy"
    assert compared["balanced_accuracy"] == row["balanced_accuracy"]


def test_a_loss_of_values_classifies_nothing(labelled, tmp_path):
    with pytest.raises(ValueError, match="Expected a loss of logits to classify with"):
        quiet(of_table(labelled), tmp_path / "out", losses=[PLAIN, "ACBMSELoss"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["hits", "images"])
def test_test_images_belong_to_whole_images(config, tmp_path, kind):
    other = config if kind == "images" else tiny(tmp_path / "none.h5")
    with pytest.raises(ValueError, match=rf"`test=t.csv` is for whole images, got {kind}"):
        quiet(other, tmp_path / "out", test="t.csv")


def test_the_winner_comes_with_the_command_that_trains_it(compared, tmp_path, capsys):
    folder, table = compared
    best = Contestant(str(table.rows[0]["loss"]), "")
    command = f"dense-imb train images --config {folder}/{best.folder}-0/config.yaml --steps 2000"
    assert f"To train with it: {command} --out RUN" in table.advice().splitlines()
    arguments = shlex.split(command.replace("2000", "2"))[1:]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--quiet", "--report", "false"]) == 0
    assert open_run(tmp_path / "run").config.loss == table.losses[best.name]


def test_the_command_compares_whole_images(labelled, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        *(f"{labelled}/train.csv", "--images", f"{labelled}/images", "--out", str(out)),
        *("--classes", *CLASSES, "--test", f"{labelled}/test.csv", "--steps", "2"),
        *("--seeds", "1", "--quiet", "--loss", "cross-entropy", "--loss", "LDAM"),
    ]
    assert main(["compare", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "balanced accuracy" in printed
    assert f"dense-imb train labels --config {out}/" in printed
    assert (out / "comparison.png").stat().st_size > 10_000
