"""Class statistics: one pass, merged, saved, and taken by losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset

from dense_imb.losses import (
    BalancedSoftmaxLoss,
    LDAMLoss,
    ValueBins,
    balanced_softmax_loss,
    class_weights,
    loss_from_code,
)
from dense_imb.statistics import VALUE_EDGES, ClassStatistics


def labels(n_images=7, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return (torch.rand(n_images, 6, 5, generator=rng) ** 3 * 3).long()


def test_counts_by_hand():
    statistics = ClassStatistics(3, ignore_index=255)
    statistics.update(torch.tensor([[0, 0, 0, 1], [0, 0, 255, 255], [0, 2, 2, 1]]))
    assert statistics.class_counts == (6, 2, 2)
    assert statistics.image_presence == (3, 2, 1)
    assert statistics.n_images == 3
    assert statistics.shares == (0.6, 0.2, 0.2)
    assert statistics.log_prior() == pytest.approx([math.log(s) for s in (0.6, 0.2, 0.2)])
    # shares within the images that hold the class: 6/10, 2/8, 2/4; median 1/2
    expected = [0.5 / 0.6, 0.5 / 0.25, 0.5 / 0.5]
    scale = 3 / sum(expected)
    assert statistics.weights("median-frequency") == pytest.approx([w * scale for w in expected])
    assert statistics.weights("inverse") == class_weights((6, 2, 2), "inverse")
    assert statistics.weights("sqrt") == class_weights((6, 2, 2), "sqrt")
    beta = 0.9
    assert statistics.weights("effective", beta=beta) == class_weights(
        (6, 2, 2), "effective", beta=beta
    )


def test_every_form_of_the_target_counts_alike():
    target = labels()
    expected = ClassStatistics(3)
    expected.update(target)
    one_hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    for form in (target.unsqueeze(1), target.float(), target.to(torch.uint8), one_hot):
        actual = ClassStatistics(3)
        actual.update(form)
        assert actual.class_counts == expected.class_counts
        assert actual.image_presence == expected.image_presence


def test_merged_parts_are_the_whole():
    target = labels(9)
    whole = ClassStatistics(3)
    whole.update(target)
    parts = ClassStatistics(3)
    for chunk in target.split(2):
        part = ClassStatistics(3)
        part.update(chunk)
        parts.merge(part)
    assert repr(parts) == repr(whole)
    assert parts.weights("median-frequency") == whole.weights("median-frequency")


def test_a_mask_leaves_pixels_out():
    target = labels()
    mask = torch.rand(target.shape) < 0.5
    statistics = ClassStatistics(3)
    statistics.update(target, mask=mask)
    assert statistics.class_counts == tuple(torch.bincount(target[mask], minlength=3).tolist())


def test_reads_a_loader(capsys):
    target = labels(8)
    loader = DataLoader(TensorDataset(torch.zeros(8, 1), target), batch_size=3)
    statistics = ClassStatistics.from_targets(loader, 3, key=1)
    assert statistics.class_counts == tuple(torch.bincount(target.flatten(), minlength=3).tolist())
    assert "class statistics" in capsys.readouterr().err  # the progress bar
    ClassStatistics.from_targets([target], 3, show_progress=False)
    assert capsys.readouterr().err == ""


def test_saved_and_loaded(tmp_path):
    statistics = ClassStatistics(2, partition="hits")
    statistics.update(torch.rand(3, 1, 8, 8) * (torch.rand(3, 1, 8, 8) < 0.1))
    path = tmp_path / "statistics.json"
    statistics.save(path)
    loaded = ClassStatistics.load(path)
    assert repr(loaded) == repr(statistics)
    assert loaded.value_histogram == statistics.value_histogram
    assert loaded.partition == "hits"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"format": "other"}', "\x00\x01"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"Expected class statistics, JSON .* in .*broken\.json"):
        ClassStatistics.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "statistics.json"
    statistics = ClassStatistics(2)
    statistics.save(path)
    before = path.read_text()

    def fail(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    statistics.update(torch.ones(1, 4).long())
    with pytest.raises(OSError, match="No space left"):
        statistics.save(path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_losses_take_it_for_class_counts():
    statistics = ClassStatistics(3)
    statistics.update(labels())
    logits, target = torch.randn(2, 3, 4), torch.randint(0, 3, (2, 4))
    counts = statistics.class_counts
    torch.testing.assert_close(
        BalancedSoftmaxLoss(statistics)(logits, target),
        balanced_softmax_loss(logits, target, class_counts=counts),
    )
    torch.testing.assert_close(
        LDAMLoss(statistics)(logits, target), LDAMLoss(counts)(logits, target)
    )
    assert loss_from_code("csce", statistics).class_weight == statistics.weights("inverse")


@pytest.mark.parametrize("method", ["inverse", "sqrt", "effective", "median-frequency"])
def test_a_class_never_seen_is_a_warning_and_a_finite_weight(method):
    statistics = ClassStatistics(3)
    statistics.update(torch.tensor([[0, 0, 0, 1]]))
    with pytest.warns(UserWarning, match="is 0 for class 2"):
        weights = statistics.weights(method)
    assert all(math.isfinite(weight) and weight > 0 for weight in weights)
    with pytest.warns(UserWarning, match="is 0 for class 2"):
        value = BalancedSoftmaxLoss(statistics)(torch.zeros(1, 3), torch.tensor([2]))
    assert value.isfinite()


def test_hits_count_values():
    statistics = ClassStatistics(2, partition="hits")
    statistics.update(torch.tensor([[0.0, 0.0, 1.0, 1.0, 3.0, -2.0, 1e9]]))
    assert statistics.class_counts == (2, 5)
    histogram = statistics.value_histogram
    assert histogram[:2] == (1, 2)  # below 0, at 0
    assert sum(histogram) == 7
    assert histogram[1 + VALUE_EDGES.index(1.0)] == 2  # up to and with the edge 1
    assert histogram[-1] == 1


def test_value_bins_hold_equally_many_hits():
    rng = torch.Generator().manual_seed(0)
    hits = 1 + 999 * torch.rand(20_000, generator=rng)
    frame = torch.zeros(100_000)
    frame[:20_000] = hits
    statistics = ClassStatistics(2, partition="hits")
    statistics.update(frame.view(10, -1))
    bins = statistics.value_bins(5)
    assert isinstance(bins, ValueBins)
    count = torch.bincount(bins(frame, frame), minlength=5)
    assert count[0] == 80_000  # the empty pixels, to themselves
    assert len(count) == 5
    assert (count[1:] > 0.8 * 5000).all()
    assert (count[1:] < 1.2 * 5000).all()


def test_sums_over_processes(tmp_path):
    """One process is a sum too; two are in tests/losses/processes.py."""
    statistics = ClassStatistics(3)
    statistics.update(labels())
    before = repr(statistics)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert repr(statistics.reduce_over_processes()) == before
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda s: s.update(torch.tensor([[0, 3]])), "`target` between 0 and 2, got 3"),
        (lambda s: s.update(torch.tensor([[0.0, 0.5]])), "class indices, got 0.5"),
        (lambda s: s.update(torch.tensor([[0.0, torch.nan]])), "`target` without NaN"),
        (lambda s: s.update(torch.tensor(1)), "got a scalar"),
        (
            lambda s: ClassStatistics.from_targets([{"image": 0, "label": 1}], 3),
            r"got dict; pass the place of the target as `key`, one of \['image', 'label'\]",
        ),
        (
            lambda s: ClassStatistics.from_targets([(0, 1)], 3, key=2),
            r"Expected `key` to be one of \[0, 1\], got 2",
        ),
        (lambda s: s.update([0, 1]), "`target` to be a torch.Tensor, got list"),
        (lambda s: s.update(labels(), mask=torch.ones(3)), "`mask` with one value for each"),
        (lambda s: s.merge(ClassStatistics(2)), "`other` with n_classes=3, got 2"),
        (lambda s: s.weights("median"), "Did you mean 'median-frequency'"),
        (lambda s: s.value_bins(4), 'positive values with partition "hits"'),
        (lambda s: ClassStatistics(3, partition="hits"), '2 with partition "hits", got 3'),
        (lambda s: ClassStatistics(0), "`n_classes` to be a number of at least 1"),
        (lambda s: ClassStatistics(3).weights(), "to count something"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call(ClassStatistics(3))


def test_counts_made_elsewhere_are_the_same_statistics():
    target = torch.tensor([[0, 0, 1, 2], [0, 0, 0, 0], [0, 0, 0, 2]])
    seen = ClassStatistics.from_targets([target], 3, show_progress=False)
    made = ClassStatistics.from_counts(
        seen.class_counts, seen.image_presence, seen.pixels_of_images, seen.n_images
    )
    for method in ("inverse", "sqrt", "effective", "median-frequency"):
        assert made.weights(method) == seen.weights(method)
    assert made.n_images == 3
    assert made.merge(seen).class_counts == (18, 2, 4)
    with pytest.raises(ValueError, match="`image_presence` with a count for each of the 3"):
        ClassStatistics.from_counts((1, 2, 3), (1, 2), (1, 2, 3), 3)
    with pytest.raises(ValueError, match="`class_counts`"):
        ClassStatistics.from_counts((1, -2, 3), (1, 2, 1), (1, 2, 3), 3)


def test_labels_have_no_values():
    statistics = ClassStatistics(2)
    statistics.update(torch.tensor([[0, 1, 1]]))
    assert set(statistics.value_histogram) == {0}
