"""The report of a run on maps of values."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from dense_imb.cli import main
from dense_imb.data.values.pairs import open_values
from dense_imb.report import write_report
from dense_imb.report.values.figures import draw_value_sample, draw_values_training
from dense_imb.report.values.measures import fullest_plane, lit_channels, measure_values
from dense_imb.runs import train
from tests.data.values.value_files import save_npy, spots, write_hdf5, write_values
from tests.report.reports import Page, pngs, quiet, strict_json
from tests.tasks.values.tiny_values import tiny_values

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_values(tmp_path_factory.mktemp("values"))


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    config = tiny_values(folders, steps=40, loss="ACBMSELoss")
    return train(config, tmp_path_factory.mktemp("runs") / "spots", is_quiet=True)


def test_a_page_has_scores_figures_and_the_read_out(run):
    report = quiet(run.folder)
    text = report.path.read_text()
    page = Page(text)
    assert all(source.startswith("data:image/png") for source in page.sources)
    assert report.headline.startswith("Mean absolute error")
    raw, read = (report.evaluation[name]["balanced_mae"] for name in ("spots as trained", "spots"))
    assert f"balanced {read:.3g} on" in report.headline
    assert "; as trained, without the read-out, " in report.headline
    assert f"balanced {raw:.3g}; a blank map has" in report.headline
    matched = run.read_out.read_out.effect[0].matched_level
    assert f"with the read-out above {matched:.3g} (the matched level, see below)" in text
    assert "evaluate spots images --targets targets" in text.replace(f"{run.folder.parent}/", "")
    assert "Read-out of all channels" in text
    assert "spots as trained" in text
    assert pngs(run.folder) == ["bins", "by_value", "sample_1", "sample_2", "training"]
    numbers = strict_json(run.folder / "report.json")
    joint = np.array(numbers["joint"]["spots"])
    assert joint.sum() == 2 * 40 * 48
    assert len(numbers["images"]) == 2
    assert "dense-imb predict" in text


def test_test_images_are_measured_by_name(run, folders, tmp_path, capsys):
    out = tmp_path / "page.html"
    words = ["report", str(run.folder), "--test", folders[0], "--targets", folders[1]]
    assert main([*words, "--out", str(out), "--quiet", "--events", "3"]) == 0
    assert "on 3 test images" in capsys.readouterr().out
    assert "The first 3 of 8 images were measured." in out.read_text()


def test_volumes_with_cells(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (4, 8, 12, 12)).astype(np.float32)
    cells = np.ones((4, 8, 12, 12), np.uint8)
    cells[:, 2:5, 4:9] |= 2
    targets = (images * (cells == 3)).astype(np.float32)
    path = write_hdf5(
        tmp_path / "a.h5", ["body", "organ"], image=images, target=targets, cells=cells
    )
    model = {"name": "monai:UNet", "options": {"channels": [4, 8], "strides": [2]}}
    values = {"patch": [8, 8, 8], "cells": "cells", "cell_kind": "bits"}
    config = tiny_values(path, values=values, model=model, steps=4)
    folder = train(config, tmp_path / "run", is_quiet=True).folder
    report = quiet(folder)
    assert "cells" in pngs(folder)
    assert "slice" in report.path.read_text()
    text = report.path.read_text()
    assert "mean over cells" in text
    assert f"dense-imb evaluate {folder} images.h5\n" in text
    assert f"dense-imb predict {folder} images.h5 predicted" in text
    assert "as the loss leaves them out" not in text


def test_pixels_that_do_not_count_are_grey(tmp_path):
    images, targets = spots(6, (24, 32))
    cells = np.zeros(targets.shape, np.uint8)
    cells[:, :, :16] = 1
    cells[targets > 0] |= 2
    path = write_hdf5(
        tmp_path / "a.h5", ["left", "spot"], image=images, target=targets, cells=cells
    )
    values = {"patch": [16, 16], "cells": "cells", "cell_kind": "bits", "names": ["dose"]}
    config = tiny_values(path, values=values, steps=2, loss="BalancedRegressionLoss('l1', 'masks')")
    run = train(config, tmp_path / "run", is_quiet=True)
    data = open_values(path, cells="cells", cell_kind="bits")
    measured = measure_values(run.trained(device="cpu"), data, lambda n: lambda k: None)
    for sample in measured.samples:
        counts = cells[int(sample.name)] > 0
        np.testing.assert_array_equal(np.isnan(sample.prediction[0]), ~counts)
        assert sample.channels == ("dose",)
    assert all(joint.sum() == (cells > 0).sum() for joint in measured.joint.values())
    (pixels,) = {row["n"] for row in measured.table.rows if row["kind"] == "all"}
    assert pixels == (cells > 0).sum()
    report = quiet(run.folder)
    text = report.path.read_text()
    assert "Grey pixels do not count" in text
    assert "left out, as the loss leaves them out" in text
    figure = Figure(layout="constrained")
    draw_value_sample(measured.samples[0], figure)
    figure.draw_without_rendering()
    image, prediction = figure.axes[0], figure.axes[2]
    assert image.get_position().x0 == pytest.approx(prediction.get_position().x0, abs=0.005)


def test_steps_of_training_have_whole_ticks():
    figure = Figure(figsize=(9.5, 9))
    rows = [{"step": float(step), "loss": 1.0} for step in range(1, 11)]
    draw_values_training(rows, figure)
    figure.draw_without_rendering()
    assert all(tick == int(tick) for axes in figure.axes for tick in axes.get_xticks())


def test_missing_data_are_a_note(folders, tmp_path):
    other = write_values(tmp_path / "gone", 6)
    run = train(tiny_values(other), tmp_path / "run", is_quiet=True)
    for path in (tmp_path / "gone" / "targets").iterdir():
        path.unlink()
    report = write_report(run.folder, show_progress=False)
    assert "can't be read" in " ".join(report.notes)
    assert report.headline.startswith("Balanced mean absolute error")


def test_options_of_other_kinds_are_refused(run, capsys):
    assert main(["report", str(run.folder), "--masks", "m"]) == 2
    assert "no --masks with a run on values" in capsys.readouterr().err
    assert main(["report", str(run.folder), "--targets", "t"]) == 2
    assert "images to test on beside `targets` t, got none" in capsys.readouterr().err


def test_channels_with_lit_pixels_are_shown(tmp_path):
    images, targets = spots(4, (24, 32))
    maps = np.stack([0 * targets, *[targets] * 5], 1)
    maps[:, 2] = 0
    folders = save_npy(tmp_path / "images", images), save_npy(tmp_path / "targets", maps)
    values = {"names": [*"abcdef"], "patch": [16, 16]}
    run = train(tiny_values(folders, values=values, steps=2), tmp_path / "run", is_quiet=True)
    network = run.trained(device="cpu")
    measured = measure_values(network, open_values(*folders), lambda n: lambda k: None)
    for sample in measured.samples:
        assert sample.channels == ("b", "d", "e", "f")
        assert sample.target.shape == sample.prediction.shape == (4, 24, 32)
        k = int(sample.name)
        np.testing.assert_array_equal(sample.target, maps[k, [1, 3, 4, 5]])
        figure = Figure()
        draw_value_sample(sample, figure)
        titles = [axes.get_title() for axes in figure.axes]
        assert titles[:4] == ["Image", "Target: b", "Prediction: b", "Prediction - target: b"]
        assert sum("Target" in title for title in titles) == 4
    assert lit_channels(np.zeros((3, 4, 4), np.float32), 0.5) == [0]
    assert fullest_plane(np.ones((1, 4, 4, 3)) * np.arange(3))[1] == "slice 3 of 3"
