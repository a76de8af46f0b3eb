"""Baselines by name: unchanged where they were chosen, in proportion elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from dense_imb.hits import (
    BASELINES,
    Geometry,
    HitDensity,
    Sensors,
    available_baselines,
    make_baseline,
)
from dense_imb.hits.scaling import scaling_note


@pytest.mark.parametrize("name", BASELINES)
def test_on_the_frame_of_the_choice_nothing_changes(name):
    assert make_baseline(name) == make_baseline(name, Geometry()) == BASELINES[name]()


def test_reaches_are_in_proportion_to_the_frame():
    frame = Geometry(2 * 88, 2 * 128, 500)
    assert make_baseline("hit density", frame) == HitDensity(40.0, 60.0)
    for scorer in available_baselines(frame)[0]:
        default = BASELINES[scorer.name]()
        assert getattr(scorer, "sigma", 12.0) == 12.0
        assert getattr(scorer, "size", 41) in (41, 43)
        assert getattr(scorer, "radius_t", 0) == 0.5 * getattr(default, "radius_t", 0)
        assert getattr(scorer, "min_samples", 5) == 5


@pytest.mark.parametrize("frame", [Geometry(1, 1, 1), Geometry(3, 5, 2), Geometry(65536, 1, 65536)])
def test_every_frame_has_baselines(frame):
    for scorer in available_baselines(frame)[0]:
        assert getattr(scorer, "size", 3) % 2 == 1


def test_what_is_given_is_not_scaled():
    scorer = make_baseline("hit-density", Geometry(45, 40, 100), radius_xy=20)
    assert scorer.scorer == HitDensity(20, 12.0)
    assert scorer.name == "hit density (radius_xy=20)"


def test_the_note_tells_the_reaches_that_were_scaled():
    assert scaling_note(Geometry()) is None
    assert scaling_note(Geometry(x_mm=0.1)) is None
    assert scaling_note(Geometry(45, 40, 100), ["blank", "net"]) is None
    note = scaling_note(Geometry(45, 40, 100), ["blank", "blurred hits"])
    assert note.endswith("scaled to 45 x 40 x 100: blurred hits sigma=2.4.")


def test_bad_names_and_options_are_one_sentence():
    with pytest.raises(ValueError, match="Did you mean 'hit-density'"):
        make_baseline("hit-densty")
    with pytest.raises(ValueError, match="Did you mean 'sigma'"):
        make_baseline("blurred hits", sigm=2)
    with pytest.raises(ValueError, match="blank takes no options; drop `size`"):
        make_baseline("blank", size=2)
    with pytest.raises(ValueError, match="`radius_t` above 0"):
        make_baseline("hit density", radius_t=0)


def modules(n_sensors: int, spacing: float = 30.0) -> Sensors:
    """A cube of modules, `spacing` apart, with sensors 0.1 m apart."""
    steps = spacing * np.arange(5)
    places = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 1, 3)
    return Sensors((places + 0.1 * np.arange(n_sensors)[:, None] * [1, 0, 0]).reshape(-1, 3))


@pytest.mark.parametrize("n_sensors", [1, 2, 31])
def test_the_spacing_of_sensors_is_that_of_their_modules(n_sensors):
    assert modules(n_sensors).spacing == pytest.approx(30 - 0.1 * (n_sensors - 1), abs=1.6)
    assert modules(n_sensors, 0.003 if n_sensors == 1 else 60).spacing == pytest.approx(
        0.003 if n_sensors == 1 else 60, rel=0.1
    )


@pytest.mark.parametrize("n_sensors", [1, 2, 500])
def test_tables_without_a_spacing_have_baselines(n_sensors):
    sensors = Sensors(np.zeros((n_sensors, 2)))
    assert sensors.spacing == 1
    for scorer in available_baselines(sensors)[0]:
        assert getattr(scorer, "radius_xy", 1) > 0


def test_radii_for_sensors_follow_their_spacing_and_light():
    one, wide = (make_baseline("hit density", modules(1, spacing)) for spacing in (10, 40))
    assert one.radius_xy == 65
    assert wide.radius_xy == 4 * one.radius_xy
    assert wide.radius_t == pytest.approx(1.5 * wide.radius_xy / 0.2998, rel=2e-3)
    note = scaling_note(modules(1, 40), ["blank", "hit density"])
    assert "of the 125 sensors, 40 m, and the speed of light: hit density radius_xy=260" in note


def test_rules_of_frames_are_left_out_for_sensors():
    scorers, missing = available_baselines(modules(1))
    assert {scorer.name for scorer in scorers} <= {"identity", "blank", "hit density", "DBSCAN"}
    assert "no row for median filter, which needs a grid of pixels." in missing
    with pytest.raises(ValueError, match="for blurred-hits, got hits of 125 sensors in 3-D; take"):
        make_baseline("blurred hits", modules(1))
