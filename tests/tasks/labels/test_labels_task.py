"""A classifier of whole images: it learns, resumes to the bit, refuses in words."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb.cli import main
from dense_imb.config import HitsConfig, MixingConfig, SamplingConfig
from dense_imb.data.labels.cifar import open_cifar
from dense_imb.engine import CollapseAlarm, CollapseWarning, Interrupted
from dense_imb.engine.callbacks import find_collapse
from dense_imb.runs import open_run, train
from dense_imb.runs.write import RunFiles
from dense_imb.tasks.labels.evaluate import evaluate_labels
from dense_imb.tasks.labels.recipe import open_classified, open_test_table
from dense_imb.tasks.labels.task import LabelsBatch, LabelsReading
from dense_imb.tasks.labels.trained import Commonest
from dense_imb.tasks.recipe import build_task
from tests.engine.test_loop import Signal
from tests.runs.labelled_pictures import (
    CLASSES,
    of_table,
    tiny_classes,
    write_cifar,
    write_tables,
)
from tests.runs.tiny import assert_same_runs

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cifar(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tables(tmp_path_factory.mktemp("table"))


def quiet(config, folder: Path, **options):
    return train(config, folder, is_quiet=True, **options)


@pytest.fixture(scope="module")
def trained(archive, tmp_path_factory: pytest.TempPathFactory):
    cifar = {"train": archive, "imb_ratio": 4, "many": 20, "few": 8}
    config = tiny_classes(
        labels=cifar, steps=100, validate_every=25, loss="BalancedSoftmaxLoss",
        model={"options": {"depth": 8}},
    )  # fmt: skip
    return quiet(config, tmp_path_factory.mktemp("runs") / "tail")


def test_it_learns_the_head_and_the_tail(trained, archive):
    row = trained.history[-1]
    assert row["balanced_accuracy"] > 0.7
    assert row["tail_accuracy"] > 0.5
    classifier = trained.trained(device="cpu")
    test = open_cifar(archive)[1]
    table = evaluate_labels([classifier, Commonest((2, 1) * 5)], test, classifier.reading)
    best = trained.metrics["best"]["balanced_accuracy"]
    assert table["tail"]["balanced_accuracy"] == pytest.approx(best, abs=1e-12)
    assert table["commonest"]["balanced_accuracy"] == pytest.approx(0.1)
    probability = classifier.probability(test.images(range(5)))
    torch.testing.assert_close(probability.sum(1), torch.ones(5))


def test_a_resumed_run_is_the_same_to_the_bit(archive, tmp_path, monkeypatch):
    loss = "HardMiningLoss(balance={})"
    config = tiny_classes(labels={"train": archive, "imb_ratio": 4}, loss=loss, steps=16)
    whole = quiet(config, tmp_path / "whole")
    signal_at = Signal(9)
    monkeypatch.setattr(RunFiles, "on_step", lambda self, loop: signal_at.on_step(loop))
    with pytest.raises(Interrupted):
        quiet(config, tmp_path / "again")
    monkeypatch.undo()
    quiet(config, tmp_path / "again", resume=True)
    assert_same_runs(tmp_path / "again", whole.folder)


@pytest.mark.parametrize(
    "loss",
    [
        "ce", "csce", "CBLoss", "flg2a50", "CBFLossg05", "hmld10000000g05a75",
        "HardMiningLoss(balance={})", "ComplementCrossEntropyLoss", "torch.nn:CrossEntropyLoss",
        "torch.nn:CrossEntropyLoss(label_smoothing=0.1)", "ClassDependentTemperatureLoss",
    ],
)  # fmt: skip
def test_every_kind_of_loss_trains(folder, tmp_path, loss):
    run = quiet(of_table(folder, loss=loss, steps=4, validate_every=4), tmp_path / "run")
    assert run.metrics["is_finished"]
    row = run.history[-1]
    assert sum(row[f"gradient_share_class_{k}"] for k in range(3)) == pytest.approx(1)


def test_margins_want_cosines_and_answer_in_their_scale(folder, tmp_path):
    with pytest.raises(ValueError, match="cosine head with LDAM-RW, .* got linear"):
        quiet(of_table(folder, loss="LDAM-RW"), tmp_path / "run")
    options = {"depth": 8, "width": 4, "head": "cosine"}
    config = of_table(folder, loss="LDAM-RW", model={"options": options}, steps=4)
    classifier = quiet(config, tmp_path / "cosine").trained(device="cpu")
    assert classifier.reading.scale == 30
    images = np.zeros((2, 3, 24, 24), np.uint8)
    network = classifier.network(classifier.reading.shown(images, torch.device("cpu")))
    torch.testing.assert_close(classifier.logits(images), 30 * network)


def test_a_timm_network_trains_and_comes_back(folder, tmp_path):
    pytest.importorskip("timm")
    config = of_table(folder, model={"name": "timm:resnet10t", "options": {}}, steps=2)
    run = quiet(config, tmp_path / "run")
    assert run.trained(device="cpu").logits(np.zeros((1, 3, 24, 24), np.uint8)).shape == (1, 3)


def test_weights_are_not_fetched_again_for_a_run_that_has_its_own(folder, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    create, asked = timm.create_model, []

    def untrained(name, *, pretrained, **options):
        asked.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", untrained)
    model = {"name": "timm:resnet10t", "options": {"pretrained": True}}
    quiet(of_table(folder, model=model, steps=1), tmp_path / "run").trained(device="cpu")
    assert asked[0]
    assert not any(asked[1:])


def test_a_batch_is_a_function_of_its_samples_and_the_epoch(folder):
    task, again = (build_task(of_table(folder)) for _ in range(2))
    device = torch.device("cpu")
    whole = task.batch(np.arange(8), 3, device)
    again.batch(np.arange(20), 0, device)
    part = again.batch(np.array([5, 2]), 3, device)
    assert torch.equal(part.shown, whole.shown[[5, 2]])
    assert torch.equal(part.label, whole.label[[5, 2]])
    assert not torch.equal(task.batch(np.arange(8), 4, device).shown, whole.shown)


def test_mixed_labels_have_a_cost_between(folder):
    task = build_task(of_table(folder))
    task.network.eval()
    batch = task.batch(np.arange(6), 0, torch.device("cpu"))
    one_hot = torch.nn.functional.one_hot(batch.label, 3).float()
    hard = task.cost(task.network, batch)
    torch.testing.assert_close(
        task.cost(task.network, LabelsBatch(batch.shown, batch.label, one_hot)), hard
    )
    shares = task.gradient_shares(task.network, LabelsBatch(batch.shown, batch.label, one_hot))
    assert np.nansum([*shares.values()]) == pytest.approx(1)  # a class that is not there has none


@pytest.mark.parametrize("kind", ["mixup", "balanced-mixup", "unimix"])
def test_every_mixing_and_sampling_trains_and_resumes_to_the_bit(
    folder, tmp_path, monkeypatch, kind
):
    config = replace(
        of_table(folder), sampling=SamplingConfig("class"), mixing=MixingConfig(kind=kind)
    )
    whole = quiet(config, tmp_path / "whole")
    signal_at = Signal(7)
    monkeypatch.setattr(RunFiles, "on_step", lambda self, loop: signal_at.on_step(loop))
    with pytest.raises(Interrupted):
        quiet(config, tmp_path / "again")
    monkeypatch.undo()
    quiet(config, tmp_path / "again", resume=True)
    assert_same_runs(tmp_path / "again", whole.folder)


def test_sampling_by_class_shows_the_tail_as_often_as_the_head(folder):
    config = replace(of_table(folder), sampling=SamplingConfig("class"))
    task = build_task(config)
    orders = [task.order(0, epoch) for epoch in range(40)]
    shown = np.bincount(task.train.labels[np.concatenate(orders) % task.n_samples])
    assert shown / shown.sum() == pytest.approx([1 / 3] * 3, abs=0.05)


def test_many_classes_tell_the_gradient_of_head_middle_and_tail(tmp_path):
    from tests.data.labels.generated import small_data

    files = small_data.cifar_files(100, 12)
    path = str(small_data.write_archive(tmp_path / "c.tar.gz", files))
    cifar = {"train": path, "imb_ratio": 6, "many": 8, "few": 4}
    task = build_task(tiny_classes(labels=cifar))
    shares = task.gradient_shares(task.network, task.batch(np.arange(64), 0, torch.device("cpu")))
    names = [f"gradient_share_{name}" for name in ("head", "middle", "tail")]
    assert list(shares) == names
    assert np.nansum([*shares.values()]) == pytest.approx(1)  # a class that is not there has none


def test_one_class_for_all_sets_off_the_alarm():
    assert find_collapse({"auc": 0.9, "most_called": 1.0}) == "one class"
    assert find_collapse({"auc": 0.9, "most_called": 0.8}) is None
    assert find_collapse({"auc": 0.5, "most_called": 1.0}) == "chance"
    assert find_collapse({"recall_at_half": 0.5}) is None  # no order to judge


def test_a_network_that_predicts_one_class_is_reported(folder, tmp_path):
    # a rate of 0 keeps the network as it began: every image is nearly the same to it
    config = of_table(folder, optimizer={"learning_rate": 0.0}, steps=15)
    with pytest.warns(CollapseWarning, match="predicts one class|no better than chance"):
        quiet(config, tmp_path / "run")
    assert CollapseAlarm("warn").patience == 2


def test_the_head_and_the_tail_are_those_of_the_training_images(trained):
    reading = trained.trained(device="cpu").reading
    assert LabelsReading.from_text(reading.as_text()) == reading
    assert (reading.train_counts[0], reading.train_counts[-1]) == (24, 6)
    scores = trained.scores()
    assert scores.groups["head"] == (0,)
    assert scores.groups["tail"] == (8, 9)


def test_held_out_images_of_cifar_are_no_test_images(archive):
    cifar = {"train": archive, "imb_ratio": 4, "validation_share": 0.25}
    kept, held = open_classified(tiny_classes(labels=cifar).labels)
    whole, _ = open_classified(tiny_classes(labels={**cifar, "validation_share": 0.0}).labels)
    assert not set(kept.numbers) & set(held.numbers)
    assert sorted([*kept.numbers, *held.numbers]) == whole.numbers
    assert min(held.class_counts) >= 1


def test_groups_are_held_out_together(folder, tmp_path):
    with Path(folder, "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "grouped.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "label", "patient"])
        writer.writeheader()
        writer.writerows({**row, "patient": i // 3} for i, row in enumerate(rows))
    table = {"train": str(tmp_path / "grouped.csv"), "group_column": "patient"}
    kept, held = open_classified(of_table(folder, labels=table).labels)
    assert not {i // 3 for i in kept.numbers} & {i // 3 for i in held.numbers}


def test_evaluate_prints_a_table(trained, tmp_path, capsys):
    out = tmp_path / "table"
    assert main(["evaluate", str(trained.folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "40 images of 10 classes; head: more than 20" in printed
    assert "tail: true, called" in printed
    stored = json.loads((out / "evaluation.json").read_text())
    whole = stored["rows"][0]
    assert (whole["scorer"], whole["class"]) == ("tail", "all")
    right = np.trace(np.array(stored["confusion"]["tail"]))
    assert whole["accuracy"] == pytest.approx(right / 40)
    assert len(stored["rows"]) == 2 * (1 + 10)
    assert len((out / "evaluation.csv").read_text().splitlines()) == 1 + 22


def test_a_saved_run_is_tested_on_a_table(folder, tmp_path, capsys):
    run = quiet(of_table(folder, steps=4), tmp_path / "run")
    arguments = ["evaluate", str(run.folder), f"{folder}/test.csv", "--format", "json"]
    assert main(arguments) == 0
    by_default = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--images", f"{folder}/images", "--no-baselines"]) == 0
    named = json.loads(capsys.readouterr().out)
    assert named["rows"] == by_default["rows"][:4]
    test = open_test_table(run.config.labels, f"{folder}/test.csv", f"{folder}/images")
    assert by_default["rows"][0]["n_images"] == len(test)
    assert by_default["classes"] == CLASSES
    for wrong in (["evaluate", str(run.folder)], [*arguments, "--masks", "x"]):
        assert main(wrong) == 2
        told = capsys.readouterr().err
        assert "Expected a CSV file" in told or "--masks is no option for whole images" in told


def test_the_command_trains_and_resumes(archive, tmp_path, capsys):
    typed = [
        "train", "labels", "--out", str(tmp_path / "run"), "--labels.train", archive,
        "--imb-ratio", "0.25", "--model.name", "resnet32", "--steps", "4",
        "--model.options", '{"depth": 8, "width": 4}',
        "--loss", "hmld10000000g05a75", "--quiet", "--batch_size", "16",
    ]  # fmt: skip
    assert main(typed) == 0
    assert "balanced accuracy" in capsys.readouterr().out
    assert open_run(tmp_path / "run").config.labels.imb_ratio == 0.25
    assert main(["train", "labels", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert "finished before" in capsys.readouterr().out
    for command in (["denoise", "RUN", "a", "b"], ["segment", "RUN", "a", "b"]):
        assert main([word.replace("RUN", str(tmp_path / "run")) for word in command]) == 2
        assert "Expected a run on " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": {"name": "fast_unet"}}, "network of whole images"),
        ({"loss": "ACBMSELoss"}, "loss of logits to classify with"),
        (
            {"loss": 'CrossEntropyLoss(per="instance")'},
            'A loss of whole images takes no per="instance": .* no instances; for example `loss=',
        ),
        ({"labels": {"train": "a.tar.gz"}}, "`labels.images` is an option of CSV files"),
        ({"labels": {"validation_share": 1.0}}, "`validation_share`"),
        ({"labels": {"padding": -1}}, "`padding`"),
        ({"labels": {"few": 200}}, "`few` up to `many`"),
        ({"labels": {"classes": [*CLASSES, "vascular"]}}, r"every class .* class 3 \(vascular\)"),
        ({"labels": {"classes": CLASSES[:2]}}, "'melanoma' in row 44, .* and 2 more"),
        (
            {"labels": {"classes": None}},
            "'nevus' in row 2, .* if labels are names, list them with .classes",
        ),
        ({"labels": {"images": "nowhere"}}, "a folder of images, got nowhere"),
        ({"labels": {"group_column": "patient"}}, "a column 'patient'"),
    ],
    ids=str,
)
def test_what_can_not_be_trained_is_refused(folder, tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        quiet(of_table(folder, **change), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_two_kinds_of_data_are_refused(folder, tmp_path):
    config = replace(of_table(folder), hits=HitsConfig(train="a.h5"))
    with pytest.raises(
        ValueError, match="one kind of training data, got hits.train and labels.train"
    ):
        quiet(config, tmp_path / "run")


def test_validation_images_that_are_trained_on_are_refused(folder, tmp_path):
    table = {"validation": f"{folder}/train.csv"}
    with pytest.raises(ValueError, match=r"not trained on, got train_0000.jpg, .* and 44 more"):
        quiet(of_table(folder, labels=table), tmp_path / "run")


@pytest.mark.parametrize("ratio", [0.0, -2.0, 1000.0])
def test_a_ratio_that_makes_no_sense_is_refused(archive, tmp_path, ratio):
    with pytest.raises(ValueError, match="`imb_ratio`"):
        quiet(tiny_classes(labels={"train": archive, "imb_ratio": ratio}), tmp_path / "run")


def test_weights_of_another_network_are_refused(trained, archive, tmp_path):
    config = tiny_classes(labels={"train": archive})
    with pytest.raises(
        ValueError, match="to be this one, ClassNetwork, 5006 parameters, got the weights of"
    ) as refused:
        quiet(config, tmp_path / "run", warm_start=trained.folder)
    cure = "the models are the same, so train on data of that run's channels and classes."
    assert "model.options: {'depth': 8} there, {'depth': 8, 'width': 4} here" in str(refused.value)
    folder = write_tables(tmp_path / "tables")  # of three classes
    same = of_table(folder, model={"options": trained.config.model.options})
    with pytest.raises(ValueError, match="size mismatch for .*torch") as refused:
        quiet(same, tmp_path / "run", warm_start=trained.folder)
    assert str(refused.value).endswith(cure)


def test_a_run_of_classes_segments_and_scores_nothing(trained):
    for wrong in (trained.geometry, trained.operating_point):
        with pytest.raises(ValueError, match="Expected a run on hits for "):
            wrong()
