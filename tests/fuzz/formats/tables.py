"""Tables: CSV of hits, of labels and of key points, frames of Timepix, ROOT."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dense_imb.data.events.formats import csv_source, root_source, timepix_source
from dense_imb.data.events.sensors import read_sensors
from dense_imb.data.labels.tables import open_table
from dense_imb.data.values.key_point_tables import read_key_points
from tests.fuzz.format import Format, of_bytes, truncate
from tests.fuzz.formats.hdf5 import converted
from tests.fuzz.mutate import mutated_text

_HEADER = "event,x,y,t,label,charge"


def make_csv(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{event},{x},{y},{t},{label},{charge:.3f}"
        for event, x, y, t, label, charge in zip(
            np.repeat(np.arange(6), 5), rng.integers(0, 20, 30), rng.integers(0, 20, 30),
            rng.integers(1, 50, 30), rng.integers(0, 2, 30), rng.random(30), strict=True,
        )
    ]  # fmt: skip
    (folder / "hits.csv").write_text("\n".join([_HEADER, *rows, ""]))
    quoted = [",".join(f'"{cell}"' for cell in row.split(",")) for row in rows]
    (folder / "quoted.csv").write_text("\n".join([_HEADER, *quoted, ""]))


def read_csv(path: Path) -> Any:
    """Convert a table with one hit a row."""
    return converted(csv_source(path), path, width=20, height=20)


def check_csv(path: Path, contents: list[Any]) -> str:
    """Compare hits with those that Python's reader finds, where the header is the usual one."""
    (content,) = contents
    csv.field_size_limit(1 << 30)  # Python's own is 131,072
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    if content is None or not rows or [cell.strip() for cell in rows[0]] != _HEADER.split(","):
        return ""
    try:
        wanted = sorted(tuple(int(float(row[k])) for k in (1, 2, 3, 4)) for row in rows[1:])
    except (ValueError, IndexError, OverflowError) as problem:
        return f"a table that Python does not read ({problem}) was converted"
    columns = [content.get(f"hit {name}", []) for name in ("x", "y", "t", "label")]
    got = sorted(zip(*map(list, columns), strict=True))  # a table without rows has no labels
    return "" if got == wanted else f"{len(got)} hits are not the {len(wanted)} of the table"


def change_text(rng: random.Random, path: Path) -> bool:
    """Change the text of a table."""
    text = mutated_text(rng, path.read_text(), marks=',;\t\n\r"#').encode("utf-8", "surrogatepass")
    path.write_bytes(text)
    return False


def make_tables(folder: Path) -> None:
    for name in ("labels", "points", "sensors", "timepix"):
        (folder / name).mkdir()
    for k in range(3):
        Image.new("L", (6, 5), 40 * k).save(folder / "labels" / f"{k}.png")
    (folder / "labels" / "t.csv").write_text("image,label\n0.png,0\n1.png,1\n2.png,0\n")
    points = ["image,nose_x,nose_y,tail_x,tail_y", "0.png,1.5,2,3,4", "1.png,2,1,,", ""]
    (folder / "points" / "t.csv").write_text("\n".join(points))
    sensors = ["x,y,z,dx,dy,dz", *(f"{k}.5,{k % 3},{k},0,0,1" for k in range(5)), ""]
    (folder / "sensors" / "t.csv").write_text("\n".join(sensors))
    (folder / "timepix" / "t.csv").write_text("1\t2\t30\n4\t5\t60\n250\t255\t11810\n")


def read_tables(path: Path) -> Any:
    """Read a table of labels, of key points or of sensors, or a frame."""
    table = path / "t.csv"
    if path.name == "labels":
        images = open_table(table, show_progress=False)
        return images.n_classes, len(images)
    if path.name == "points":
        return vars(read_key_points(table))
    if path.name == "sensors":
        return vars(read_sensors(table, "m"))
    return converted(timepix_source(table), table)


def change_table(rng: random.Random, path: Path) -> bool:
    """Change the text of a table in a folder."""
    return change_text(rng, path / "t.csv")


def make_root(folder: Path) -> None:
    import awkward
    import uproot

    rng = np.random.default_rng(0)
    with uproot.recreate(folder / "rows.root") as file:
        columns = {"event": np.repeat(np.arange(8), 8), "x": rng.integers(0, 20, 64)}
        columns |= {"y": rng.integers(0, 20, 64), "t": rng.integers(1, 50, 64)}
        file["hits"] = {**columns, "label": rng.integers(0, 2, 64), "charge": rng.random(64)}
    counts = [3, 0, 5, 2, 4, 6]
    with uproot.recreate(folder / "jagged.root") as file:
        file["events"] = {
            name: awkward.unflatten(rng.integers(1, 20, sum(counts)), counts) for name in "xyt"
        }


def read_root(path: Path) -> Any:
    """Convert a tree."""
    return converted(root_source(path), path, width=20, height=20)


FORMATS = {
    "CSV": Format(
        make_csv,
        (read_csv,),
        (change_text, change_text, of_bytes(sealed=False, header=40)),
        check_csv,
    ),
    "tables": Format(make_tables, (read_tables,), (change_table,)),
    "ROOT": Format(
        make_root,
        (read_root,),
        (of_bytes(sealed=False, header=300), truncate),
        needs=("uproot", "awkward"),
    ),
}
