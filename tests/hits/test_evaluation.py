"""Thresholds from some events, scores of others: against plain loops and scikit-learn."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from dense_imb.hits import (
    Degradation,
    Evaluation,
    Events,
    Geometry,
    HitsFile,
    available_baselines,
    choose_point,
    degrade,
    evaluate,
    noise_sweep,
    simulate,
)
from dense_imb.hits.baselines import BASELINES, HitDensity, Identity, KeepNothing
from dense_imb.metrics import ScoreHistogram
from tests.hits.files import some_sensor_events, write

LEVELS = 25  # of the scores below, far enough apart for bins of their own


@dataclass
class Ranked:
    """Larger times score higher, in few steps, so that signal of later times stands out."""

    name: str = "ranked"
    seen: list[int] = field(default_factory=list)

    def score(self, events: Events) -> torch.Tensor:
        self.seen.append(len(events))
        return (events.t * LEVELS // 1001).float() / LEVELS


def some(n_events: int, seed: int, shift: int = 0) -> Events:
    """Crowded frames with every kind of event: empty, noise only, signal only."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 40, n_events)
    count[::7] = 0
    n = int(count.sum())
    of_event = np.repeat(np.arange(n_events), count)
    label = rng.integers(0, 3, n)
    label[of_event % 5 == 3] = 0
    label[of_event % 11 == 4] = 2
    t = rng.integers(1, 600, n) + np.where(label > 0, 300 + shift, 0)
    offset = np.concatenate([[0], np.cumsum(count)])
    x, y = rng.integers(0, 20, n), rng.integers(0, 15, n)
    return Events(Geometry(20, 15, 1000), offset, x, y, t.astype(np.uint16), label)


def without_speed(table: Evaluation) -> list[dict[str, object]]:
    # NaN differs from itself: as JSON it is null
    rows = table.as_json()["rows"]
    return [{k: v for k, v in row.items() if k != "events_per_second"} for row in rows]


def all_hits(events: Events) -> list[list[tuple[float, bool, bool]]]:
    """Score, truth and visibility in a frame of every hit, event by event."""
    actual = []
    for one in events:
        hits = list(zip(one.x.tolist(), one.y.tolist(), one.t.tolist(), strict=True))
        score = Ranked().score(one.torch()).tolist()
        first = {}  # of each pixel
        for j, (x, y, t) in enumerate(hits):
            first[x, y] = min(first.get((x, y), (0, 0)), (-t, j))
        actual.append(
            [
                (score[j], bool(one.label[j] > 0), first[x, y] == (-t, j))
                for j, (x, y, t) in enumerate(hits)
            ]
        )
    return actual


@pytest.mark.parametrize("batch_size", [1, 13, 256])
def test_thresholds_are_chosen_on_validation_and_scored_on_test(batch_size: int) -> None:
    """All hits count, hidden ones included: a denoiser decides on every one of them."""
    metrics = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn's")
    validation, test = some(80, 1), some(90, 2, shift=-60)
    table = evaluate([Ranked()], validation, test, retentions=(0.9, 0.95), batch_size=batch_size)
    row = table["ranked"]
    score, truth, _ = map(np.array, zip(*chain(*all_hits(validation)), strict=True))
    _, kept_share, threshold = metrics.roc_curve(truth, score, drop_intermediate=False)
    by_event = all_hits(test)
    score, truth, is_shown = map(np.array, zip(*chain(*by_event), strict=True))
    assert table.retentions == (0.9, 0.95, 0.97)
    for wanted, name in ((0.9, "90"), (0.95, "95"), (0.97, "97")):
        cut = threshold[np.flatnonzero(kept_share >= wanted)[0]]
        assert row[f"removal_at_{name}"] == np.mean(score[~truth] < cut)
        assert row[f"retention_at_{name}"] == np.mean(score[truth] >= cut)
    assert row["removal"] == row["removal_at_97"]
    assert row["retention"] == row["retention_at_97"]
    assert row["visible_retention"] == np.mean(score[truth & is_shown] >= cut)
    assert row["visible_removal"] == np.mean(score[~truth & is_shown] < cut)
    assert row["visible_removal"] != row["removal"]
    assert row["purity"] == np.mean(truth[score >= cut])
    assert row["auc"] == pytest.approx(metrics.roc_auc_score(truth, score), abs=1e-12)
    assert row["retention_at_half"] == np.mean(score[truth] >= 0.5)
    assert row["removal_at_half"] == np.mean(score[~truth] < 0.5)
    assert (row["n_events"], row["n_signal"], row["n_noise"]) == (90, truth.sum(), (~truth).sum())

    kept, removed, alarms = [], [], []
    for hits in by_event:
        signal = [s >= cut for s, is_signal, _ in hits if is_signal]
        noise = [s < cut for s, is_signal, _ in hits if not is_signal]
        kept += [np.mean(signal)] if signal else []
        removed += [np.mean(noise)] if noise else []
    for index, one in enumerate(test):
        if one.n_hits and not (one.label > 0).any():
            alarms.append(sum(s >= cut for s, *_ in by_event[index]))
    for name, values in (("retention", kept), ("removal", removed)):
        for q in (0.05, 0.5, 0.95):
            wanted_value = np.quantile(values, q, method="inverted_cdf")
            assert row[f"event_{name}_q{round(100 * q):02d}"] == pytest.approx(
                wanted_value, abs=6e-4
            )
    assert row["false_alarm_hits_per_event"] == np.mean(alarms)
    assert row["false_alarm_event_share"] == np.mean([n > 0 for n in alarms])
    recovered = (score[truth & is_shown] >= cut).sum()
    assert row["time_recovery"] == pytest.approx(recovered / truth.sum())
    assert row["time_recovery_ceiling"] == pytest.approx(row["time_recovery"])
    assert row["occluded_share"] > 0.02
    point = choose_point(Ranked(), validation, batch_size=batch_size)
    assert point.threshold == row["threshold"]


