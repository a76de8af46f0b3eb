"""Networks of hits: every hit counts, on grids and tables, with classes, features and particles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dense_imb.config import HitsConfig, MixingConfig, ModelConfig, TrainConfig, UnlabelledConfig
from dense_imb.hits import Degradation, Events, Geometry, HitsFile, Sensors, degrade
from dense_imb.models import HitTransformer
from dense_imb.runs import Run, open_run, train
from dense_imb.tasks.hits.task import HitsTask, hit_weights
from dense_imb.tasks.recipe import Recipe, build_task
from tests.runs.tiny import assert_same_runs, clean_events, write_events

# a few steps of a tiny network may learn nothing
pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")

CPU = torch.device("cpu")
SIZE = {"width": 8, "depth": 2, "heads": 1}


def table(n_axes: int = 3, *, directions: bool = True) -> Sensors:
    rng = np.random.default_rng(7)
    direction = rng.normal(size=(40, n_axes)) if directions else None
    return Sensors(rng.uniform(-50, 50, (40, n_axes)), direction)


def telescope_events(n_events: int, geometry: Sensors | None = None, seed: int = 0) -> Events:
    """Thirty hits of noise, and nine charged ones of particles that are near in time."""
    rng = np.random.default_rng(seed)
    geometry = table() if geometry is None else geometry
    label = np.tile(np.r_[np.zeros(30, np.uint8), np.ones(6, np.uint8), np.full(3, 2, np.uint8)],
                    n_events)  # fmt: skip
    n = len(label)
    time = rng.uniform(-500, 500, n)
    time = np.where(label > 0, 0.05 * time, time).astype(np.float32)
    return Events(
        geometry,
        39 * np.arange(n_events + 1),
        t=time,
        sensor=rng.integers(0, 40, n).astype(np.uint32),
        label=label,
        hit={
            "charge": (rng.exponential(1.0, n) + 2 * label).astype(np.float32),
            "particle": (label * (1 + rng.integers(0, 2, n))).astype(np.uint16),
        },
    )


def config(
    path: str | list[str], hits: dict[str, Any] | None = None, **changes: Any
) -> TrainConfig:
    """Six steps of a tiny network of hits."""
    return TrainConfig(
        hits=HitsConfig(train=path, validation_share=0.25, **(hits or {})),
        model=ModelConfig(options=changes.pop("options", SIZE)),
        **{"steps": 6, "batch_size": 4, "validate_every": 3, **changes},
    )


DEGRADED = {"signal": 6, "noise": 20}


@pytest.fixture(scope="module")
def arcs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(24))


@pytest.fixture(scope="module")
def telescope(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "telescope.h5", telescope_events(24))


def quiet(wanted: TrainConfig, folder: Path, **how: Any) -> Run:
    return train(wanted, folder, is_quiet=True, **how)


def test_hits_are_scored_by_a_network_of_hits_unless_another_is_named(arcs):
    task = build_task(config(arcs, DEGRADED))
    assert isinstance(task, HitsTask)
    assert isinstance(task.network, HitTransformer)
    assert Recipe.of(config(arcs, DEGRADED)).config.optimizer.name == "muon"


def test_hidden_hits_are_learned_from_and_scored(arcs):
    task = build_task(config(arcs, DEGRADED))
    numbers = np.array([3, 0])
    events = task.train.degraded(numbers, 1)
    batch = task.batch(numbers, 1, CPU)
    assert len(batch.label) == events.n_hits
    assert bool(events.hit["is_occluded"].any())
    np.testing.assert_array_equal(batch.label, events.label > 0)
    output = task.network(batch.shown)
    assert output.shape == (events.n_hits, 1)
    assert task.reading.score(task.network, events).shape == (events.n_hits,)


def test_the_network_of_a_folder_gives_the_scores_of_its_validation(telescope, tmp_path):
    from dense_imb.data.events.virtual import VALIDATION_EPOCH

    run = quiet(config(telescope, {"features": ["charge", "direction"]}), tmp_path / "run")
    held_out = build_task(run.config).validation
    events = held_out.degraded(np.arange(len(held_out)), VALIDATION_EPOCH)
    scorer = run.trained(device="cpu")
    score = scorer.score(events)
    point = run.operating_point(retention=0.5)
    is_signal = torch.from_numpy(events.label > 0)
    kept = float((score[is_signal] >= point.threshold).float().mean())
    assert kept == pytest.approx(point.retention, abs=0.02)
    scorer.batch_size = 50  # one or two events at a time
    torch.testing.assert_close(scorer.score(events), score, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["grid", "table"])
def test_a_resume_is_exact_to_the_bit(kind, arcs, telescope, tmp_path):
    path, hits = (arcs, DEGRADED) if kind == "grid" else (telescope, {"features": ["charge"]})
    wanted = config(path, hits, save_every=0.0)
    quiet(wanted, tmp_path / "whole")
    half = tmp_path / "half"
    quiet(wanted, half)
    for late in (half / "checkpoints").glob("step-*.pt"):
        if int(late.stem.split("-")[1]) > 4:
            late.unlink()
    quiet(wanted, half, resume=True)
    assert_same_runs(half, tmp_path / "whole")


def test_more_than_two_classes_have_an_output_each(telescope, tmp_path):
    run = quiet(config(telescope, {"n_classes": 3}), tmp_path / "run")
    scorer = run.trained(device="cpu")
    events = HitsFile(telescope)[:3]
    probability = scorer.probability(events)
    assert probability.shape == (events.n_hits, 3)
    torch.testing.assert_close(probability.sum(1), torch.ones(events.n_hits))
    torch.testing.assert_close(scorer.score(events), 1 - probability[:, 0])
    assert {f"gradient_share_class_{k}" for k in range(3)} <= run.history[0].keys()


def test_a_label_without_a_class_names_the_option(telescope):
    with pytest.raises(ValueError, match=r"got 3; .*hits.n_classes=4"):
        build_task(config(telescope_file_of_three(telescope), {"n_classes": 3}))


def telescope_file_of_three(path: str) -> str:
    events = HitsFile(path)[:]
    label = events.label.copy()
    label[5] = 3
    changed = events.with_hits(events.offset, {**events.hit_columns(), "label": label})
    return write_events(Path(path).with_name("three.h5"), changed)


@pytest.mark.parametrize("over", ["events", "particle"])
def test_units_of_a_class_weigh_the_same_and_classes_keep_theirs(over):
    events = telescope_events(5).torch()
    weight = hit_weights(events, over)
    key = events.event_index() * 100 + (events.hit["particle"].long() if over != "events" else 0)
    for label in range(3):
        chosen = events.label == label
        sums = [float(weight[chosen & (key == k)].sum()) for k in key[chosen].unique()]
        assert max(sums) == pytest.approx(min(sums), rel=1e-4)
        assert float(weight[chosen].mean()) == pytest.approx(1, rel=1e-4)
    assert hit_weights(events, "hits") is None


def test_a_short_track_counts_as_a_long_one_in_the_loss(telescope):
    plain, weighed = (
        build_task(config(telescope, {"balance_over": over})) for over in ("hits", "particle")
    )
    batch = weighed.batch(np.arange(4), 0, CPU)
    output = weighed.network(batch.shown).detach()
    assert plain.cost_of(output, plain.batch(np.arange(4), 0, CPU)) != weighed.cost_of(
        output, batch
    )
    foreign = "monai.losses:DiceLoss(sigmoid=True)"
    with pytest.raises(ValueError, match=r"loss of dense_imb, .*got DiceLoss"):
        build_task(config(telescope, {"balance_over": "particle"}, loss=foreign))


def test_a_value_of_signal_hits_is_predicted(telescope):
    task = build_task(config(telescope, {"value": "charge", "value_loss": "torch.nn:L1Loss"}))
    batch = task.batch(np.arange(4), 0, CPU)
    assert task.network(batch.shown).shape[1] == 2
    is_noise = batch.label == 0
    assert batch.value[is_noise].isnan().all()
    assert batch.value[~is_noise].isfinite().all()
    output = torch.zeros(len(batch.label), 2)
    output[~is_noise, 1] = batch.value[~is_noise]
    exact = task.cost_of(output, batch)
    output[:, 1] += 1
    assert float(task.cost_of(output, batch) - exact) == pytest.approx(1, abs=1e-5)


def test_rotations_keep_distances_and_turn_directions(telescope):
    task = build_task(config(telescope, {"features": ["charge", "direction"]}))
    assert task.augment == "rotate"
    events = task.train.degraded(np.arange(4), 0).torch()
    plain = task.reading.inputs(events)
    turned = task.augmented(plain, np.arange(4), 0)
    first = slice(0, 39)
    for before, after in (
        (plain.coordinate[first, :3], turned.coordinate[first, :3]),
        (plain.feature[first, 1:], turned.feature[first, 1:]),
    ):
        torch.testing.assert_close(torch.pdist(after.double()), torch.pdist(before.double()),
                                   atol=1e-3, rtol=1e-4)  # fmt: skip
        assert (after - before)[:, :2].abs().max() > 0.1
        torch.testing.assert_close(after[:, 2], before[:, 2])
    # positions and directions turn together
    dot = (plain.coordinate[first, :3] * plain.feature[first, 1:]).sum(1)
    same = (turned.coordinate[first, :3] * turned.feature[first, 1:]).sum(1)
    torch.testing.assert_close(same, dot, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(turned.feature[:, 0], plain.feature[:, 0])
    again = task.augmented(plain, np.arange(4), 0)
    assert torch.equal(again.coordinate, turned.coordinate)


def test_mirrors_stay_in_the_frame(arcs):
    task = build_task(config(arcs, {**DEGRADED, "augment": "mirror"}))
    batch = task.batch(np.arange(8), 0, CPU)
    frame = task.train.grid
    assert batch.shown.coordinate[:, 0].min() >= 0
    assert batch.shown.coordinate[:, 0].max() <= frame.width - 1
    torch.testing.assert_close(batch.shown.coordinate, batch.shown.coordinate.round())


@pytest.mark.parametrize("kind", ["mixup", "balanced-mixup"])
def test_mixing_unites_hits(kind, telescope, arcs, tmp_path):
    path = telescope
    wanted = config(path, mixing=MixingConfig(kind))
    batch = build_task(wanted).batch(np.arange(4), 0, CPU)
    assert set(batch.label.tolist()) == {0, 1}
    quiet(wanted, tmp_path / "run")


@pytest.mark.parametrize("kind", ["grid", "table"])
def test_a_mean_teacher_labels_hits(kind, arcs, telescope, tmp_path):
    path, hits = (arcs, DEGRADED) if kind == "grid" else (telescope, {"features": ["charge"]})
    wanted = config(
        path, hits, labelled_share=0.5, unlabelled=UnlabelledConfig(rest=True, threshold=0.5)
    )
    task = build_task(wanted)
    batch = task.batch(np.arange(4), 0, CPU)
    cost = task.cost(task.network, batch)
    cost.backward()
    assert bool(cost.isfinite())
    rows = quiet(wanted, tmp_path / "run").history
    assert all(0 <= row["sure_share"] <= 1 for row in rows)


def test_a_feature_loss_sees_hits(telescope, tmp_path):
    quiet(config(telescope, feature_loss="RangeLoss"), tmp_path / "run")


def test_a_network_fits_any_table_of_its_axes_and_says_so(telescope, tmp_path):
    scorer = quiet(config(telescope, {"features": ["charge"]}), tmp_path / "run").trained()
    other = Sensors(table().position + 10)
    assert scorer.note(table()) is None
    assert "at other places" in scorer.note(other)
    scorer.check(other)
    with pytest.raises(ValueError, match=r"Expected events of 40 sensors in 3-D, .*got 40 sensors"):
        scorer.check(table(2))
    with pytest.raises(ValueError, match="got 16 x 12 x 100; the network takes any table"):
        scorer.check(Geometry(16, 12, 100))
    with pytest.raises(ValueError, match="the column `charge` of hits"):
        scorer.score(Events(table(), np.array([0, 1]), t=np.zeros(1), sensor=np.zeros(1, int)))


def test_a_network_that_knows_places_fits_one_frame(arcs, tmp_path):
    placed = quiet(config(arcs, DEGRADED), tmp_path / "placed").trained()
    moving = quiet(
        config(arcs, DEGRADED, options={**SIZE, "extent": None}), tmp_path / "moving"
    ).trained()
    other = Geometry(20, 12, 100)
    with pytest.raises(ValueError, match="knows places in this frame"):
        placed.check(other)
    moving.check(other)
    assert "trained on 16 x 12 x 100, these events have 20 x 12 x 100" in moving.note(other)
    with pytest.raises(ValueError, match="the network takes pixels"):
        moving.check(table())


def with_nan(path: str) -> str:
    events = HitsFile(path)[:]
    charge = events.hit["charge"].copy()
    charge[40] = np.nan
    changed = events.with_hits(events.offset, {**events.hit_columns(), "charge": charge})
    return write_events(Path(path).with_name("nan.h5"), changed)


def unlabelled(path: str) -> str:
    events = HitsFile(path)[:]
    columns = {name: column for name, column in events.hit_columns().items() if name != "label"}
    return write_events(
        Path(path).with_name("unlabelled.h5"), events.with_hits(events.offset, columns)
    )


@pytest.mark.parametrize(
    ("change", "hits", "more", "sentence"),
    [
        (
            None,
            {"features": ["charg"]},
            {},
            "columns of hits .charge, particle., got `charg`;.*Did",
        ),
        (None, {"balance_over": "muon"}, {}, "`hits.balance_over` to name further columns"),
        (None, {"value": "energy"}, {}, "`hits.value` to name further columns"),
        (None, {"pixels": "frame"}, {}, "`hits.pixels` is an option of networks of frames"),
        (None, {"output": "value"}, {}, "`hits.output` is an option of networks of frames"),
        (None, {"mixing": "linear"}, {"mixing": MixingConfig("mixup")}, "`hits.mixing=union`"),
        (None, {"n_classes": 3}, {"loss": "ACBMSELoss"}, "a loss of logits for more than two"),
        (None, {"n_classes": 1}, {}, "n_classes"),
        (with_nan, {"features": ["charge"]}, {}, "finite numbers in the column `charge`.*event 1"),
        (unlabelled, {}, {}, "train hits with labels, .*got hits without labels"),
    ],
)
def test_bad_options_are_one_sentence(telescope, change, hits, more, sentence):
    path = telescope if change is None else change(telescope)
    with pytest.raises(ValueError, match=sentence):
        build_task(config(path, hits, **more)).batch(np.arange(4), 0, CPU)


def test_options_of_hits_are_refused_for_networks_of_frames(arcs):
    wanted = config(arcs, {**DEGRADED, "features": ["charge"]}, options={})
    wanted.model.name = "fast_unet"
    with pytest.raises(ValueError, match="`hits.features` is an option of networks of hits"):
        Recipe.of(wanted)


def test_simulated_noise_has_no_features(tmp_path):
    events = clean_events(8)
    charged = events.with_hits(
        events.offset, {**events.hit_columns(), "charge": np.ones(events.n_hits, np.float32)}
    )
    path = write_events(tmp_path / "charged.h5", charged)
    with pytest.raises(ValueError, match="simulated noise, which has none; add measured noise"):
        build_task(config(path, {**DEGRADED, "features": ["charge"]}))
    noise = degrade(charged, Degradation(signal=0, noise=20), seed=0)
    columns = {**noise.hit_columns(), "charge": np.full(noise.n_hits, 0.5, np.float32)}
    columns.pop("is_occluded")
    measured = write_events(tmp_path / "noise.h5", noise.with_hits(noise.offset, columns))
    hits = {**DEGRADED, "features": ["charge"], "profiles": [], "measured_noise": measured}
    batch = build_task(config(path, hits)).batch(np.arange(4), 0, CPU)
    assert batch.shown.feature.isfinite().all()


def test_stored_runs_are_read_without_their_data(telescope, tmp_path):
    run = quiet(config(telescope, {"features": ["direction"]}), tmp_path / "run")
    again = open_run(run.folder)
    assert again.config.model.name == "hits"
    assert "hits" in repr(again)
    assert again.trained().trained_on.n_axes == 3
