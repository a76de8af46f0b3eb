"""Runs know the samples that they were trained on, and commands say when they meet them again."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from dense_imb.base.files import UnreadableFileError
from dense_imb.cli import main
from dense_imb.config import UnlabelledConfig
from dense_imb.hits import open_hits
from dense_imb.report import write_report
from dense_imb.runs import open_run, train
from dense_imb.runs.seen import HASHES, OverlapWarning, describe_overlap, read_hashes
from tests.data.test_hashes import encoded_again, photographs
from tests.runs.labelled_pictures import tiny_classes
from tests.runs.pictures import tiny_images
from tests.runs.tiny import clean_events, tiny, write_events
from tests.tasks.values.tiny_values import tiny_values

QUICK = {"steps": 1, "validate_every": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def events(folder):
    """A run on 60 events, 15 of them to validate on."""
    path = write_events(folder / "train.h5", clean_events(60))
    train(tiny(path, **QUICK), folder / "hits", is_quiet=True)
    return folder / "hits"


def write_images(folder, images, size=(96, 128)):
    for name in ("images", "masks", "targets"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(5)
    lines = ["image,label"]
    for i, image in enumerate(images):
        Image.fromarray(np.moveaxis(image, 0, -1)).save(folder / "images" / f"{i}.png")
        mask = (rng.random(image.shape[1:]) < 0.1).astype(np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
        np.save(folder / "targets" / f"{i}.npy", mask.astype(np.float32))
        lines.append(f"{i}.png,{i % 2}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def pictures(folder):
    """Ten photographs to train on, and ten others of which three are copies."""
    images = photographs(10)
    train_folder = write_images(folder / "train", images)
    copies = [images[0], encoded_again(images[1]), images[2]]
    test_folder = write_images(folder / "test", [*copies, *photographs(7, seed=1)])
    return train_folder, test_folder


def places(kind, folder):
    """Return the arguments of evaluate for test data of a kind."""
    return {
        "images": [str(folder / "images"), "--masks", str(folder / "masks")],
        "values": [str(folder / "images"), "--targets", str(folder / "targets")],
        "labels": [str(folder / "labels.csv"), "--images", str(folder / "images")],
    }[kind]


@pytest.fixture(scope="module")
def runs(folder, pictures):
    """A run of each kind of images; all ten photographs are trained or validated on."""
    data, _ = pictures
    configs = {
        "images": tiny_images((str(data / "images"), str(data / "masks")), **QUICK),
        "values": tiny_values((str(data / "images"), str(data / "targets")), **QUICK),
        "labels": tiny_classes(
            labels={"train": str(data / "labels.csv"), "images": str(data / "images")},
            batch_size=4, **QUICK,
        ),
    }  # fmt: skip
    for kind, config in configs.items():
        train(config, folder / kind, is_quiet=True)
    return {kind: folder / kind for kind in configs}


def evaluated(capsys, *words):
    code = main(["evaluate", *map(str, words), "--quiet"])
    printed = capsys.readouterr()
    assert code in (0, None), printed.err
    return [line for line in printed.err.splitlines() if "warning" in line]


@pytest.mark.parametrize("kind", ["images", "values", "labels"])
def test_evaluate_tells_which_images_were_trained_on(runs, pictures, capsys, kind):
    lines = evaluated(capsys, runs[kind], *places(kind, pictures[1]))
    assert len(lines) == 1
    counts = describe_counts(open_run(runs[kind]), lines[0])
    assert sum(total for total, _ in counts) == 3
    assert "nearly identical" in lines[0]
    assert "10 test images" in lines[0]
    assert "--allow-overlap" in lines[0]
    words = [*places(kind, pictures[1]), "--allow-overlap"]
    assert evaluated(capsys, runs[kind], *words) == []


def describe_counts(run, line):
    """Return the number of samples, and the part, of each clause."""
    words = line.replace(",", "").split()
    return [
        (int(words[i + 2]), word)
        for i, word in enumerate(words)
        if word in ("trained", "validated")
    ]


def test_evaluate_tells_which_events_were_trained_on(events, folder, capsys):
    line, = evaluated(capsys, events, folder / "train.h5", "--noise", "20", "--signal", "6",
                      "--no-baselines")  # fmt: skip
    assert "was trained on 45 of the 60 test events (45 identical)" in line
    assert "validated on 15 of the 60 test events (15 identical)" in line
    other = write_events(folder / "other.h5", clean_events(20, seed=9))
    assert evaluated(capsys, events, other, "--noise", "20", "--no-baselines") == []
    words = ("--noise", "20", "--no-baselines", "--allow-overlap")
    assert evaluated(capsys, events, folder / "train.h5", *words) == []


def test_denoise_tells_which_labelled_events_were_trained_on(events, folder, tmp_path, capsys):
    def warned(source, *words):
        target = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        code = main(["denoise", *map(str, (events, source, target, *words)), "--quiet"])
        printed = capsys.readouterr()
        assert code in (0, None), printed.err
        return [line for line in printed.err.splitlines() if "was trained on" in line]

    line, = warned(folder / "train.h5")  # fmt: skip
    assert line.startswith("dense-imb denoise: warning: ")
    assert "was trained on 45 of the 60 test events (45 identical)" in line
    assert "--allow-overlap" in line
    assert warned(folder / "train.h5", "--allow-overlap") == []
    assert warned(write_events(folder / "unlike.h5", clean_events(20, seed=9))) == []


def test_denoise_compares_files_of_other_columns_one_by_one(events, folder, tmp_path, capsys):
    kept = clean_events(5, seed=9)
    more = replace(kept, hit={**kept.hit, "charge": kept.t})
    sources = write_events(tmp_path / "a.h5", more), folder / "train.h5"
    words = ["denoise", *map(str, (events, *sources)), "--out", str(tmp_path / "out"), "--quiet"]
    assert main(words) in (0, None)
    assert "was trained on 45 of the 60 test events" in capsys.readouterr().err


def test_a_run_without_hashes_says_nothing(events, folder, tmp_path):
    shutil.copytree(events, tmp_path / "old")
    (tmp_path / "old" / HASHES).unlink()
    assert describe_overlap([open_run(tmp_path / "old")], clean_events(1)) == ""


DAMAGES = {
    "broken": lambda content: b"\x10\0\0\0\0\0\0\0" + b"broken" * 9,
    "cut": lambda content: content[:-1],
    "empty": lambda content: b"",
    "no entries": lambda content: save({}),
    "an entry missing": lambda content: content.replace(b"train.near", b"train.NEAR"),
    "another type": lambda content: content.replace(b"U64", b"I64"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_hashes_are_refused(events, tmp_path, name):
    run = shutil.copytree(events, tmp_path / "run")
    (run / HASHES).write_bytes(DAMAGES[name]((run / HASHES).read_bytes()))
    with pytest.raises(UnreadableFileError, match=f"Expected hashes of samples in .*{HASHES}"):
        read_hashes(open_run(run))


def test_damaged_hashes_are_one_warning(events, folder, tmp_path, capsys):
    damaged = shutil.copytree(events, tmp_path / "run")
    (damaged / HASHES).write_bytes((damaged / HASHES).read_bytes()[:-1])
    words = (damaged, folder / "train.h5", "--noise", "5")
    (line,) = evaluated(capsys, *words)
    assert f"{damaged / HASHES} is damaged" in line
    assert "test events that the run was trained on cannot be found" in line
    assert "--allow-overlap" in line
    assert evaluated(capsys, *words, "--allow-overlap") == []
    options = {"test": str(folder / "train.h5"), "show_progress": False}
    report = write_report(damaged, out=tmp_path / "a.html", **options)
    assert sum("is damaged" in note for note in report.notes) == 1
    # the other run is compared all the same
    both = describe_overlap([open_run(damaged), open_run(events)], open_hits(folder / "train.h5"))
    assert "is damaged" in both
    assert "too good" in both


def test_resume_writes_damaged_hashes_again(events, tmp_path):
    run = shutil.copytree(events, tmp_path / "run")
    whole = (run / HASHES).read_bytes()
    (run / HASHES).write_bytes(whole[:-1])
    train(open_run(run).config, run, resume=True, is_quiet=True)
    assert (run / HASHES).read_bytes() == whole


def test_the_file_is_small(events, runs):
    assert (events / HASHES).stat().st_size < 2000
    assert (runs["images"] / HASHES).stat().st_size < 2000


def test_a_report_notes_the_overlap(runs, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("dense_imb.report.write.draw_png", lambda draw, size: b"")  # slow
    test = pictures[1]
    options = {"test": str(test / "images"), "masks": str(test / "masks"), "show_progress": False}
    report = write_report(runs["images"], out=tmp_path / "a.html", **options)
    (note,) = (note for note in report.notes if "trained on" in note)
    assert "whose scores are too good" in note
    report = write_report(runs["images"], out=tmp_path / "b.html", allow_overlap=True, **options)
    assert not any("trained on" in note for note in report.notes)


def test_one_file_in_train_and_validation_is_told(folder, tmp_path):
    path = write_events(tmp_path / "a.h5", clean_events(30))
    copy = Path(shutil.copy(path, tmp_path / "b.h5"))
    config = tiny(path, hits={"validation": str(copy), "validation_share": 0.2}, **QUICK)
    with pytest.warns(OverlapWarning, match=r"trained on 30 of the 30 validation events \(30 ide"):
        train(config, tmp_path / "run", is_quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OverlapWarning)
        train(config, tmp_path / "allowed", is_quiet=True, allow_overlap=True)
        train(config, tmp_path / "run", is_quiet=True, resume=True)


def test_unlabelled_copies_of_validation_images_are_told(pictures, tmp_path):
    """Copies of files are left out; re-encoded ones are told."""
    data, _ = pictures
    (tmp_path / "unlabelled").mkdir()
    for path in (data / "images").iterdir():
        Image.open(path).save(tmp_path / "unlabelled" / f"{path.stem}.jpg", quality=80)
    config = tiny_images(
        (str(data / "images"), str(data / "masks")),
        unlabelled=UnlabelledConfig(train=str(tmp_path / "unlabelled")), **QUICK,
    )  # fmt: skip
    with pytest.warns(OverlapWarning, match=r"trained on, unlabelled .* nearly identical"):
        train(config, tmp_path / "run", is_quiet=True)


def test_a_hits_file_twice_is_refused(folder, tmp_path):
    path = write_events(tmp_path / "a.h5", clean_events(8))
    (tmp_path / "b.h5").hardlink_to(path)
    for twice in ([path, path], [path, str(tmp_path / "b.h5")]):
        with pytest.raises(ValueError, match=r"Expected each hits file once, got .*a\.h5 again as"):
            train(tiny(twice), tmp_path / "run")
