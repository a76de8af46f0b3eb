"""The figure shows the numbers of the report."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dense_imb.hits import Geometry
from dense_imb.inspection import inspect_hits, inspect_images, save_figure
from dense_imb.inspection.figure import draw
from tests.data.images.labelled_files import hdf5, random_pairs
from tests.hits.files import some_events, write
from tests.inspection.test_hits import events_of, random_events


def drawn(inspection) -> dict[str, object]:
    figure = Figure(figsize=(16, 8), layout="constrained")
    draw(inspection, figure)
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_axes_show_the_counts(tmp_path):
    events = random_events(30)
    inspection = inspect_hits(write(tmp_path / "a.h5", events), show_progress=False)
    axes = drawn(inspection)
    image = axes["Hits of all events"].images[0].get_array()
    wanted = np.zeros((16, 20))
    np.add.at(wanted, (events.y, events.x), 1 / 30)
    np.testing.assert_allclose(image, wanted)
    widths = [bar.get_width() for bar in axes["Share of the pixels"].patches]
    classes = inspection.numbers["partitions"]["pixels"]["classes"].values()
    assert widths == pytest.approx([found["share"] for found in classes])
    first = next(event for event in events if event.n_hits)
    flat = axes[f"Sample event 1: {first.n_hits} hits"]
    points = sum(len(collection.get_offsets()) for collection in flat.collections)
    assert points == first.n_hits
    assert any(one.name == "3d" for one in axes.values())
    noise, signal = axes["Time spectrum"].patches
    assert noise.get_data().values.sum() * 30 == pytest.approx((events.label == 0).sum())
    assert signal.get_data().values.sum() * 30 == pytest.approx((events.label > 0).sum())


@pytest.mark.parametrize("case", ["nothing", "no hits", "no labels", "one pixel"])
def test_every_kind_of_file_has_a_figure(tmp_path, case):
    frame = Geometry(width=20, height=16, time_steps=50)
    events = {
        "nothing": events_of(frame, [0], [], [], []),
        "no hits": events_of(frame, [0, 0], [], [], [], []),
        "no labels": events_of(frame, [0, 2], [0, 1], [0, 1], [1, 2]),
        "one pixel": events_of(Geometry(1, 1, 1), [0, 1], [0], [0], [1], [1]),
    }[case]
    inspection = inspect_hits(write(tmp_path / "a.h5", events), show_progress=False)
    save_figure(inspection, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.png"]


def test_a_file_with_further_columns_has_a_figure(tmp_path):
    inspection = inspect_hits(write(tmp_path / "a.h5", some_events(20)), show_progress=False)
    save_figure(inspection, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((12, 10), np.uint8),
        np.arange(120, dtype=np.uint16).reshape(12, 10),
        np.full((12, 10, 3), 200, np.uint8),
        np.full((12, 10, 4), 90, np.uint8),
        np.full((12, 10, 2), 0.5),
    ],
    ids=["black", "deep", "rgb", "rgba", "two channels"],
)
def test_images_of_every_kind_have_a_figure(tmp_path, image):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "images" / "a.npy", image)
    mask = np.zeros((12, 10), np.uint8)
    mask[3, 4:7] = 2
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    inspection = inspect_images(tmp_path / "images", tmp_path / "masks", show_progress=False)
    axes = drawn(inspection)
    overlay = axes["its mask"].images[1].get_array()
    assert (overlay[..., 3] > 0).sum() == 3
    save_figure(inspection, tmp_path / "a.png")


@pytest.mark.parametrize("channels", [(), (4,)], ids=["one channel", "four channels"])
def test_a_volume_has_a_figure_of_one_slice(tmp_path, channels):
    images, masks = random_pairs(shape=(5, 9, 7), channels=channels, n_classes=1)
    masks[:, 3, 2, 4:6] = 2
    path = hdf5(tmp_path / "a.h5", images, masks)
    inspection = inspect_images(path, n_images=1, show_progress=False)
    axes = drawn(inspection)
    overlay = axes["its mask"].images[1].get_array()
    assert overlay.shape == (9, 7, 4)
    assert (overlay[..., 3] > 0).sum() == 2
    assert "000000, slice 4 of 5: median foreground share" in axes
    save_figure(inspection, tmp_path / "a.png")


def test_no_label_of_three_dimensions_leaves_its_panel(tmp_path):
    events = random_events(5)
    inspection = inspect_hits(write(tmp_path / "a.h5", events), show_progress=False)
    figure = Figure(figsize=(16, 8.5), layout="constrained")
    draw(inspection, figure)
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.name == "3d"]
    others = [axes for axes in figure.axes if axes.name != "3d"]
    assert len(panels) == 2
    for panel in panels:
        label = panel.zaxis.label.get_window_extent()
        assert label.x1 <= figure.bbox.x1
        for other in others:
            text = other.yaxis.label.get_window_extent()
            assert not (label.overlaps(text) and text.width > 0)
