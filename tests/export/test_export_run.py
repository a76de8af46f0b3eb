"""What is written, told, measured and refused."""

from __future__ import annotations

import math
import shutil
import sys

import pytest
import torch
from torch import nn

from dense_imb.cli import main
from dense_imb.export import export_run, throughput, write
from dense_imb.export.network import exportable
from dense_imb.runs import open_run
from dense_imb.tasks.images.evaluate import chosen_thresholds


def test_the_thresholds_are_those_of_the_run(case_of):
    run, exported = case_of("scores.onnx")
    point, chosen = exported.facts["operating_point"], run.operating_point()
    assert point["threshold"] == chosen.threshold
    assert point["chosen_at_retention"] == run.config.hits.retention
    assert f"**{chosen.threshold:.9g}**" in exported.card.read_text()
    run, exported = case_of("volumes.pt2")
    found = exported.facts["operating_point"]["classes"]
    for k, logit in enumerate(chosen_thresholds(run.scores())):
        assert math.isclose(found[str(k)]["threshold"], 1 / (1 + math.exp(-logit)))


def test_the_card_tells_data_loss_and_labels(case_of):
    run, exported = case_of("volumes.pt2")
    card, setup = exported.card.read_text(), run.checkpoint()["setup"]
    reading = run.trained(device="cpu").reading
    assert exported.facts["inputs"][0]["mean"] == list(reading.mean)
    assert exported.facts["training"]["data"] == setup["data"]
    for words in (
        setup["data"],
        run.config.loss,
        "| 2 | class 2 | 9 |",
        "average precision",
        "Licence",
    ):
        assert words in card, words
    assert exported.facts["check"]["on"] == "validation data of the run"
    assert exported.max_difference < 1e-4


@pytest.mark.parametrize("name", ["binary.onnx", "scores.onnx"])
def test_the_scores_of_the_card_are_those_of_the_probabilities_in_the_file(case_of, name):
    run, exported = case_of(name)
    stated, card = exported.facts["scores"], exported.card.read_text()
    scores = run.scores()
    half = scores.at(0.5).retention if name != "binary.onnx" else scores.recall()[1]
    assert run.natural.natural is not None
    assert run.metrics["best"]["recall_at_half"] != half
    assert stated["best"]["recall_at_half"] == half
    assert f"| recall at half | {half:.4g} |" in card
    assert stated["probabilities"] == "natural"
    assert "; probabilities natural." in card
    assert "| step |" not in card
    assert f"| best step | {run.metrics['best']['step']} |" in card


def test_scores_as_trained_are_called_so(case_of, tmp_path):
    run, _ = case_of("binary.onnx")
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / "natural" / "validation_scores.json").unlink()
    exported = export_run(folder, tmp_path / "x.pt2")
    assert exported.facts["scores"]["best"] == run.metrics["best"]
    assert "; probabilities as trained." in exported.card.read_text()


def test_the_card_of_a_classifier_names_its_classes(case_of):
    run, exported = case_of("skin.onnx")
    card, reading = exported.card.read_text(), run.trained(device="cpu").reading
    facts = exported.facts
    assert facts["kind"] == "classifier"
    assert facts["inputs"][0]["shape"] == ["batch", 3, 20, 28]
    assert facts["inputs"][0]["mean"] == list(reading.mean)
    assert facts["outputs"][0]["shape"] == ["batch", 3]
    for k, (name, n) in enumerate(zip(reading.class_names, reading.train_counts, strict=True)):
        assert f"| {k} | {name} | {n} |" in card
    for words in ("likeliest class", "balanced accuracy", "resized to this size", "whole images"):
        assert words in card, words
    assert "Threshold" not in card
    assert facts["check"]["on"] == "validation data of the run"


