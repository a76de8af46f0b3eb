"""Events without labels: strong views whose hits keep the teacher's labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.hits import Degradation, Events, Geometry, HitsFile
from dense_imb.tasks.hits.frames import FrameReading, FramesTask
from dense_imb.tasks.hits.pseudo_labels import FramePseudoLabels
from dense_imb.tasks.hits.recipe import split_labelled_events
from dense_imb.tasks.recipe import build_task
from tests.runs.tiny import FRAME, clean_events, tiny, write_events

CPU = torch.device("cpu")
SAMPLES, PLACES = np.array([31, 2, 40, 4]), np.array([0, 3, 3, 9])
BORDER = 50  # a hit of a later time is noise, of an earlier one signal; near it nobody is sure
MANY = Degradation(noise=60)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(32))


@pytest.fixture(scope="module")
def task(path: str) -> FramesTask:
    return build_task(tiny(path, labelled_share=0.4, loss="CrossEntropyLoss"))


@pytest.fixture(scope="module")
def rest(path: str) -> VirtualEvents:
    _, rest = split_labelled_events(VirtualEvents(HitsFile(path), MANY, 0, count=24), 0.4)
    assert rest is not None
    return rest


class Knowing(nn.Module):
    """Tells hits by their times: the gapped time is the first channel."""

    def __init__(self, steepness: float = 1.0) -> None:
        super().__init__()
        self.steepness = steepness

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        time = (frames[:, :1] - 0.5) / 0.5 * FRAME.time_steps
        return self.steepness * (BORDER - time)


def labels_by_loop(unlabelled, views, threshold: float) -> dict[tuple[int, int, int], bool]:
    """Pixel -> label, of one strong hit after the other."""
    weak, strong, found = views.weak.numpy(), views.strong.numpy(), {}
    scores = 1 / (1 + np.exp(-(BORDER - weak.t.astype(float))))
    for i in range(strong.n_hits):
        origin = int(views.origin[i])
        pixel = (int(strong.event_index()[i]), int(strong.y[i]), int(strong.x[i]))
        assert pixel not in found
        if origin == 0:
            found[pixel] = False
        elif scores[origin - 1] >= threshold:
            found[pixel] = True
        elif scores[origin - 1] <= 1 - threshold:
            found[pixel] = False
    return found


def test_the_rest_is_degraded_once_and_its_labels_are_hidden(task, rest):
    unlabelled = FramePseudoLabels(task, rest)
    weak = unlabelled.views(SAMPLES, PLACES, 5, CPU).weak
    noisy = rest.degraded(PLACES, 0).torch()
    noisy = noisy.select(~noisy.hit["is_occluded"])
    assert set(weak.hit_columns()) == {"x", "y", "t"}
    for name in "xyt":
        assert torch.equal(getattr(weak, name), getattr(noisy, name))
    assert (noisy.label == 0).any()
    assert rest.first == task.train.first + len(task.train)


def test_a_measured_event_is_shown_as_it_is(task, tmp_path):
    whole = clean_events(12, seed=3)
    bare = dataclasses.replace(whole, label=None)
    labelled = []
    for name, events in (("bare", bare), ("labelled", whole)):
        source = HitsFile(write_events(tmp_path / f"{name}.h5", events))
        unlabelled = FramePseudoLabels(task, VirtualEvents(source, None, 0))
        views = unlabelled.views(SAMPLES, PLACES, 0, CPU)
        np.testing.assert_array_equal(views.weak.x, whole.take(PLACES).x)
        pseudo, sure = unlabelled.label_views(Knowing(), views, 0.95)
        labelled.append((pseudo.lit, pseudo.is_signal, sure.sum()))
    for one, other in zip(*labelled, strict=True):
        assert torch.equal(one, other)


def test_pseudo_labels_follow_their_hits(task, rest):
    unlabelled = FramePseudoLabels(task, rest)
    n_unsure = 0
    for epoch in range(5):
        views = unlabelled.views(SAMPLES, PLACES, epoch, CPU)
        pseudo, sure = unlabelled.label_views(Knowing(), views, 0.95)
        wanted = labels_by_loop(unlabelled, views, 0.95)
        places = {(e * FRAME.height + y) * FRAME.width + x: k for (e, y, x), k in wanted.items()}
        assert sorted(pseudo.lit.tolist()) == sorted(places)
        flat = pseudo.is_signal.flatten()
        assert {i: bool(flat[i]) for i in places} == places
        assert flat.sum() == sum(places.values())
        n_unsure += views.strong.n_hits - len(places)
        scores = torch.sigmoid(BORDER - views.weak.t.float())
        shares = [(scores <= 0.05).float().mean(), (scores >= 0.95).float().mean()]
        assert sure.tolist() == pytest.approx([float(share) for share in shares])
    assert n_unsure > 0


def test_strong_hits_are_near_those_they_come_from(task, rest):
    unlabelled = FramePseudoLabels(task, rest)
    n_weak = n_kept = n_added = 0
    moved = []
    for epoch in range(30):
        views = unlabelled.views(SAMPLES, PLACES, epoch, CPU)
        origin, weak, strong = views.origin, views.weak, views.strong
        is_old = origin > 0
        assert torch.equal(weak.event_index()[origin[is_old] - 1], strong.event_index()[is_old])
        assert len(origin[is_old].unique()) == int(is_old.sum())
        for name in "xyt":
            old, new = getattr(weak, name)[origin[is_old] - 1], getattr(strong, name)[is_old]
            moved.append((new - old).abs())
        n_weak, n_kept = n_weak + weak.n_hits, n_kept + int(is_old.sum())
        n_added += int((~is_old).sum())
    distance = torch.cat(moved)
    assert 0 < distance.float().mean() < 1
    assert distance.max() <= 3
    assert 0.5 < n_kept / n_weak < 0.95
    assert 0.05 < n_added / n_weak < 0.25


def test_views_of_a_sample_are_the_same_whatever_the_batch(task, rest):
    unlabelled = FramePseudoLabels(task, rest)
    together = unlabelled.views(SAMPLES, PLACES, 1, CPU)
    torch.manual_seed(3)
    for i in range(len(SAMPLES)):
        one = unlabelled.views(SAMPLES[i : i + 1], PLACES[i : i + 1], 1, CPU)
        assert torch.equal(one.shown[0], together.shown[i])
        assert torch.equal(one.strong.t, together.strong[i].t)
    assert not torch.equal(together.shown[1], together.shown[2]), "one event, two samples"
    other = unlabelled.views(SAMPLES, PLACES, 2, CPU)
    assert torch.equal(other.weak.t, together.weak.t)
    assert other.strong.n_hits != together.strong.n_hits


def test_strong_views_do_not_move_as_labelled_events_are_degraded(task, rest):
    """Whatever numbers labelled events of the same number and epoch have drawn."""
    unlabelled = FramePseudoLabels(task, dataclasses.replace(rest, degradation=None))
    views = unlabelled.views(np.arange(4), np.arange(4), 1, CPU)
    added = views.strong.select(views.origin == 0)
    drawn = task.train.degraded(np.arange(4), 1).torch()
    noise = drawn.select(drawn.label == 0)
    for i in range(4):
        mine, theirs = (
            {*zip(e[i].x.tolist(), e[i].t.tolist(), strict=True)} for e in (added, noise)
        )
        assert not mine & theirs


def test_a_perfect_teacher_tells_the_hidden_truth(task, path):
    # noise that the streaks, which end before, never are as late as
    source = VirtualEvents(HitsFile(path), Degradation(noise=40), 0)
    unlabelled = FramePseudoLabels(task, source, strong="none")
    noisy = source.degraded(PLACES, 0).torch()
    noisy = noisy.select(~noisy.hit["is_occluded"])

    class Perfect(nn.Module):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            from dense_imb.hits.frames import pixel_index

            truth = torch.zeros(len(frames), 1, *frames.shape[2:])
            truth.view(-1)[pixel_index(noisy)] = (noisy.label > 0).float()
            return 40 * truth - 20

    views = unlabelled.views(SAMPLES, PLACES, 0, CPU)
    pseudo, sure = unlabelled.label_views(Perfect(), views, 0.95)
    batch = task._batch(noisy, noisy, CPU)
    assert sure.sum() == 1
    assert torch.equal(pseudo.is_signal, batch.is_signal)
    assert torch.equal(pseudo.lit, batch.lit)
    assert torch.equal(pseudo.shown, batch.shown)
    output = torch.randn(batch.is_signal.shape)
    assert torch.equal(unlabelled.cost(output, pseudo), task.cost_of(output, batch))


def test_a_loss_of_its_own_sees_the_same_pixels(task, rest):
    views = FramePseudoLabels(task, rest).views(SAMPLES, PLACES, 0, CPU)
    unlabelled = FramePseudoLabels(task, rest, nn.BCEWithLogitsLoss())
    pseudo, _ = unlabelled.label_views(Knowing(), views, 0.95)
    output = torch.randn(pseudo.is_signal.shape)
    wanted = nn.functional.binary_cross_entropy_with_logits(
        output.flatten()[pseudo.lit], pseudo.is_signal.flatten()[pseudo.lit]
    )
    torch.testing.assert_close(unlabelled.cost(output, pseudo), wanted)
    assert FramePseudoLabels(task, rest).loss is task.loss
    assert unlabelled.loss is not task.loss


def test_a_teacher_sure_of_nothing_labels_what_was_added_only(task, rest):
    unlabelled = FramePseudoLabels(task, rest)
    views = unlabelled.views(SAMPLES, PLACES, 0, CPU)
    pseudo, sure = unlabelled.label_views(Knowing(0.0), views, 0.95)
    assert sure.sum() == 0
    assert len(pseudo.lit) == int((views.origin == 0).sum())
    assert pseudo.is_signal.sum() == 0


def test_events_without_hits_are_shown(task, tmp_path):
    some = clean_events(4)
    columns = {name: column[:8] for name, column in some.hit_columns().items()}
    lonely = some.with_hits(np.array([0, 0, 8, 8, 8]), columns)
    source = HitsFile(write_events(tmp_path / "few.h5", lonely))
    unlabelled = FramePseudoLabels(task, VirtualEvents(source, None, 0))
    views = unlabelled.views(np.arange(1), np.array([0]), 0, CPU)
    pseudo, sure = unlabelled.label_views(Knowing(), views, 0.95)
    assert sure.sum() == 0
    assert torch.isfinite(unlabelled.cost(torch.zeros(pseudo.is_signal.shape), pseudo))


def test_content_counts_what_the_teacher_calls_noise_and_signal(task, rest):
    unlabelled = FramePseudoLabels(task, rest)
    found = unlabelled.content(Knowing(), np.arange(len(rest)), CPU)
    for i in range(len(rest)):
        weak = unlabelled.views(np.array([i]), np.array([i]), 0, CPU).weak
        assert found[i].tolist() == [int((weak.t > BORDER).sum()), int((weak.t <= BORDER).sum())]
    task.batch_size, before = 5, task.batch_size
    parts = unlabelled.content(Knowing(), np.arange(len(rest)), CPU)
    task.batch_size = before
    np.testing.assert_array_equal(parts, found)


def test_words_tell_events_and_views_apart(task, rest):
    described = FramePseudoLabels(task, rest).describe()
    assert FramePseudoLabels(task, rest).describe() == described
    others = [
        FramePseudoLabels(task, dataclasses.replace(rest, first=rest.first + 1)),
        FramePseudoLabels(task, dataclasses.replace(rest, count=3)),
        FramePseudoLabels(task, dataclasses.replace(rest, degradation=None)),
        FramePseudoLabels(task, dataclasses.replace(rest, seed=1)),
        FramePseudoLabels(task, rest, strong="none"),
    ]
    assert described not in {other.describe() for other in others}


def test_no_number_is_drawn_from_torch(task, rest):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    FramePseudoLabels(task, rest).views(SAMPLES, PLACES, 0, CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strong": "photometric"}, "hits or none for events, got photometric"),
        ({"strong": "randaugment"}, "hits or none for events, got randaugment"),
        ({"loss": nn.MSELoss()}, "Expected a loss of logits for the pseudo-labels"),
    ],
)
def test_options_that_fit_no_events_are_refused(task, rest, options, told):
    with pytest.raises(ValueError, match=told):
        FramePseudoLabels(task, rest, **options)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pixels": "frame"}, "`hits.pixels` lit with unlabelled events, got frame"),
        ({"target": "pattern"}, "`hits.target` signal"),
        ({"output": "value"}, "`hits.output` score"),
        ({"output": "both"}, "`hits.output` score"),
    ],
)
def test_tasks_that_labels_of_hits_teach_nothing_are_refused(path, rest, changes, told):
    loss = "torch.nn:L1Loss" if changes.get("output") == "value" else "CrossEntropyLoss"
    task = build_task(tiny(path, hits=changes, loss=loss))
    with pytest.raises(ValueError, match=told):
        FramePseudoLabels(task, rest)


def test_other_frames_and_no_events_are_refused(task, rest, tmp_path):
    other = clean_events(4, frame=Geometry(20, 12, 100))
    source = HitsFile(write_events(tmp_path / "other.h5", other))
    with pytest.raises(ValueError, match="events of 16 x 12 x 100, .* got 20 x 12 x 100"):
        FramePseudoLabels(task, VirtualEvents(source, None, 0))
    with pytest.raises(ValueError, match="got none"):
        FramePseudoLabels(task, dataclasses.replace(rest, count=0))
    sized = dataclasses.replace(FRAME, x_mm=0.5, y_mm=0.5, t_ns=1.0)
    known = HitsFile(write_events(tmp_path / "sized.h5", clean_events(4, frame=sized)))
    assert FramePseudoLabels(task, VirtualEvents(known, None, 0)).n_images == 4


def test_values_of_zero_to_one_are_scores_too(path, rest):
    task = build_task(tiny(path, loss="torch.nn:MSELoss"))
    assert not task.reading.is_logit
    unlabelled = FramePseudoLabels(task, rest)
    views = unlabelled.views(SAMPLES, PLACES, 0, CPU)
    pseudo, sure = unlabelled.label_views(nn.Identity(), views, 0.9)
    assert isinstance(views.weak, Events)
    assert FrameReading(is_logit=False).score(nn.Identity(), views.weak).shape == views.weak.t.shape
    assert 0 < sure.sum() < 1
    assert torch.isfinite(unlabelled.cost(torch.rand(pseudo.is_signal.shape), pseudo))
