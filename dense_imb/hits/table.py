"""Table of an evaluation as text, strict JSON and CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from dense_imb.hits.classes import class_table
from dense_imb.metrics.operating_point import Aim
from dense_imb.metrics.score_table import (
    Row,
    ScoreTable,
    aligned,
    finite_rows,
    percent_digits,
)

# a warning needs more occluded signal, or more tied signal, than this
_MUCH_HIDDEN, _MUCH_TIED = 0.05, 0.02
_RANKS = 0.55  # below this AUC a scorer hardly ranks, and ties are no surprise
_FORMAT, _VERSION = "dense-imb-evaluation", 1


@dataclass(frozen=True, repr=False)
class Evaluation(ScoreTable):
    """Table of an evaluation, one row for each scorer and noise level.

    Fractions are between 0 and 1. A score without data, such as false alarms without noise-only
    events, is NaN. NaN is null in JSON, an empty cell in CSV, and a dash in text.

        noise                    noise hits added to each event (sweeps only)
        scorer, threshold        name, and threshold of the operating point
        retention, removal, purity    signal efficiency, background rejection and purity at this
                                 threshold on the test events, see `HitScores`
        visible_retention, visible_removal    over the hits that a frame shows
        removal_at_97            removal at the threshold for 97 % retention of the validation
        retention_at_97          events, and the retention of the test events there
        removal_at_half, retention_at_half    at the threshold 1/2
        threshold_at_fakes       threshold of the operating point at a number of fakes; likewise
                                 at_retention and at_purity, see `points`
        retention_at_fakes, ...  retention, removal, purity and fakes of the test events there
        best_purity              largest purity of all thresholds, on the validation events
        auc, average_precision   see `ScoreHistogram`
        time_recovery, time_recovery_ceiling  see `HitScores`
        false_alarm_...          see `HitScores`
        event_removal_q05        5 % quantile of the removal over events, also for retention
        n_events, n_signal, n_noise   number of test events and of their hits
        occluded_share           occluded signal / all signal
        threshold_tie            fraction of the signal in the validation events whose scores tie
                                 with the threshold; it is all kept
        events_per_second        speed of the scorer without reading files

    Args:
        rows: rows in the order of the scorers, one noise level after the other.
        aim: wanted property of the operating points in the main columns.
        retentions: retentions of `removal_at_...`.
        chosen_on: description of the events used for thresholds.
        notes: notes for the reader, such as missing baselines.
        points: wanted retention, fakes and purity of the three operating points, by name.
        rules: names of the baselines; other scorers are networks.
        classes: hits, recall and precision of each class of hits, by the name of each network of
            more than two classes.

    Example:
        >>> from dense_imb.hits import Degradation, HitDensity, Identity
        >>> from dense_imb.hits import degrade, evaluate, simulate
        >>> noisy = degrade(simulate("arc", 10, seed=1), Degradation(signal=30, noise=100), seed=1)
        >>> table = evaluate([Identity(), HitDensity()], None, noisy)  # an Evaluation
        >>> [row["scorer"] for row in table.rows], table["identity"]["removal"]
        (['identity', 'hit density'], 0.0)
        >>> table.best_of(["identity", "hit density"])
        'hit density'
    """

    rows: tuple[Row, ...]
    aim: Aim
    retentions: tuple[float, ...]
    chosen_on: str
    notes: tuple[str, ...] = ()
    points: Mapping[str, float] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    classes: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)

    @property
    def retention(self) -> float:
        """Retention of the operating points; NaN if another property was wanted."""
        return self.aim.value if self.aim.name == "retention" else math.nan

    def __getitem__(self, scorer: str) -> Row:
        """Return the first row of a scorer."""
        return self._row_of(scorer)

    def as_json(self) -> dict[str, Any]:
        """Return a dictionary for strict JSON, with None in place of NaN."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "aim": {"name": self.aim.name, "value": self.aim.value},
            "retention": self.aim.value if self.aim.name == "retention" else None,
            "points": dict(self.points),
            "rules": list(self.rules),
            "retentions": list(self.retentions),
            "chosen_on": self.chosen_on,
            "notes": list(self.notes),
            "rows": self.finite_rows(),
            "classes": {name: finite_rows(rows) for name, rows in self.classes.items()},
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the table of a dictionary from `as_json`."""
        try:
            if stored["format"] != _FORMAT or stored["version"] != _VERSION:
                raise KeyError("format")
            rows = _rows_of(stored["rows"])
            classes = {name: tuple(_rows_of(r)) for name, r in stored.get("classes", {}).items()}
            # older versions knew no other aim
            aim = stored.get("aim", {"name": "retention", "value": stored["retention"]})
            return cls(
                tuple(rows),
                Aim(str(aim["name"]), float(aim["value"])),
                tuple(stored["retentions"]),
                str(stored["chosen_on"]),
                tuple(stored["notes"]),
                {str(name): float(value) for name, value in stored.get("points", {}).items()},
                tuple(stored.get("rules", ())),
                classes,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as why:
            raise ValueError(
                f"Expected an evaluation, JSON of version {_VERSION}, got something else ({why}); "
                "make it again with `dense-imb evaluate`."
            ) from why

    def best_of(self, names: Sequence[str], rows: Sequence[Row] | None = None) -> str | None:
        """Return the scorer that removes most noise at its operating point.

        If another property than a retention was wanted, it is the one that keeps most signal.

        Args:
            names: names of the scorers to choose from.
            rows: rows to look at; by default all.
        """
        by = "removal" if self.aim.name == "retention" else "retention"
        rows = self.rows if rows is None else rows
        known = [r for r in rows if r["scorer"] in names and not _is_unknown(r[by])]
        return str(max(known, key=lambda row: float(row[by]))["scorer"]) if known else None

    def point_table(self, rows: Sequence[Row] | None = None) -> list[list[str]]:
        """Return the table of the operating points: a header and rows of texts.

        It holds every network and the best baseline. Without noise-only events to choose on, there
        are no fakes.

        Args:
            rows: rows to show, of one noise level; by default all.
        """
        rows = self.rows if rows is None else rows
        header = ["threshold", "signal efficiency", "background rejection", "purity", "fakes"]
        names = [name for name in self.points if name != "fakes" or self._has_fakes(rows)]
        table = [
            ["operating point", *header],
            *(
                [f"{row['scorer']}: {_aim_text(name, self.points[name])}", *_point_cells(row, name)]
                for row in self._shown(rows)
                for name in names
            ),
        ]
        has_column = any(cells[-1] != "-" for cells in table[1:])
        return table if has_column else [cells[:-1] for cells in table]

    def point_notes(self, rows: Sequence[Row] | None = None) -> list[str]:
        """Return sentences on the operating points: the meaning of fakes, and missing points."""
        rows = self.rows if rows is None else rows
        has_fakes = self.point_table(rows)[0][-1] == "fakes"
        notes = ["Fakes are noise hits kept per noise-only event."] if has_fakes else []
        wanted = self.points["purity"]
        for row in self._shown(rows):
            if (best := float(row.get("best_purity", math.nan))) < wanted:
                notes.append(
                    f"{row['scorer']} reaches no purity of {_percent(wanted)} % on the validation "
                    f"events, at most {100 * best:.4g} %."
                )
        return notes

    def _has_fakes(self, rows: Sequence[Row]) -> bool:
        """Return whether any threshold was chosen by fakes."""
        return any(not _is_unknown(row.get("threshold_at_fakes", math.nan)) for row in rows)

    def _shown(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows of every network, then that of the best baseline."""
        best = self.best_of(self.rules, rows)
        networks = [row for row in rows if row["scorer"] not in self.rules]
        return [*networks, *(row for row in rows if row["scorer"] == best)]

    def text(self) -> str:
        """Return the table as text, with fractions in percent."""
        parts = [
            f"Thresholds that {self.aim}. Shares in percent: kept is the retention (signal "
            "efficiency), removed the removal (background rejection).",
            f"{self.chosen_on[:1].upper()}{self.chosen_on[1:]}.",
        ]
        levels = list(dict.fromkeys(row.get("noise") for row in self.rows))
        for level in levels:
            rows = [row for row in self.rows if row.get("noise") == level]
            parts.append("")
            if level is not None:
                parts.append(f"{level} noise hits added to each event")
            parts.append(self._block(rows))
            if self.points:
                parts += ["", *aligned(self.point_table(rows)), *self.point_notes(rows)]
        if self.classes:
            parts += ["", *aligned(class_table(self.classes))]
        return "\n".join([*parts, *(f"Note: {note}" for note in self.notes)])

    def text_tables(self) -> list[list[list[str]]]:
        """Return the tables of scores, operating points and classes, as texts."""
        tables: list[list[list[str]]] = []
        for level in dict.fromkeys(row.get("noise") for row in self.rows):
            rows = [row for row in self.rows if row.get("noise") == level]
            columns = self._columns(rows)
            _, *cells = _texts(rows, columns)
            corner = "" if level is None else f"{level} noise hits added"
            header = [corner, *(f"{group} {name}".strip() for group, name, _ in columns)]
            tables += [[header, *cells], *([self.point_table(rows)] if self.points else [])]
        return [*tables, *([class_table(self.classes)] if self.classes else [])]

    def text_notes(self) -> list[str]:
        """Return the explanation of the columns, and the notes."""
        return [
            f"Thresholds that {self.aim}. Shares in percent: kept is the retention (signal "
            "efficiency), removed the removal (background rejection).",
            f"{self.chosen_on[:1].upper()}{self.chosen_on[1:]}.",
            *(self.point_notes() if self.points else ()),
            *self.notes,
        ]

    def bar_rows(self) -> list[Row]:
        """Return a row for each scorer and noise level, with the level in its name."""
        return [
            row if "noise" not in row else {**row, "level": f"{row['noise']} noise hits"}
            for row in self.rows
        ]

    def bar_column(self) -> str:
        """Return the removal; the retention where another property than it was wanted."""
        return "removal" if self.aim.name == "retention" else "retention"

    def _columns(self, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
        """Return group, header and name of the columns that have data."""
        columns = [("", "kept", "retention")]
        if self.aim.name != "retention":
            columns.append(("", "removed", "removal"))
        columns += [
            ("removed at", _percent(r), f"removal_at_{_percent(r)}") for r in self.retentions
        ]
        columns += [
            ("", "purity", "purity"),
            *(_VISIBLE if is_hiding(rows) else ()),
            ("", "AUC", "auc"),
            ("exact times", "kept", "time_recovery"),
            ("exact times", "ceiling", "time_recovery_ceiling"),
            ("false alarms", "hits", "false_alarm_hits_per_event"),
            ("false alarms", "events", "false_alarm_event_share"),
            ("events kept", "q05", "event_retention_q05"),
            ("events kept", "q50", "event_retention_q50"),
            ("events removed", "q05", "event_removal_q05"),
            ("events removed", "q50", "event_removal_q50"),
            ("", "events/s", "events_per_second"),
        ]
        if all(_is_unknown(row["false_alarm_event_share"]) for row in rows):
            columns = [column for column in columns if column[0] != "false alarms"]
        return columns

    def _block(self, rows: list[Row]) -> str:
        columns = self._columns(rows)
        table = _texts(rows, columns)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = aligned(table)
        groups = _groups([group for group, *_ in columns], widths)
        is_alarming = any(column[0] == "false alarms" for column in columns)
        return "\n".join([groups, *lines, *_legend(rows, self.aim, is_alarming)])


def _texts(rows: Sequence[Row], columns: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """Return the cells of rows as texts, below the headers."""
    return [
        ["", *(header for _, header, _ in columns)],
        *([str(row["scorer"]), *(_cell(key, row) for *_, key in columns)] for row in rows),
    ]


def _rows_of(stored: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return stored rows with NaN in place of null."""
    return [
        {name: math.nan if value is None else value for name, value in row.items()}
        for row in stored
    ]


_VISIBLE = (
    ("visible hits", "kept", "visible_retention"),
    ("visible hits", "removed", "visible_removal"),
)


def _aim_text(name: str, value: float) -> str:
    return f"{name} {value:g}" if name == "fakes" else f"{name} {_percent(value)} %"


def _point_cells(row: Row, aim: str) -> list[str]:
    """Return the cells of an operating point; dashes where there is none."""
    threshold, *shares, fakes = (
        float(row.get(f"{name}_at_{aim}", math.nan))
        for name in ("threshold", "retention", "removal", "purity", "fakes")
    )
    return [
        f"{threshold:.4g}" if math.isfinite(threshold) else "-",
        *("-" if math.isnan(share) else f"{percent_digits(share, 2)} %" for share in shares),
        "-" if math.isnan(fakes) else f"{fakes:.2f}",
    ]


def is_hiding(rows: Sequence[Row]) -> bool:
    """Return whether hits hide others, so that the scores of the visible hits are of interest."""
    return any(
        float(row["occluded_share"]) > 0
        or (row["visible_removal"] != row["removal"] and not _is_unknown(row["visible_removal"]))
        for row in rows
        if "visible_removal" in row  # older tables counted visible hits only
    )


def _legend(rows: list[Row], aim: Aim, is_alarming: bool) -> list[str]:
    """Return the lines below a table: counts, explanations and warnings."""
    count = {name: float(rows[0][f"n_{name}"]) for name in ("events", "signal", "noise")}
    each = {name: count[name] / max(count["events"], 1) for name in ("signal", "noise")}
    lines = [
        f"Counted: {count['events']:,.0f} events with {count['signal']:,.0f} signal and "
        f"{count['noise']:,.0f} noise hits, {each['signal']:,.1f} and {each['noise']:,.1f} per "
        f"event{', hits behind others in their pixel included' * is_hiding(rows)}."
    ]
    if is_alarming:
        lines.append(
            "False alarms in events with noise only: kept hits per event, and the fraction of "
            "these events with kept hits."
        )
    hidden = float(rows[0].get("occluded_share", math.nan))
    if hidden > _MUCH_HIDDEN:
        lines.append(
            f"Warning: {100 * hidden:.3g} % of the signal is hidden behind other hits in its "
            "pixel, where a network of frames cannot tell them apart; `visible hits` leaves them "
            "out."
        )
    if count["noise"] == 0:
        lines.append(
            "Warning: no noise (label 0) to remove; `dense-imb evaluate --noise N` adds noise. If "
            "another label means noise, `dense-imb convert --noise-label K` changes it to 0."
        )
    for row in rows:
        tie = float(row.get("threshold_tie", math.nan))
        kept, auc = float(row["retention"]), float(row["auc"])
        is_more = aim.name == "retention" and kept - aim.value > _MUCH_TIED / 2
        if tie > _MUCH_TIED and is_more and auc > _RANKS:
            lines.append(
                f"Warning: the threshold of {row['scorer']} sits on a tie of {100 * tie:.3g} % of "
                "the signal, which is kept or lost together; other options may rank finer."
            )
    return lines


def _groups(groups: list[str], widths: list[int]) -> str:
    """Return the line above the headers, with the name of each group above its first column."""
    line, end = "", widths[0]
    for before, group, width in zip(["", *groups], groups, widths[1:], strict=False):
        end += 2 + width
        if group and group != before:
            line = line.ljust(end - width) if len(line) < end - width else f"{line}  "
            line += group  # may be wider than one column: a group has at least two
    return line


def _is_unknown(value: str | float) -> bool:
    return not isinstance(value, str) and math.isnan(value)


def _percent(share: float) -> str:
    return f"{100 * share:g}"


def _cell(name: str, row: Row) -> str:
    value = row.get(name, math.nan)
    if isinstance(value, str) or _is_unknown(value):
        return str(value) if isinstance(value, str) else "-"
    if name == "auc":
        return f"{value:.4f}"
    if name == "false_alarm_hits_per_event":
        return f"{value:.2f}"
    if name == "events_per_second":
        return f"{value:,.0f}"
    return percent_digits(value, 1)