def test_hidden_hits_choose_the_threshold_too() -> None:
    """97 % of the signal are 97 % of all signal hits, not of those that a frame shows."""
    column = np.repeat(np.arange(10), 2)
    t = np.tile([999, 1], 10)  # each pixel shows the later of its hits
    label = np.ones(20, np.int64)
    events = Events(Geometry(10, 1, 1000), np.array([0, 20]), column, 0 * column, t, label)
    table = evaluate([Ranked()], events, events)
    assert table["ranked"]["threshold"] == 0.0  # the score of the hidden half
    assert table["ranked"]["retention"] == 1.0
    assert choose_point(Ranked(), events).n_signal == 20
    half = evaluate([Ranked()], events, events, retention=0.5)
    assert (half["ranked"]["retention"], half["ranked"]["visible_retention"]) == (0.5, 1.0)
    assert "visible hits" in half.text()
    assert "50 % of the signal is hidden" in half.text()


def test_without_validation_every_fifth_event_chooses() -> None:
    events = some(53, 3)
    fifth = [i for i in range(53) if i % 5 == 0]
    others = [i for i in range(53) if i % 5]
    split = evaluate([Ranked()], None, events, batch_size=7)
    apart = evaluate([Ranked()], events.take(fifth), events.take(others))
    assert without_speed(split) == without_speed(apart)
    assert "every 5th event (11), scores on the 42 others" in split.text()
    assert "11 validation events, scores on 42 test events" in apart.text().replace("\n", " ")


def test_files_batches_and_arrays_are_alike(tmp_path: Path) -> None:
    events = some(40, 4)
    wanted = without_speed(evaluate([Ranked()], None, events))
    path, scorer = write(tmp_path / "a.h5", events), Ranked()
    with HitsFile(path, in_memory=False) as hits:
        assert without_speed(evaluate([scorer], None, hits, batch_size=6)) == wanted
    assert max(scorer.seen) <= 6  # no more than a batch is ever in memory
    assert sum(scorer.seen) == 40
    parts = [events[:9], events[9:10], events[10:].torch()]
    assert without_speed(evaluate([Ranked()], None, parts)) == wanted
    both = evaluate([Ranked()], iter(parts), iter(parts))  # read once each
    assert both["ranked"]["n_events"] == 40


def test_the_first_events_only() -> None:
    events = some(40, 4)
    wanted = without_speed(evaluate([Ranked()], None, events[:23]))
    done: list[int] = []
    for size in (5, 23, 100):
        table = evaluate(
            [Ranked(), KeepNothing()],
            None,
            events,
            n_events=23,
            batch_size=size,
            progress=done.append,
        )
        assert without_speed(table)[:1] == wanted
    assert sum(done) == 3 * 2 * 23


@pytest.fixture(scope="module")
def clean() -> Events:
    return simulate("arc", 25, seed=5)


