"""The table of an evaluation: as text, strict JSON and CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from dense_imb.metrics.score_table import Row, ScoreTable, aligned

_MUCH_HIDDEN, _MUCH_TIED, _RANKS = 0.05, 0.02, 0.55  # worth a warning; an AUC that ranks at all
_FORMAT, _VERSION = "dense-imb-evaluation", 1


@dataclass(frozen=True, repr=False)
class Evaluation(ScoreTable):
    """What scorers are worth, one row for each scorer and noise level.

    A share is between 0 and 1, and NaN where there was nothing to measure: false alarms without
    noise-only events, say. In JSON that is null, in CSV an empty cell, in text a dash.

        noise                    noise hits added to each event (sweeps only)
        scorer, threshold        the threshold is chosen on other events than all that follows
        retention, removal       signal kept, noise rejected, as measured; purity of what is kept
        removal_at_97            noise rejected at the threshold chosen to keep 97 % of the
                                 signal, of which `retention_at_97` was kept in truth
        removal_at_half          what the threshold 1/2 does, which nobody chose
        auc, average_precision   of the ranking, whatever the threshold
        time_recovery            signal kept at exactly its measured time; its ceiling is
                                 the retention times the share of signal that no hit hides
        false_alarm_...          hits kept in events that hold noise only
        event_removal_q05        exceeded by 95 % of the events; so for retention
        n_events, n_signal, n_noise   seen; hits behind others in their pixel not counted
        occluded_share           of the signal: hidden behind others, so not in n_signal
        threshold_tie            share of the signal, of the events that the threshold is chosen
                                 on, whose scores tie with it: all of them are kept
        events_per_second        scored, reading not counted

    Args:
        rows: in the order of the scorers, for one noise level after the other.
        retention: wanted of the thresholds.
        retentions: those of `removal_at_...`.
        chosen_on: in words, which events the thresholds are from.
        notes: what a reader should know, missing baselines for one.
    """

    rows: tuple[Row, ...]
    retention: float
    retentions: tuple[float, ...]
    chosen_on: str
    notes: tuple[str, ...] = ()

    def __getitem__(self, scorer: str) -> Row:
        """The first row of a scorer, by name."""
        return self._row_of(scorer)

    def as_json(self) -> dict[str, Any]:
        """Strict JSON: NaN becomes null."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "retention": self.retention,
            "retentions": list(self.retentions),
            "chosen_on": self.chosen_on,
            "notes": list(self.notes),
            "rows": self.finite_rows(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `as_json` was made from."""
        try:
            if stored["format"] != _FORMAT or stored["version"] != _VERSION:
                raise KeyError("format")
            rows = [
                {name: math.nan if value is None else value for name, value in row.items()}
                for row in stored["rows"]
            ]
            return cls(
                tuple(rows),
                float(stored["retention"]),
                tuple(stored["retentions"]),
                str(stored["chosen_on"]),
                tuple(stored["notes"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as why:
            raise ValueError(
                f"Expected an evaluation, JSON of version {_VERSION}, got something else ({why}); "
                "make it again with `dense-imb evaluate`."
            ) from why

    def text(self) -> str:
        """The table to read, shares in percent."""
        parts = [
            f"Thresholds that keep {_percent(self.retention)} % of the signal; shares in percent.",
            f"{self.chosen_on[:1].upper()}{self.chosen_on[1:]}.",
        ]
        levels = list(dict.fromkeys(row.get("noise") for row in self.rows))
        for level in levels:
            rows = [row for row in self.rows if row.get("noise") == level]
            parts.append("")
            if level is not None:
                parts.append(f"{level} noise hits added to each event")
            parts.append(self._block(rows))
        return "\n".join([*parts, *(f"Note: {note}" for note in self.notes)])

    def _block(self, rows: list[Row]) -> str:
        columns = [("", "kept", "retention")]
        columns += [
            ("removed at", _percent(r), f"removal_at_{_percent(r)}") for r in self.retentions
        ]
        columns += [
            ("", "purity", "purity"),
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
        table = [["", *(header for _, header, _ in columns)]]
        table += [[str(row["scorer"]), *(_cell(key, row) for *_, key in columns)] for row in rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = aligned(table)
        groups = _groups([group for group, *_ in columns], widths)
        is_alarming = any(column[0] == "false alarms" for column in columns)
        return "\n".join([groups, *lines, *_legend(rows, self.retention, is_alarming)])


def _legend(rows: list[Row], retention: float, is_alarming: bool) -> list[str]:
    """What was seen, and what in the numbers would mislead."""
    n_of = {name: float(rows[0][f"n_{name}"]) for name in ("events", "signal", "noise")}
    each = {name: n_of[name] / max(n_of["events"], 1) for name in ("signal", "noise")}
    lines = [
        f"Seen: {n_of['events']:,.0f} events with {n_of['signal']:,.0f} signal and "
        f"{n_of['noise']:,.0f} noise hits, {each['signal']:,.1f} and {each['noise']:,.1f} an "
        "event; those behind others in their pixel not counted."
    ]
    if is_alarming:
        lines.append(
            "False alarms, in events that hold noise only: hits kept per event, and the share of "
            "these events that keep any."
        )
    hidden = float(rows[0].get("occluded_share", math.nan))
    if hidden > _MUCH_HIDDEN:
        lines.append(
            f"Warning: {100 * hidden:.3g} % of the signal is hidden behind other hits in its "
            "pixel; the scores speak of the rest."
        )
    if n_of["noise"] == 0:
        lines.append(
            "Warning: no noise (label 0) to remove; --noise N adds some, and if one of the labels "
            "means noise, data_tools/convert.py --noise-label K makes it 0."
        )
    for row in rows:
        tie = float(row.get("threshold_tie", math.nan))
        kept, auc = float(row["retention"]), float(row["auc"])
        if tie > _MUCH_TIED and kept - retention > _MUCH_TIED / 2 and auc > _RANKS:
            lines.append(
                f"Warning: the threshold of {row['scorer']} sits on a tie of {100 * tie:.3g} % of "
                "the signal, which it keeps or loses together; other options may rank finer."
            )
    return lines


def _groups(groups: list[str], widths: list[int]) -> str:
    """The line above the headers: each group's name where its columns begin."""
    line, place = "", widths[0]
    for before, group, width in zip(["", *groups], groups, widths[1:], strict=False):
        place += 2 + width
        if group and group != before:
            line = line.ljust(place - width)
            # beside a long name a short column has no room: a group has two columns or more
            line += group
    return line


def _is_unknown(value: str | float) -> bool:
    return not isinstance(value, str) and math.isnan(value)


def _percent(share: float) -> str:
    return f"{100 * share:g}"


def _cell(name: str, row: Row) -> str:
    value = row[name]
    if isinstance(value, str) or _is_unknown(value):
        return str(value) if isinstance(value, str) else "-"
    if name == "auc":
        return f"{value:.4f}"
    if name == "false_alarm_hits_per_event":
        return f"{value:.2f}"
    if name == "events_per_second":
        return f"{value:,.0f}"
    return f"{round(100 * value, 6):.1f}"  # equal shares, computed in two ways, look equal
