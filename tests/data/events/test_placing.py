"""Coordinates in mm and ns: binned to pixels, or kept as a table of sensors."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from dense_imb.data.events.convert import to_hits
from dense_imb.data.events.formats import chain_sources, csv_source, hdf5_hits_source
from dense_imb.data.events.placing import read_bins
from dense_imb.data.events.sensors import PositionTable, read_sensors
from dense_imb.hits import HitsFile, Sensors, verify

GRID = np.random.default_rng(3)
PIXEL = GRID.integers(0, [88, 128], (300, 2))
PIXEL[:2] = [0, 0], [87, 127]
TIME = np.round(GRID.random(300) * 200 - 17, 4)


def csv(folder, place, time=TIME, event=None, name="mm.csv", header="event,x,y,t"):
    event = np.arange(len(place)) // 10 if event is None else event
    table = np.column_stack([event, place, time])
    np.savetxt(folder / name, table, "%.6f", ",", header=header, comments="")
    return csv_source(folder / name, needed=tuple(header.split(",")[1:]))


def converted(source, path, **options):
    done = to_hits(source, path, progress=False, **options)
    verify(path)
    return done, HitsFile(path)[:]


@pytest.mark.parametrize("start", [0.0, 0.75, -60.0, 1e4 + 0.1])
@pytest.mark.parametrize("pitch", [1.5, 0.055, 0.3])
def test_a_grid_in_mm_becomes_its_pixels(tmp_path, start, pitch):
    source = csv(tmp_path, PIXEL * pitch + start)
    words = [f"x={pitch}", f"y={pitch}", "t=0.5"]
    done, events = converted(source, tmp_path / "a.h5", bin=read_bins(words))
    assert np.array_equal(np.stack([events.x, events.y], 1), PIXEL)
    assert (events.geometry.width, events.geometry.height) == (88, 128)
    assert (events.geometry.x_mm, events.geometry.t_ns) == (pitch, 0.5)
    assert events.t.min() == 1
    assert np.abs((TIME - TIME.min()) / 0.5 + 1 - events.t).max() <= 0.51
    assert done.lines[0].startswith(f"x: 88 bins of {pitch:.12g} mm from ")


def test_the_bins_that_are_printed_repeat_them(tmp_path):
    place = GRID.random((300, 2)) * 50
    words = ["x=1.5", "y=2", "t=0.5"]
    done, events = converted(csv(tmp_path, place), tmp_path / "a.h5", bin=read_bins(words))
    part = csv(tmp_path, place[100:], TIME[100:], np.arange(100, 300) // 10, "part.csv")
    same, again = converted(part, tmp_path / "b.h5", bin=read_bins(done.bins))
    assert again.geometry == events.geometry
    assert same.bins == done.bins
    for name in ("x", "y", "t"):
        assert np.array_equal(again.hit_columns()[name], events.hit_columns()[name][100:])
    far = csv(tmp_path, place + 60, name="far.csv")
    with pytest.raises(ValueError, match=r"`x` of .* in the bins from .*widen `bin=x=1.5:"):
        converted(far, tmp_path / "c.h5", bin=read_bins(done.bins))


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("cm", 10), ("m", 1000)])
def test_the_size_of_a_pixel_is_stored_in_mm(tmp_path, unit, mm):
    bins = read_bins(["x=1.5,y=2"])
    place = PIXEL * [1.5, 2]
    source = csv(tmp_path, place, np.arange(1, 301))
    _, events = converted(source, tmp_path / "a.h5", bin=bins, unit=unit)
    assert (events.geometry.x_mm, events.geometry.y_mm) == (1.5 * mm, 2 * mm)
    assert events.geometry.t_ns is None
    assert events.geometry.time_steps == 300


def test_times_of_a_whole_run_need_the_first_hit_of_an_event(tmp_path):
    time = np.arange(300) * 1000.0 + TIME % 3
    time[4], time[0] = time[0], time[4]  # the first hit is not the first row
    source = csv(tmp_path, PIXEL * 1.5, time)
    bins = ["x=1.5", "y=1.5", "t=0.5"]
    with pytest.raises(ValueError, match="at most 65536 bins of t, got .*`relative_times`"):
        converted(source, tmp_path / "a.h5", bin=read_bins(bins))
    _, events = converted(source, tmp_path / "a.h5", bin=read_bins(bins), relative_times=True)
    first = np.repeat(time.reshape(30, 10).min(1), 10)
    assert np.abs((time - first) / 0.5 + 1 - events.t).max() <= 0.51


@pytest.mark.parametrize(
    "word", ["x", "z=1", "x=0", "x=-1", "x=a", "x=1:2:1", "x=1:2:3:4", "x=nan"]
)
def test_bins_that_are_none_are_refused(word):
    with pytest.raises(ValueError, match="Expected"):
        read_bins([word])
    with pytest.raises(ValueError, match="once for each of x, y, t"):
        read_bins(["x=1", "x=2"])


def test_nan_is_no_bin(tmp_path):
    place = PIXEL * 1.5
    place[7, 0] = np.nan
    with pytest.raises(ValueError, match="finite numbers in `x` of .*, got nan; remove that hit"):
        converted(csv(tmp_path, place), tmp_path / "a.h5", bin=read_bins(["x=1", "y=1", "t=1"]))
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(("unit", "metres"), [("mm", 0.001), ("m", 1.0)])
def test_positions_of_hits_make_a_table(tmp_path, unit, metres):
    place = np.column_stack([PIXEL % 7, PIXEL[:, 0] % 3]) - 2.5
    source = csv(tmp_path, place, header="event,px,py,pz,t")
    table = PositionTable(("px", "py", "pz"), unit)
    done, events = converted(source, tmp_path / "a.h5", sensors=table)
    assert isinstance(events.geometry, Sensors)
    assert np.allclose(events.position(), place * metres, rtol=1e-6)
    assert len(events.geometry) == len(np.unique(place, axis=0))
    assert events.hit == {}
    assert np.allclose(events.t, TIME)
    assert "built from the positions of the hits" in done.lines[0]


def test_directions_belong_to_the_sensors(tmp_path):
    place = np.column_stack([PIXEL % 3, PIXEL[:, 0] % 2])
    both = np.column_stack([place, np.where(PIXEL[:, :1] % 4 < 2, [[0, 0, 1]], [[1, 0, 0]])])
    source = csv(tmp_path, both, header="event,x,y,z,dx,dy,dz,t")
    table = PositionTable(("x", "y", "z", "dx", "dy", "dz"), "m")
    _, events = converted(source, tmp_path / "a.h5", sensors=table)
    assert len(events.geometry) == len(np.unique(both, axis=0))
    assert np.array_equal(events.geometry.direction[events.sensor], both[:, 3:])


def test_measured_positions_are_no_sensors(tmp_path):
    place = GRID.random((1500, 2))
    source = csv(tmp_path, place, np.arange(1500))
    with pytest.warns(UserWarning, match="1,500 different positions for 1,500 hits: .*`bin=x=WID"):
        converted(source, tmp_path / "a.h5", sensors=PositionTable(("x", "y"), "m"))


def sensor_rows(folder, sensor=(0, 3, 1), name="a.csv"):
    rows = "".join(f"{k // 2},{one},{k + 0.5},1\n" for k, one in enumerate(sensor))
    (folder / name).write_text("event,sensor,t,tot\n" + rows)
    return csv_source(folder / name)


def sensor_table(folder, text=None):
    rows = "".join(f"{k},{k * 10},{-k},{k % 2},0,0,1\n" for k in (1, 0, 3, 2))
    (folder / "table.csv").write_text(text or "sensor,x,y,z,dx,dy,dz\n" + rows)
    return folder / "table.csv"


def test_a_table_in_another_file(tmp_path):
    sensors = read_sensors(sensor_table(tmp_path), "cm")
    _, events = converted(sensor_rows(tmp_path), tmp_path / "a.h5", sensors=sensors)
    assert np.allclose(events.position()[:, 0], [0, 0.3, 0.1])
    assert events.geometry.direction.tolist() == [[0, 0, 1]] * 4
    assert events.hit["tot"].tolist() == [1, 1, 1]
    assert events.event["event_id"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("sensor", "sentence"),
    [
        ([0, 4, 1], "`sensor` of .* from 0 to 3, got 4 in event 0; give the whole table with"),
        ([1, 2, 4], "got 4 in event 1; sensors count from 0: subtract 1"),
        ([0, -1, 1], "got -1 in event 0"),
    ],
)
def test_sensors_outside_the_table_are_refused(tmp_path, sensor, sentence):
    sensors = read_sensors(sensor_table(tmp_path), "m")
    with pytest.raises(ValueError, match=sentence):
        converted(sensor_rows(tmp_path, sensor), tmp_path / "a.h5", sensors=sensors)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", "Expected columns x, y, perhaps z"),
        ("x,y,z,dx\n1,2,3,4\n", "Expected dx, dy, dz in .*, got only dx"),
        ("x,y\n1,2,3\n", "2 numbers in each row"),
        ("sensor,x,y\n1,2,3\n", "sensors 0 to 0, each once"),
        ("x,y\n1,nan\n", "finite numbers"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_sensors(sensor_table(tmp_path, text), "m")
    with pytest.raises(ValueError, match="unit of the table of sensors, got none; add `unit=m`"):
        read_sensors(sensor_table(tmp_path), None)


def test_options_of_a_grid_are_not_for_sensors(tmp_path):
    source = sensor_rows(tmp_path)
    with pytest.raises(ValueError, match="a table of the sensors of .*add `sensor_table=FILE`"):
        to_hits(source, tmp_path / "a.h5")
    sensors = read_sensors(sensor_table(tmp_path), "m")
    with pytest.raises(ValueError, match="`width` is for a grid of pixels"):
        to_hits(source, tmp_path / "a.h5", sensors=sensors, width=4)
    with pytest.raises(ValueError, match="`bin` makes a grid of pixels"):
        to_hits(source, tmp_path / "a.h5", sensors=sensors, bin=read_bins(["x=1"]))


@pytest.mark.parametrize(("name", "unit", "metres"), [("position_mm", None, 1e-3),
                                                      ("position", "cm", 1e-2)])  # fmt: skip
def test_a_table_in_the_same_hdf5_file(tmp_path, name, unit, metres):
    position = GRID.random((4, 3)).astype(np.float32)
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["event/offset"] = [0, 2, 3]
        file["hit/sensor"] = np.array([0, 3, 1], np.uint16)
        file["hit/t"], file["hit/tot"] = np.array([[0.5, -1, 2], [7, 8, 9]])
        file[f"sensor/{name}"] = position
        file["sensor/direction"] = position
    source = hdf5_hits_source(tmp_path / "flat.h5", unit=unit)
    _, events = converted(source, tmp_path / "a.h5")
    assert np.allclose(events.geometry.position, position * metres)
    assert np.array_equal(events.geometry.direction, position)
    assert (events.sensor.tolist(), events.t.tolist()) == ([0, 3, 1], [0.5, -1, 2])
    assert (events.hit["tot"].tolist(), events.event) == ([7, 8, 9], {})


def test_several_files_share_the_types_of_their_columns(tmp_path):
    for name, charge in (("a.csv", 3), ("b.csv", 0.5)):
        (tmp_path / name).write_text(f"event,x,y,t,charge\n0,1,1,5,{charge}\n")
    both = chain_sources([csv_source(tmp_path / "a.csv"), csv_source(tmp_path / "b.csv")])
    _, events = converted(both, tmp_path / "a.h5", width=4, height=4, time_steps=9)
    assert events.hit["charge"].tolist() == [3, 0.5]


def test_several_files_share_their_bins_and_types(tmp_path):
    first = csv(tmp_path, PIXEL * 1.5, np.arange(1, 301), name="a.csv")
    second = csv(tmp_path, PIXEL * 1.5 + 15, TIME, name="b.csv")
    both = chain_sources([first, second], "part")
    bins = read_bins(["x=1.5", "y=1.5", "t=0.5"])
    done, events = converted(both, tmp_path / "a.h5", bin=bins)
    assert (done.n_events, events.geometry.width) == (60, 98)
    assert events.event["part"].tolist() == [0] * 30 + [1] * 30
    assert events.event["event_id"].tolist() == [*range(30), *range(30)]
    assert np.array_equal(events.x[300:], PIXEL[:, 0] + 10)
    csv(tmp_path, np.column_stack([PIXEL, TIME]), name="c.csv", header="event,x,y,q,t")
    charge = csv_source(tmp_path / "c.csv")
    with pytest.raises(ValueError, match="q in one of them only; name the columns to keep"):
        converted(chain_sources([first, charge]), tmp_path / "b.h5", bin=bins)
    with pytest.raises(ValueError, match="a new name for the column of sources, got `event_id`"):
        converted(chain_sources([first], "event_id"), tmp_path / "b.h5", bin=bins)