def test_a_sweep_does_not_depend_on_the_batch_size(clean: Events) -> None:
    scorers, _ = available_baselines()
    tables = [
        noise_sweep(scorers, clean, [20, 90], signal=(10, 30), seed=3, batch_size=size)
        for size in (4, 256)
    ]
    assert without_speed(tables[0]) == without_speed(tables[1])
    other = noise_sweep(scorers, clean, [20, 90], signal=(10, 30), seed=4)
    assert without_speed(other) != without_speed(tables[0])


def test_a_sweep_degrades_and_evaluates(clean: Events) -> None:
    validation = simulate("arc", 10, seed=6)
    table = noise_sweep(
        [HitDensity()], clean, [50, 0], signal=20, seed=3, validation=validation, batch_size=6
    )
    assert [row["noise"] for row in table.rows] == [50, 0]
    how = Degradation(signal=20, noise=50)
    wanted = evaluate(
        [HitDensity()],
        degrade(validation, how, seed=3, epoch=1),  # other noise than the test events have
        degrade(clean, how, seed=3),
    )
    assert [{"noise": 50, **row} for row in without_speed(wanted)] == without_speed(table)[:1]
    assert math.isnan(float(table.rows[1]["removal"]))
    unlabelled = replace(clean, label=None)
    again = noise_sweep([HitDensity()], unlabelled, [50], signal=20, seed=3, validation=validation)
    assert without_speed(again) == without_speed(table)[:1]


def test_more_noise_is_harder(clean: Events) -> None:
    table = noise_sweep([HitDensity()], clean, [30, 300])
    easy, hard = (float(row["removal"]) for row in table.rows)
    assert easy > hard + 0.1


def test_the_table_prints_every_baseline(clean: Events) -> None:
    pytest.importorskip("sklearn", reason="one of the baselines is DBSCAN")
    scorers, missing = available_baselines()
    assert missing == ()
    table = noise_sweep(scorers, clean, [20, 40])
    lines = table.text().splitlines()
    for name in BASELINES:
        assert sum(line.startswith(name + " ") for line in lines) == 2
    rows = [line for line in lines if line.startswith(tuple(BASELINES))]
    headers = [line for line in lines if line.endswith("events/s")]
    assert {len(line) for line in (*rows[:6], headers[0])} == {len(headers[0])}  # aligned
    place = headers[0].index("  97") + 4
    row = next(line for line in rows if line.startswith("hit density"))
    printed = float(row[:place].split()[-1])
    assert printed == pytest.approx(100 * float(table["hit density"]["removal"]), abs=0.0501)


def test_a_missing_package_is_said(clean: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    scorers, missing = available_baselines()
    assert [scorer.name for scorer in scorers] == [name for name in BASELINES if name != "DBSCAN"]
    (note,) = missing
    table = replace(noise_sweep(scorers, clean, [20]), notes=missing)
    assert table.text().splitlines()[-1] == f"Note: {note}"
    assert "pip install scikit-learn" in note


def test_json_and_csv_hold_every_number(tmp_path: Path, clean: Events) -> None:
    table = noise_sweep([Identity(), HitDensity()], clean, [20, 40])
    table = replace(table, notes=("one note.",))
    table.save(tmp_path / "a.json")
    table.save(tmp_path / "a.csv")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not in strict JSON")

    stored = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert stored["rows"][0]["false_alarm_event_share"] is None
    again = Evaluation.from_json(stored)
    assert again.as_json() == table.as_json()
    assert again.text() == table.text()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert len(rows) == 4
    for row, wanted in zip(rows, table.as_json()["rows"], strict=True):
        assert row == {n: "" if v is None else str(v) for n, v in wanted.items()}
    for broken in ({}, {**stored, "version": 2}, {**stored, "rows": 3}, []):
        with pytest.raises(ValueError, match="Expected an evaluation, JSON of version 1"):
            Evaluation.from_json(broken)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"to end in \.json or \.csv"):
        table.save(tmp_path / "a.txt")
    with pytest.raises(KeyError, match="'identity', 'hit density'"):
        table["blnk"]


def test_false_alarms_have_columns_where_there_is_noise_only() -> None:
    table = evaluate([Ranked()], None, some(40, 4))
    assert "false alarms" in table.text()
    only_signal = replace(some(40, 4), label=np.ones(some(40, 4).n_hits, np.int64))
    text = evaluate([Ranked()], None, only_signal).text()
    assert "false alarms" not in text
    assert " - " in text  # the removal of noise where there was none


