"""Pixels that do not count have no part in loss, statistics, scores and read-out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb.cli import main
from dense_imb.config import MixingConfig
from dense_imb.data.values.pairs import open_values
from dense_imb.inspection import inspect_values
from dense_imb.report.values.measures import measure_values
from dense_imb.runs import open_run, train
from dense_imb.tasks.recipe import build_task
from tests.data.values.value_files import save_npy, spots, write_hdf5
from tests.tasks.values.tiny_values import tiny_values

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
LOSSES = ["ACBMSELoss", "torch.nn:MSELoss", "torch.nn:L1Loss",
          "BalancedRegressionLoss('l1', 'labels')", "ACBMSELoss + ACBMSELoss()"]  # fmt: skip


def broken(n: int = 8) -> tuple[np.ndarray, ...]:
    """Images, maps of which a quarter is NaN, cells, and the pixels that count."""
    images, targets = spots(n, (40, 48))
    counted = np.ones(targets.shape, np.uint8)
    counted[:, :20, :24] = 0
    cells = (targets > 0).astype(np.uint8)
    return images, np.where(counted, targets, np.nan), cells, counted


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    images, targets, cells, counted = broken()
    path = tmp_path_factory.mktemp("counted") / "a.h5"
    return write_hdf5(path, image=images, target=targets, cells=cells, counted=counted)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("folders")
    names = ("images", "targets", "cells", "counted")
    return [save_npy(place / name, a) for name, a in zip(names, broken(), strict=True)]


def task_of(file: str, loss: str, **changes):
    values = {"counted": "counted", "cells": "cells", **changes.pop("values", {})}
    return build_task(tiny_values(file, values=values, loss=loss, **changes))


def test_statistics_are_over_the_pixels_that_count(file, folders, tmp_path):
    _, targets, cells, counted = broken()
    for data in (
        open_values(file, cells="cells", counted="counted"),
        open_values(*folders[:2], cells=folders[2], counted=folders[3]),
    ):
        tally, known = data.tally(show_progress=False), targets[counted > 0]
        assert tally.n_values == len(known)
        assert tally.target_mean[0] == pytest.approx(known.mean())
        assert tally.high == known.max()
        assert tally.level == pytest.approx(known[known != 0].mean() / 2)
        assert (
            tally.cell_content.sum(0) == [(cells[counted > 0] == k).sum() for k in (0, 1)]
        ).all()
        level = tally.level
        assert (data.content(level).sum(1) == counted.reshape(8, -1).sum(1)).all()
        for i in range(8):
            assert np.isfinite(data.target(i)).all()
            assert not data.target(i)[0][counted[i] == 0].any()
            for flat in data.pixels(i, level).values():
                assert counted[i].ravel()[flat].all()
    counted[0, -1, -1] = 0
    other = save_npy(tmp_path / "other", counted)
    prints = [open_values(*folders[:2], counted=one).fingerprint() for one in (folders[3], other)]
    assert prints[0] != prints[1]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("patch", [[40, 48], [48, 56]])
@pytest.mark.filterwarnings("ignore::dense_imb.tasks.pixels.PatchWarning")
def test_other_pixels_pull_at_nothing(file, loss, patch):
    task = task_of(file, loss, values={"patch": patch})
    batch = task.batch(np.arange(6), 0, torch.device("cpu"))
    assert int(batch.mask.sum()) == 6 * (40 * 48 - 20 * 24)
    assert not batch.lit[~batch.mask].any()
    output = torch.full_like(batch.target, 0.1).requires_grad_()
    cost = task.cost_of(output, batch)
    cost.backward()
    is_in = batch.mask.unsqueeze(1)
    assert not output.grad[~is_in].any()
    assert output.grad[is_in].all()
    other = torch.where(is_in, output.detach(), 7.0)
    assert float(task.cost_of(other, batch)) == pytest.approx(cost.item())


def test_a_batch_without_a_pixel_that_counts_costs_nothing(tmp_path):
    images, targets, _, counted = broken()
    counted[0] = 0
    path = write_hdf5(tmp_path / "a.h5", image=images, target=targets, counted=counted)
    task = build_task(tiny_values(path, values={"counted": "counted"}, loss="torch.nn:MSELoss"))
    empty = [i for i in range(len(task.train)) if not task.train.counted(i).any()]
    assert empty
    batch = task.batch(np.array(empty), 0, torch.device("cpu"))
    output = torch.ones_like(batch.target).requires_grad_()
    task.cost_of(output, batch).backward()
    assert not output.grad.any()


def test_scores_and_read_out_leave_them_out(file):
    task = task_of(file, "ACBMSELoss")
    network = torch.nn.Conv2d(1, 1, 1)
    task.validate(network, torch.device("cpu"), 0, 1)
    n = len(task.validation) * (40 * 48 - 20 * 24)
    assert task.scores.scores.rows()[0]["n"] == n
    assert int(task.scores.histogram.counts.sum()) == n
    tally = task.tally_read_out(network, torch.device("cpu"), 0, 1)
    assert int(tally.moments(0)[0][0].sum()) == n


@pytest.mark.parametrize("kind", ["mixup", "unimix"])
def test_mixed_pixels_count_where_both_do(file, kind):
    task = task_of(file, "ACBMSELoss", mixing=MixingConfig(kind))
    batch = task.batch(np.arange(6), 0, torch.device("cpu"))
    assert bool(torch.isfinite(batch.target).all())
    assert not batch.mask.all()
    assert not batch.lit[~batch.mask].any()


def test_every_command_takes_them(file, folders, tmp_path, capsys):
    run = train(
        tiny_values(file, values={"counted": "counted"}, loss="ACBMSELoss", steps=2),
        tmp_path / "run", is_quiet=True,
    )  # fmt: skip
    n = 8 * (40 * 48 - 20 * 24)
    counted = ["--targets", folders[1], "--counted", folders[3]]
    for words in ([file], [folders[0], *counted]):
        assert main(["evaluate", str(run.folder), *words, "--format", "json", "--quiet"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert {row["n"] for row in rows if row["kind"] == "all"} == {n}
    assert main(["inspect", folders[0], *counted, "--quiet"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.strip() == f"dense-imb compare {folders[0]} {' '.join(counted)}"
    page = ["report", str(run.folder), "--test", folders[0], *counted, "--quiet"]
    assert main([*page, "--out", str(tmp_path / "page.html")]) == 0
    assert "8 test images" in capsys.readouterr().out
    network = open_run(run.folder).trained(device="cpu")
    data = open_values(file, counted="counted")
    measured = measure_values(network, data, lambda n: lambda k: None)
    assert next(iter(measured.joint.values())).sum() == n
    error = network.predict(data.image(0)).numpy()[0] - data.target(0)[0]
    wanted = np.abs(error[data.counted(0)]).mean()
    assert measured.images[0]["mae"] == pytest.approx(float(wanted), rel=1e-5)


def test_an_inspection_leaves_them_out(file, tmp_path):
    _, targets, _, counted = broken()
    numbers = inspect_values(file, counted="counted", show_progress=False).numbers
    known = targets[counted > 0]
    assert numbers["nonzero_share"] == pytest.approx((known != 0).mean())
    assert sum(one["pixels"] for one in numbers["classes"].values()) == len(known)
    assert sum(numbers["histogram"]["counts"]) == (known != 0).sum()


def test_nan_is_refused_with_the_option_that_leaves_it_out(file, folders, tmp_path, capsys):
    words = ["train", "values", "--out", str(tmp_path / "run"), "--values.train", file]
    assert main([*words, "--quiet"]) == 2
    assert (
        "to hold finite numbers, got 480 NaN or infinite of 1920; mend them, or leave them out "
        "with --values.counted FOLDER, maps that are 0 there." in capsys.readouterr().err
    )
    assert main(["inspect", *folders[:1], "--targets", folders[1], "--quiet"]) == 2
    assert "leave them out with --counted FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"loss": "torch.nn:MSELoss + ACBMSELoss"}, "got CompoundLoss, which takes no mask; take"),
        ({"values": {"counted": "small"}}, r"small 0 of .*a.h5 of the size of .*, got \(20, 48\)"),
        ({"values": {"validation": "{folder}", "validation_targets": "t"}}, "validation_counted`"),
    ],
    ids=["loss", "size", "validation"],
)
def test_what_does_not_fit_is_refused(tmp_path, change, sentence):
    images, targets, _, counted = broken()
    path = write_hdf5(
        tmp_path / "a.h5", image=images, target=targets, counted=counted, small=counted[:, :20]
    )
    values = {"counted": "counted", **change.get("values", {})}
    values = {k: v.format(folder=tmp_path) for k, v in values.items()}
    config = tiny_values(path, values=values, loss=change.get("loss", "ACBMSELoss"))
    with pytest.raises(ValueError, match=sentence):
        build_task(config)


def test_a_folder_without_a_map_of_an_image_is_refused(folders):
    (Path(folders[3]) / "003.npy").rename(Path(folders[3]) / "x.npy")
    with pytest.raises(ValueError, match="a map of counted pixels of .* none for 003; .*`counted`"):
        open_values(*folders[:2], counted=folders[3])
    (Path(folders[3]) / "x.npy").rename(Path(folders[3]) / "003.npy")