@pytest.mark.parametrize("name", ["scores.onnx", "volumes.pt2", "margins.pt2"])
def test_frames_are_random_where_the_data_are_gone(case_of, tmp_path, name):
    run, _ = case_of(name)
    folder = shutil.copytree(run.folder, tmp_path / "run")
    text = (folder / "config.yaml").read_text().replace(str(run.folder.parent), "/nowhere")
    (folder / "config.yaml").write_text(text)
    (folder / "validation_scores.json").unlink()
    what = exportable(open_run(folder))
    assert what.source.startswith("random frames")
    wanted = exportable(run).samples
    assert [x.shape[1:] for x in what.samples] == [wanted[0].shape[1:]] * 4
    if name.endswith(".pt2"):
        exported = export_run(folder, tmp_path / name)
        assert exported.facts["check"]["on"] == what.source
        if exported.facts["kind"] == "segmenter":
            assert exported.facts["operating_point"] is None
            assert "None was chosen" in exported.card.read_text()


@pytest.mark.parametrize("wrong", [0.01, math.nan])
def test_a_file_that_answers_otherwise_is_refused(case_of, tmp_path, monkeypatch, wrong):
    true = write._answer

    def answer(path, suffix):
        return lambda given: [one + wrong for one in true(path, suffix)(given)]

    monkeypatch.setattr(write, "_answer", answer)
    with pytest.raises(ValueError, match=r"to differ from PyTorch by at most 0\.001, got"):
        export_run(case_of("both.pt2").run, tmp_path / "x.pt2")
    assert list(tmp_path.iterdir()) == []


class _Undecided(nn.Module):
    def forward(self, time):
        return time if time.sum() > 0 else -time


def test_a_network_that_cannot_be_traced_is_refused_in_one_sentence(case_of, tmp_path, monkeypatch):
    def broken(run):
        from dataclasses import replace

        return replace(exportable(run), network=_Undecided())

    monkeypatch.setattr(write, "exportable", broken)
    with pytest.raises(ValueError, match=r"Expected a network that pt2 can hold, got fast_unet"):
        export_run(case_of("both.pt2").run, tmp_path / "x.pt2")
    assert list(tmp_path.iterdir()) == []


def test_onnx_runtime_takes_turns_with_pytorch(case_of):
    run, exported = case_of("binary.onnx")
    rows = throughput(run, exported.path, seconds=0.05)
    assert [row.batch for row in rows] == [1, 16]
    for row in rows:
        assert row.pytorch > 0
        assert row.ratio == pytest.approx(row.onnx / row.pytorch)
        assert row.threads == torch.get_num_threads()
        assert row.n_repetitions >= 5


def test_the_command_prints_what_it_made(case_of, tmp_path, capsys):
    out = tmp_path / "new" / "x.pt2"
    assert main(["export", str(case_of("both.pt2").run.folder), str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{out}: takes time (batch, 1, 12, 16)"
    assert printed[1].startswith("differs from PyTorch by at most")
    assert sorted(path.name for path in out.parent.iterdir()) == ["x.pt2", "x.pt2.json", "x.pt2.md"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN", "x.h5"], "ends in .onnx or .pt2"),
        (["RUN", "x.pt2", "--benchmark"], "ends in .onnx with --benchmark"),
        (["RUN", "there.pt2"], "choose another name or overwrite it with --overwrite"),
        (["RUN", "half.pt2"], "half.pt2.md"),
        ([".", "x.pt2"], "Expected the folder of a run"),
    ],
)
def test_bad_input_is_one_sentence(case_of, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    for name in ("there.pt2", "half.pt2.md"):
        (tmp_path / name).write_text("mine")
    folder = str(case_of("both.pt2").run.folder)
    assert main(["export", *(folder if word == "RUN" else word for word in arguments)]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "there.pt2").read_text() == "mine"


def test_missing_packages_are_told_with_the_cure(case_of, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"Expected onnxscript .*dense-imb\[export\]"):
        export_run(case_of("both.pt2").run, tmp_path / "x.onnx")