def noisy(n_events: int = 20) -> Events:
    return some(n_events, 4)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: evaluate([], None, noisy()), "`scorers` of different names, at least one, got no"),
        (lambda: evaluate([KeepNothing(), KeepNothing()], None, noisy()), "got 'blank' twice"),
        (
            lambda: evaluate([KeepNothing()], None, replace(noisy(), label=None)),
            "Expected labelled hits",
        ),
        (
            lambda: evaluate([KeepNothing()], None, noisy()[:0]),
            "Expected signal to choose a threshold",
        ),
        (lambda: evaluate([KeepNothing()], noisy(), noisy()[:0]), "Expected events to test on"),
        (lambda: evaluate([KeepNothing()], None, iter([noisy()])), "can't be read twice"),
        (
            lambda: evaluate([KeepNothing()], None, noisy(), retention=0.0),
            "above 0 and up to 1, got 0.0",
        ),
        (
            lambda: evaluate([KeepNothing()], None, noisy(), batch_size=0),
            "`batch_size` to be a number",
        ),
        (
            lambda: evaluate([KeepNothing()], None, noisy(), n_events=0),
            "`n_events` to be a number of at",
        ),
        (lambda: noise_sweep([KeepNothing()], noisy(), [20]), "Expected clean events"),
        (lambda: noise_sweep([KeepNothing()], noisy(), []), "at least one number of noise hits"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence) -> None:
    with pytest.raises((ValueError, TypeError)) as problem:
        call()
    assert sentence in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_watcher_sees_every_test_event_once() -> None:
    seen: dict[str, list[int]] = {}
    last = {}

    def watch(name, scores, events, score, shown):
        assert score.shape == shown.shape == (events.n_hits,)
        seen.setdefault(name, []).append(len(events))
        last[name] = scores

    table = evaluate(
        [KeepNothing(), Ranked()], some(30, 1), some(50, 2), batch_size=20, watch=watch
    )
    assert seen == {"blank": [20, 20, 10], "ranked": [20, 20, 10]}
    for name, scores in last.items():
        assert scores.operating_point.threshold == table[name]["threshold"]
        assert scores.scores()["removal"] == table[name]["removal"]


@dataclass
class Clusters:
    """0 outside of all clusters, at t = 1."""

    name: str = "clusters"

    def score(self, events: Events) -> torch.Tensor:
        return (events.t > 1).float() * 0.9


def test_a_threshold_on_a_tie_gets_a_warning() -> None:
    """A tenth of the signal lies outside of clusters with all noise: 97 % means to keep it all."""
    n = 20
    label = np.tile(np.repeat([1, 0], [10, 5]), n).astype(np.uint8)
    t = np.tile(np.repeat([2, 1], [9, 6]), n)
    x = np.tile(np.arange(15), n)
    events = Events(Geometry(15, 1, 2), np.arange(0, 15 * n + 1, 15), x, 0 * x, t, label)
    table = evaluate([Clusters()], None, events)
    assert table["clusters"]["removal"] == 0
    assert table["clusters"]["threshold_tie"] == pytest.approx(0.1)
    assert "threshold of clusters sits on a tie of 10 % of the signal" in table.text()
    fine = evaluate([Clusters()], None, events, retention=0.9)
    assert fine["clusters"]["removal"] == 1
    assert "tie" not in fine.text()


def test_the_table_holds_three_operating_points() -> None:
    validation, test = some(80, 1), some(90, 2, shift=-60)
    scorers = [Ranked(), HitDensity(), KeepNothing()]
    table = evaluate(scorers, validation, test, fakes=2)
    assert table.points == {"retention": 0.97, "fakes": 2.0, "purity": 0.95}
    row = table["ranked"]
    assert row["threshold"] == row["threshold_at_fakes"]
    assert row["fakes_at_fakes"] == row["false_alarm_hits_per_event"]
    assert (row["retention_at_retention"], row["removal_at_retention"]) == (
        row["retention_at_97"],
        row["removal_at_97"],
    )
    for aim in ({"retention": 0.97}, {"fakes": 2}, {"purity": 0.95}):
        (name,) = aim
        point = choose_point(Ranked(), validation, **aim)
        assert row[f"threshold_at_{name}"] == point.threshold
        one = evaluate([Ranked()], validation, test, **aim)["ranked"]
        for key in ("retention", "removal", "purity"):
            assert row[f"{key}_at_{name}"] == one[key]
    point_table = table.point_table()
    assert [cells[0] for cells in point_table[1:]] == [
        f"{name}: {words}"
        for name in ("ranked", "hit density")  # the network, and the best rule beside it
        for words in ("retention 97 %", "fakes 2", "purity 95 %")
    ]
    assert point_table[0][1:] == [
        "threshold", "signal efficiency", "background rejection", "purity", "fakes",
    ]  # fmt: skip
    assert point_table[2][2] == f"{100 * row['retention']:.2f} %"
    text = table.text()
    assert "Thresholds that keep at most 2 noise hits per noise-only event." in text
    assert "ranked: fakes 2" in text
    assert Evaluation.from_json(table.as_json()).text() == text


