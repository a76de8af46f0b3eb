"""Learning without labels from a config: hits, whole images, a second stage for fine-tuning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dense_imb.cli import main
from dense_imb.config import MixingConfig, SamplingConfig, SecondConfig, UnlabelledConfig
from dense_imb.runs import Run, train
from dense_imb.tasks.hits.pseudo_labels import FramePseudoLabels
from dense_imb.tasks.labels.pseudo_labels import LabelsPseudoLabels
from dense_imb.tasks.recipe import Recipe, build_task
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
REST = UnlabelledConfig(rest=True, threshold=0.6, ramp=0.0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def hits(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("hits") / "clean.h5", clean_events(24))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tables(tmp_path_factory.mktemp("table"))


def quiet(config, folder: Path) -> Run:
    return train(config, folder, is_quiet=True)


def test_events_without_labels_are_those_left_out(hits, tmp_path):
    config = tiny(hits, labelled_share=0.5, unlabelled=REST)
    task = build_task(config)
    assert isinstance(task.unlabelled, FramePseudoLabels)
    assert (len(task.task.train), task.unlabelled.n_images) == (9, 9)
    assert task.task.data.rest.first == 9
    weak = task.unlabelled._shown_hits(np.arange(9))
    assert 200 < weak.n_hits <= 9 * 26  # 6 of the signal and 20 of noise, some hidden by others
    assert weak.label is None
    rows = quiet(config, tmp_path / "run").history
    assert all(0 <= row["sure_share"] <= 1 for row in rows)


def test_a_raw_file_of_hits(hits, tmp_path, capsys):
    raw = write_events(tmp_path / "raw.h5", clean_events(5, seed=3))
    words = [
        "train",
        "hits",
        "--out",
        str(tmp_path / "run"),
        "--hits.train",
        hits,
        "--hits.signal",
        "6",
    ]
    words += ["--hits.noise", "20", "--steps", "4", "--batch_size", "4", "--quiet", "--report"]
    words += ["false", "--unlabelled.train", raw, "--unlabelled.threshold", "0.8"]
    words += ["--model.name", "fast_unet", "--model.options", '{"widths": [4, 8]}']
    assert main(words) == 0
    assert "5 events" in Run(tmp_path / "run").checkpoint("last")["setup"]["unlabelled"]
    assert main([*words[:3], str(tmp_path / "b"), *words[4:], "--hits.pixels", "frame"]) == 2
    assert "`hits.pixels` lit with unlabelled events, got frame" in capsys.readouterr().err


def test_whole_images_without_labels_are_those_left_out(table, tmp_path):
    config = of_table(table, labelled_share=0.5, unlabelled=REST)
    task = build_task(config)
    assert isinstance(task.unlabelled, LabelsPseudoLabels)
    whole = build_task(of_table(table)).train
    assert len(task.task.train) + task.unlabelled.n_images == len(whole)
    assert all(n > 0 for n in task.task.train.class_counts)  # of each class a share
    assert all("sure_share" in row for row in quiet(config, tmp_path / "run").history)


def test_a_folder_of_whole_images(table, tmp_path, capsys):
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    config = of_table(table, unlabelled=UnlabelledConfig(train=str(folder)))
    with pytest.raises(ValueError, match=r"Expected .*unlabelled"):
        build_task(config)  # there is nothing in it
    for i in range(3):
        Image.fromarray(np.full((24, 24, 3), 60 * i, np.uint8)).save(folder / f"{i}.png")
    assert build_task(config).unlabelled.n_images == 3
    (folder / "notes.doc").write_text("no image")
    with pytest.raises(ValueError, match=r"notes\.doc"):
        build_task(config)


def test_a_second_stage_learns_from_labels_only(tmp_path):
    folders = write_folders(tmp_path / "pictures", n=12)
    config = tiny_images(
        folders,
        labelled_share=0.5,
        unlabelled=REST,
        second=SecondConfig(4, sampling=SamplingConfig("instance")),
    )
    run = quiet(config, tmp_path / "run")
    assert "sure_share" in run.first.history[-1]
    assert "sure_share" not in run.history[-1]
    assert "teacher" in run.first.checkpoint("last")
    assert "teacher" not in run.checkpoint("last")
    labelled = [stage.checkpoint("last")["setup"]["data"] for stage in (run.first, run)]
    assert labelled[0] == labelled[1]


def test_a_share_of_labels_is_a_share():
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"`labelled_share` above 0 and up to 1, got {share}"):
            Recipe.of(tiny("nowhere", labelled_share=share))


def test_fewer_labels_are_of_every_class_and_the_same_for_every_seed(table):
    runs = [build_task(of_table(table, labelled_share=0.3, seed=seed)) for seed in (0, 1)]
    assert runs[0].train.fingerprint() == runs[1].train.fingerprint()
    assert all(n > 0 for n in runs[0].class_counts)
    whole = build_task(of_table(table))
    assert len(runs[0].train) == pytest.approx(0.3 * len(whole.train), abs=2)
    assert runs[0].validation.fingerprint() == whole.validation.fingerprint()


def test_gradients_are_of_the_batch_where_a_task_has_no_probe(table, tmp_path):
    """Not of the first images of a table, which may be sorted by class."""
    config = of_table(table, labelled_share=0.5, unlabelled=REST, batch_size=8)
    plain = of_table(table, labelled_share=0.5, batch_size=8)
    shares = [
        {name for name, value in quiet(one, tmp_path / name).history[0].items()
         if name.startswith("gradient_share") and value == value}
        for name, one in (("semi", config), ("plain", plain))
    ]  # fmt: skip
    assert shares[0] == shares[1]
    assert len(shares[0]) > 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"mixing": MixingConfig(alpha=0.5)},
            r"`mixing.alpha` changes nothing while `mixing.kind` is none; add `mixing.kind=mixup`",
        ),
        (
            {"sampling": SamplingConfig(power=0.5)},
            r"`sampling.power` changes nothing .* add `sampling.kind=power`",
        ),
        (
            {"sampling": SamplingConfig("class", epochs=3)},
            r"`sampling.epochs` changes nothing .* add `sampling.kind=progressive`",
        ),
    ],
)
def test_options_that_change_nothing_are_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        Recipe.of(tiny("nowhere", **changes))


def test_a_group_of_another_type_is_refused():
    with pytest.raises(TypeError, match="Expected `unlabelled` as a UnlabelledConfig, got dict"):
        Recipe.of(tiny("nowhere", unlabelled={"train": "raw.h5"}))


def test_a_class_that_a_share_of_the_labels_leaves_out_is_said_to_be_so(tmp_path):
    folders = write_folders(tmp_path / "pictures", n=12, n_classes=2)
    masks = sorted(Path(folders[1]).iterdir())
    for path in masks:  # a third class, in one image only
        Image.fromarray(np.asarray(Image.open(path)) + 0).save(path)
    label = np.array(Image.open(masks[0]))
    label[0, :3] = 2
    Image.fromarray(label).save(masks[0])
    config = tiny_images(
        folders, labelled_share=0.2, sampling=SamplingConfig("class"), images={"n_classes": 3}
    )
    with pytest.raises(ValueError, match=r"of class 2.*only 0\.2 of the images have labels"):
        build_task(config)


def test_a_resume_takes_what_is_not_typed_from_the_run(hits, tmp_path, capsys):
    words = [
        "train",
        "hits",
        "--out",
        str(tmp_path / "run"),
        "--hits.train",
        hits,
        "--hits.signal",
        "6",
    ]
    words += ["--hits.noise", "20", "--steps", "4", "--batch_size", "4", "--quiet", "--report"]
    words += ["false", "--model.name", "fast_unet", "--model.options", '{"widths": [4, 8]}']
    assert main(words) == 0
    again = [*words[:4], "--resume", "--quiet", "--report", "false"]
    assert main(again) == 0
    assert main([*again, "--batch_size", "8"]) == 2
    assert "(batch_size: 4 there, 8 here)" in capsys.readouterr().err
    assert main([*words[:3], str(tmp_path / "nothing"), "--resume"]) == 2
    assert (
        "nothing to resume, got none; start one with --hits.train FILE" in capsys.readouterr().err
    )
    assert not (tmp_path / "nothing").exists()
