"""The figures of the documentation, drawn from stored numbers without a display."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from dense_imb import pretrained
from tests.scripts import run_script

Image = pytest.importorskip("PIL.Image")
matplotlib = pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "experiments" / "gallery"
FIGURES = ROOT / "docs" / "figures"
NAMES = re.findall(
    r'"(\w+)"', (GALLERY / "make.py").read_text().split("FIGURES = (")[1].split(")")[0]
)
NO_DISPLAY = {"MPLBACKEND": None, "DISPLAY": None, "WAYLAND_DISPLAY": None}
MOST_WIDE, MOST_BYTES, MOST_NUMBERS = 1600, 150_000, 200_000


@pytest.fixture
def module_of(monkeypatch):
    """Import a module of the gallery, and forget all of them afterwards."""
    monkeypatch.syspath_prepend(GALLERY)
    before = set(sys.modules)
    yield importlib.import_module
    for name in [*set(sys.modules) - before]:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(GALLERY.parent)):
            sys.modules.pop(name)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    done = run_script(GALLERY / "make.py", "--out", folder, **NO_DISPLAY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(folder / f"{name}.png") for name in NAMES]
    return folder


def test_every_module_is_a_figure():
    assert len(NAMES) == 11
    assert {path.stem for path in GALLERY.glob("*.py")} == {*NAMES, "make", "style"}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_drawn_small_and_light(name, drawn):
    picture = Image.open(drawn / f"{name}.png")
    assert picture.width == MOST_WIDE
    assert (drawn / f"{name}.png").stat().st_size < MOST_BYTES
    pixels = np.asarray(picture.convert("L"))
    assert pixels.min() < 100
    assert np.median(pixels) > 240  # paper, not ink


@pytest.mark.skipif(
    tuple(map(int, matplotlib.__version__.split(".")[:2])) < (3, 10),
    reason="older releases of matplotlib place words elsewhere",
)
@pytest.mark.parametrize("name", NAMES)
def test_the_stored_picture_is_that_of_the_code_and_the_numbers(name, drawn):
    stored, new = (Image.open(folder / f"{name}.png") for folder in (FIGURES, drawn))
    assert stored.size == new.size
    assert stored.text == new.text, f"draw it again: make.py --out docs/figures --only {name}"
    # in small, where fonts and edges of other versions of matplotlib hardly differ
    ink, other = (255 - np.asarray(one.convert("L").reduce(8), float) for one in (stored, new))
    assert np.abs(ink - other).sum() < 0.2 * ink.sum()


def test_every_picture_of_a_page_is_there_and_every_figure_on_a_page():
    pages = [ROOT / "docs" / "gallery.md", *(ROOT / "docs" / "concepts").glob("*.md")]
    named = {
        (page.parent / link).resolve()
        for page in pages
        for link in re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", page.read_text())
    }
    assert named == {FIGURES / f"{name}.png" for name in NAMES}


def test_the_numbers_are_small():
    sizes = {path.name: path.stat().st_size for path in (GALLERY / "numbers").iterdir()}
    assert {Path(name).stem for name in sizes} <= {*NAMES}
    assert max(sizes.values()) < MOST_NUMBERS


def test_the_network_removes_what_its_card_promises():
    numbers = json.loads((GALLERY / "numbers" / "retention.json").read_text())
    at = numbers.pop("retention").index(0.97)
    removal = {name: values[at] for name, values in numbers.items()}
    network = removal.pop("network `arc`")
    promised = float(re.search(r"([\d.]+) % of the noise", pretrained("arc").card())[1])
    assert 100 * network == pytest.approx(promised, abs=0.1)
    assert network > max(removal.values()) + 0.2


def test_an_event_measured_anew_is_the_stored_one(module_of):
    event = module_of("event")
    stored, new = json.loads((GALLERY / "numbers" / "event.json").read_text()), event.measure()
    assert {name: new[name] for name in "xyt"} == {name: stored[name] for name in "xyt"}
    assert sum(a != b for a, b in zip(new["keep"], stored["keep"], strict=True)) <= 2


def test_an_event_is_drawn_whole_denoised_and_true(module_of):
    from matplotlib.figure import Figure

    event, numbers = module_of("event"), module_of("make").read_numbers("event")
    figure = Figure()
    event.draw(figure, numbers)
    n_drawn = [sum(len(dots.get_offsets()) for dots in axes.collections) for axes in figure.axes]
    assert n_drawn == 2 * [230, sum(numbers["keep"]), sum(numbers["label"])]


def test_cracks_measured_in_two_steps_are_drawn(module_of, monkeypatch):
    from matplotlib.figure import Figure

    cracks = module_of("cracks")
    monkeypatch.setattr(cracks, "N_STEPS", 2)
    numbers = cracks.measure()
    figure = Figure()
    cracks.draw(figure, numbers)
    panels = figure.axes
    assert [axes.get_title() for axes in panels[:5]] == ["image", "truth", *cracks.LOSSES]
    assert np.array_equal(panels[1].images[0].get_array(), numbers["truth"][0])


def test_one_figure_at_a_time(tmp_path):
    done = run_script(GALLERY / "make.py", "--out", tmp_path, "--only", "event", **NO_DISPLAY)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["event.png"]


def test_another_name_is_refused(tmp_path):
    done = run_script(GALLERY / "make.py", "--out", tmp_path / "new", "--only", "evnt")
    assert done.returncode == 2
    assert "'evnt' (choose from" in done.stderr
    assert not (tmp_path / "new").exists()


def test_doses_without_data_say_which_variable_to_set(tmp_path):
    arguments = ("--out", tmp_path, "--only", "dvh", "--measure")
    done = run_script(GALLERY / "make.py", *arguments, DENSE_IMB_DATA=None)
    assert done.returncode == 1
    assert "set DENSE_IMB_DATA to the folder of openkbp64" in done.stderr


def test_help_names_the_figures():
    done = run_script(GALLERY / "make.py", "--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in NAMES)