def test_without_noise_only_events_there_are_no_fakes() -> None:
    events = some(60, 1)
    has_signal = [i for i in range(60) if (events[i].label > 0).any()]
    table = evaluate([Ranked()], None, events.take(has_signal))
    header, *cells = table.point_table()
    assert header[1:] == ["threshold", "signal efficiency", "background rejection", "purity"]
    assert [row[0] for row in cells] == ["ranked: retention 97 %", "ranked: purity 95 %"]
    assert "fakes" not in table.text().lower()
    assert "Fakes are" in evaluate([Ranked()], None, events).text()
    with pytest.raises(ValueError, match="Expected noise-only events for `fakes`, got none"):
        evaluate([Ranked()], None, events.take(has_signal), fakes=1)


def test_a_scorer_that_reaches_no_such_purity_keeps_nothing_and_says_so() -> None:
    table = evaluate([Ranked(), Identity()], None, some(90, 1), purity=0.9)
    row = table["identity"]
    assert (row["retention"], row["removal"]) == (0.0, 1.0)
    assert math.isnan(float(row["purity"]))
    assert 0.7 < float(table["ranked"]["purity"]) < 1
    assert "identity keeps nothing: its purity on the validation events is at mo" in table.text()
    with pytest.raises(ValueError, match="`purity=0.9`, got a purity of at most 0.5976"):
        choose_point(Identity(), some(90, 1), purity=0.9)


def test_stored_validation_scores_choose_the_threshold() -> None:
    validation, test = some(80, 1), some(90, 2, shift=-60)
    stored = ScoreHistogram()
    score, label = Ranked().score(validation.torch()), validation.torch().label
    stored.update(score, label > 0, event=validation.torch().event_index())
    scorer = Ranked()
    table = evaluate([scorer, HitDensity()], validation, test, stored={"ranked": stored})
    wanted = evaluate([Ranked(), HitDensity()], validation, test)
    assert without_speed(table) == without_speed(wanted)
    assert sum(scorer.seen) == 90  # not scored on the validation events
    assert "thresholds of ranked from the validation scores stored in training" in table.chosen_on
    alone = evaluate([Ranked()], None, test, stored={"ranked": stored})
    assert without_speed(alone) == without_speed(wanted)[:1]  # nothing is split off


def test_old_tables_are_still_read() -> None:
    stored = evaluate([Ranked()], None, some(40, 4)).as_json()
    old = {name: stored[name] for name in stored if name not in ("aim", "points", "rules")}
    rows = [
        {k: v for k, v in row.items() if not k.endswith(("_at_fakes", "_at_purity"))}
        for row in old["rows"]
    ]
    table = Evaluation.from_json({**old, "rows": rows})
    assert table.retention == 0.97
    assert "operating point" not in table.text()


def test_no_share_is_rounded_up_to_all() -> None:
    table = evaluate([Ranked()], None, some(40, 4))
    row = {**table["ranked"], "removal_at_97": 0.9995, "removal_at_fakes": 0.99998}
    table = replace(table, rows=({**row, "removal_at_90": 1 - 1e-16, "threshold_at_fakes": 0.5},))
    (header, cells), *_ = table.text_tables()
    at = dict(zip(header, cells, strict=True))
    assert (at["removed at 97"], at["removed at 90"]) == ("99.95", "100.0")
    assert table.point_table()[2][3] == "99.998 %"


def test_hits_of_sensors_hide_nothing() -> None:
    events = some_sensor_events(60)
    events = replace(events, t=abs(events.t) / 4)
    table = evaluate([Ranked()], None, events)
    row = table["ranked"]
    assert row["occluded_share"] == 0
    assert (row["visible_retention"], row["visible_removal"]) == (row["retention"], row["removal"])
    assert "visible hits" not in table.text()
