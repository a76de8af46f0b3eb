"""The HTML page of a comparison."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path

from dense_imb import __version__
from dense_imb.base.files import write_whole
from dense_imb.compare.examples import draw_examples, make_examples, size_of_examples
from dense_imb.compare.figure import draw, draw_objects, size_of
from dense_imb.compare.headings import format_false_objects
from dense_imb.compare.maps import draw_map_examples, make_map_examples, size_of_map_examples
from dense_imb.compare.objects import CURVE, Curve, read_curve
from dense_imb.compare.table import ComparisonTable
from dense_imb.report.drawing import draw_png
from dense_imb.report.page import Drawing, Section, Table, render_page
from dense_imb.runs import open_run

PAGE = "comparison.html"
_N_CURVES = 6  # losses with a curve of objects
_FACTS = {
    "images": ("train", "masks"),
    "hits": ("train",),
    "labels": ("train", "images"),
    "values": ("train", "targets", "cells", "test_share"),
}


def write_page(table: ComparisonTable) -> Path:
    """Write the page of a comparison into its folder, and return its path.

    The page needs no other file. It shows the scores with their spread over seeds, the tests
    against chance, for images with masks the curve of objects, and examples of images.

    Args:
        table: result of `compare`, whose folder holds the runs.

    Example:
        >>> import pathlib, tempfile
        >>> from dense_imb import HitsConfig, ModelConfig, TrainConfig
        >>> from dense_imb.compare import compare, write_page
        >>> from dense_imb.hits import Geometry, HitsWriter, simulate
        >>> rings = simulate("ring", 8, 1, Geometry(24, 24, 50))
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with HitsWriter(folder / "rings.h5", rings.geometry) as writer:
        ...     writer.append(rings)
        >>> hits = HitsConfig(str(folder / "rings.h5"), signal=20, noise=50, validation_share=0.5)
        >>> tiny = ModelConfig("hits", {"width": 8, "depth": 1, "heads": 1})
        >>> table = compare(
        ...     TrainConfig(hits, model=tiny), folder / "losses", losses=["cross-entropy", "focal"],
        ...     n_seeds=1, steps=2, is_quiet=True, say=lambda line: None,
        ... )
        >>> write_page(table).relative_to(folder).as_posix()
        'losses/comparison.html'
    """
    sections = [
        _scores(table),
        *(section(table) for section in _OWN_SECTIONS.get(table.kind, ())),
        _losses(table),
    ]
    drawings = [drawing for section in sections for drawing in section.drawings]
    pngs = {drawing.name: draw_png(drawing.draw, drawing.size) for drawing in drawings}
    first = table.run_folder(str(table.trained[0]["loss"]), 0) if table.trained else None
    first = first or table.run_folder(str(table.rows[0]["loss"]), 0)
    date = datetime.now().astimezone().isoformat(" ", "minutes")
    page = render_page(
        name=Path(table.folder).resolve().name,
        headline=table.lead("loss"),
        origin=f"Compared {date}.",
        notes=[f"{row['loss']} fails: {row['failed']}." for row in table.rows if row["failed"]],
        sections=sections,
        pngs=pngs,
        facts=_facts(table, first),
        config=(first / "config.yaml").read_text(),
        commands=_commands(table, first),
        subject="comparison",
    )
    path = Path(table.folder) / PAGE
    write_whole(path, partial(_write_text, page))
    return path


def _write_text(text: str, to: Path) -> None:
    to.write_text(text, encoding="utf-8", errors="replace")  # names of files may be no UTF-8


def _scores(table: ComparisonTable) -> Section:
    header, *rows = table.cells()
    header[0] = "loss"
    rows = [[cell.replace("+- ", "+-\N{NO-BREAK SPACE}") for cell in row] for row in rows]
    figure = Drawing(
        "scores",
        partial(draw, table),
        size_of(table),
        "a dot for each run, a row for each loss, the best on top",
        "A dot is a run with one seed, a bar the mean over the seeds of a loss.",
    )
    legend = table.legend()
    return Section(
        "Scores",
        tables=[Table(header, rows, own=rows[0][0])],
        paragraphs=[f"{legend[0].upper()}{legend[1:]}.", *table.advice().splitlines()],
        drawings=[figure],
    )


def _objects(table: ComparisonTable) -> Section:
    title = "Objects found at a number of false ones"
    curves = _curves(table)
    if not curves:
        return Section(title)
    points = {
        name: (float(row["false_objects"]), float(row["object_recall"]))
        for row in table.trained
        if (name := str(row["loss"])) in curves
    }
    figure = Drawing(
        "objects",
        partial(draw_objects, curves, table.false_objects, points=points),
        (8.0, 4.6),
        "recall of objects against the number of false objects an image, a line for each loss",
        "Lines take their thresholds from the test images: the lowest one that keeps to the "
        "number; bands span the seeds. Dots are the rows of the table: thresholds with at most "
        f"{format_false_objects(table.false_objects)} an image on the validation images (dotted "
        "line), which make more or fewer on the test images.",
    )
    text = (
        "An object is a connected component of the pixels of a class, corners included. A "
        "predicted object is false if less than a tenth of its pixels are true. A true object is "
        "found if a predicted object that is not false covers one of its pixels."
    )
    return Section(title, paragraphs=[text], drawings=[figure])


def _curves(table: ComparisonTable) -> dict[str, list[Curve]]:
    """Return the curves of the seeds of the first losses, and of plain cross-entropy."""
    names = [str(row["loss"]) for row in table.trained]
    first = names[:_N_CURVES]
    if table.plain in names and table.plain not in first:
        first = [*first[:-1], str(table.plain)]
    curves = {}
    for name in first:
        seeds = [int(run["seed"]) for run in table.runs if run["loss"] == name]
        stored = [read_curve(table.run_folder(name, seed) / CURVE) for seed in seeds]
        if any(stored):
            curves[name] = [curve for curve in stored if curve]
    return curves


def _examples(table: ComparisonTable) -> Section:
    examples = make_examples(table)
    if not examples:
        return Section("Examples")
    figure = Drawing(
        "examples",
        partial(draw_examples, examples),
        size_of_examples(examples),
        "test images with the pixels that losses find, miss and invent",
        "A part of three test images of the first loss. Left the truth; then what each loss makes "
        "of it with seed 0, at the threshold of the best F1 on its validation images.",
    )
    return Section("Examples", drawings=[figure])


def _maps(table: ComparisonTable) -> Section:
    examples = make_map_examples(table)
    if not examples:
        return Section("Examples")
    figure = Drawing(
        "examples",
        partial(draw_map_examples, examples),
        size_of_map_examples(examples),
        "test images with their maps of values, and those that losses predict",
        "Three test images of the first loss: pixels, map, and what each loss predicts with seed "
        "0 and its read-out, in the colours of the map. Of several channels, the one with most "
        "lit pixels.",
    )
    return Section("Examples", drawings=[figure])


_OWN_SECTIONS = {"images": (_objects, _examples), "values": (_maps,)}


def _losses(table: ComparisonTable) -> Section:
    rows = [(str(row["loss"]), table.losses[str(row["loss"])]) for row in table.rows]
    return Section("Losses", tables=[Table(("name", "loss"), rows)])


def _facts(table: ComparisonTable, first: Path) -> dict[str, str]:
    """Return the origin of a comparison."""
    config = open_run(first).config
    data = getattr(config, table.kind)
    return {
        "dense_imb": __version__,
        **{f"{table.kind}.{name}": str(getattr(data, name)) for name in _FACTS[table.kind]},
        "network": config.model.name,
        "runs": f"{len(table.runs)} of {table.steps} steps, batch size {config.batch_size}",
        "folder": table.folder,
    }


def _commands(table: ComparisonTable, first: Path) -> str:
    """Return the commands that train with the first loss, and show its run."""
    name = str((table.trained or table.rows)[0]["loss"])
    return f"{table.command(name)}\ndense-imb report {first}"
