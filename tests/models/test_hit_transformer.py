"""Networks of hits: what they can't see, what batches share, and long events."""

from __future__ import annotations

import itertools

import pytest
import torch

from dense_imb.models import HitInput, HitTransformer, build_hit_network, hit_network_sizes
from dense_imb.models._windows import plan_windows

COUNTS = [0, 1, 40, 230, 600, 1300, 0]


def hits(counts: list[int], n_axes: int = 3, n_features: int = 0, seed: int = 0) -> HitInput:
    generator = torch.Generator().manual_seed(seed)
    offset = torch.tensor([0, *itertools.accumulate(counts)])
    n = int(offset[-1])
    size = torch.tensor([88.0, 128.0, 30.0, 1000.0])[-n_axes:]
    place = torch.rand(n, n_axes, generator=generator) * size
    return HitInput(place, torch.rand(n, n_features, generator=generator), offset)


def event(batch: HitInput, i: int) -> HitInput:
    first, last = batch.offset[i], batch.offset[i + 1]
    return HitInput(
        batch.coordinate[first:last], batch.feature[first:last], torch.tensor([0, last - first])
    )


def network(**changes) -> HitTransformer:
    torch.manual_seed(0)
    return HitTransformer(3, metric=(1, 1, 0.1), size="tiny", **changes).eval()


@pytest.mark.parametrize(
    ("size", "n_weights"), [("tiny", 6041), ("small", 22321), ("base", 167777)]
)
def test_the_sizes_have_the_stated_weights(size, n_weights):
    net = HitTransformer(3, metric=(1, 1, 0.1), extent=(88, 128, 1000), size=size)
    assert sum(weight.numel() for weight in net.parameters()) == n_weights


@pytest.mark.parametrize("orders", [("time",), ("time", "space"), ("space-time", "time")])
@torch.no_grad()
def test_an_event_scores_alike_alone_in_a_batch_and_in_another_order(orders):
    net = network(orders=orders, window=128)
    batch = hits(COUNTS)
    whole = net(batch)
    assert whole.shape == (sum(COUNTS), 1)
    assert whole.isfinite().all()
    for i, n in enumerate(COUNTS):
        one = event(batch, i)
        first = int(batch.offset[i])
        torch.testing.assert_close(net(one), whole[first : first + n], atol=2e-5, rtol=0)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(i))
        mixed = HitInput(one.coordinate[order], one.feature[order], one.offset)
        torch.testing.assert_close(net(mixed), whole[first : first + n][order], atol=2e-5, rtol=0)


@torch.no_grad()
@torch.no_grad()
def test_padded_events_score_as_flat_ones_whatever_the_padding_holds():
    torch.manual_seed(0)
    net = HitTransformer(3, 2, metric=(1, 1, 0.1), size="tiny").eval()
    counts = [5, 0, 256, 1]
    batch = hits(counts, n_features=2)
    is_hit = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    coordinate, feature = (torch.full((*is_hit.shape, n), torch.nan) for n in (3, 2))
    coordinate[is_hit], feature[is_hit] = batch.coordinate, batch.feature
    output = net.score_padded(coordinate, is_hit, feature)
    torch.testing.assert_close(output[is_hit], net(batch), atol=2e-5, rtol=0)


def test_ties_in_time_do_not_depend_on_the_order_of_the_hits():
    """Real times are whole numbers; the order in the file must not decide who is in a window."""
    net = network(window=64)
    one = hits([700])
    one = HitInput(one.coordinate.floor(), one.feature, one.offset)
    order = torch.randperm(700, generator=torch.Generator().manual_seed(1))
    mixed = HitInput(one.coordinate[order], one.feature[order], one.offset)
    torch.testing.assert_close(net(mixed), net(one)[order], atol=2e-5, rtol=0)


@torch.no_grad()
def test_without_an_extent_only_differences_of_coordinates_count():
    batch = hits([50, 400])
    moved = batch._replace(coordinate=batch.coordinate + torch.tensor([30.0, -20.0, 500.0]))
    net = network()
    torch.testing.assert_close(net(moved), net(batch), atol=2e-4, rtol=0)
    placed = network(extent=(88, 128, 1000))
    assert (placed(moved) - placed(batch)).abs().max() > 1e-3


@torch.no_grad()
def test_values_tell_where_their_sender_lies():
    """Two hits see each other at equal weight; a plain sum of values could not tell the sides."""
    net = network()
    pair = torch.tensor([[0.0, 0.0, 0.0], [9.0, 5.0, 40.0]])
    offset = torch.tensor([0, 2])
    out = net(HitInput(pair, torch.zeros(2, 0), offset))
    assert (out[0] - out[1]).abs() > 1e-4


@pytest.mark.parametrize("is_shifted", [False, True])
def test_windows_hold_each_hit_once_and_only_its_event(is_shifted):
    batch = hits(COUNTS)
    size = 128
    windows = plan_windows(batch.coordinate, batch.offset, size, ("time",), 2)[int(is_shifted)]
    assert windows.index is not None
    assert windows.place is not None
    in_event = torch.repeat_interleave(batch.offset.diff())
    flat = windows.index.flatten()
    torch.testing.assert_close(flat[windows.place], torch.arange(sum(COUNTS)))
    of_window = in_event[windows.index]
    assert (of_window == of_window[:, :1]).all()
    n_windows = sum(-(-n // size) + (is_shifted and n > size) for n in COUNTS)
    assert windows.shape == (n_windows, size)  # as many as the hits need: the cost is linear


def test_half_of_the_neighbours_change_from_layer_to_layer():
    batch = hits([1024])
    plain, shifted = plan_windows(batch.coordinate, batch.offset, 128, ("time",), 2)
    seen = [[*map(frozenset, one.index.tolist())] for one in (plain, shifted)]
    common = [max(len(a & b) for b in seen[0]) for a in seen[1][1:-1]]
    assert common == [64] * 7  # half a window from each of two


def test_every_weight_gets_a_gradient():
    net = network(extent=(88, 128, 1000), n_features=2)
    net(hits([40, 300], n_features=2)).square().sum().backward()
    assert all(
        weight.grad is not None and weight.grad.abs().max() > 0 for weight in net.parameters()
    )
    groups = net.weight_groups()
    assert sum(len(group) for group in groups.values()) == len([*net.parameters()])
    assert all(weight.dim() == 2 for weight in groups["matrices"])
    assert groups["waves"] == [net.waves]


def test_gradients_are_those_of_finite_differences():
    net = HitTransformer(3, n_features=1, width=8, depth=2, heads=2, window=4).double()
    one = hits([7, 3], n_features=1)

    def score(place: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
        return net(HitInput(place, feature, one.offset))

    net.frequency = net.frequency.double()
    place = (one.coordinate / 100).double().requires_grad_()
    torch.autograd.gradcheck(score, (place, one.feature.double().requires_grad_()))


@torch.no_grad()
def test_half_precision_is_near_single():
    net, batch = network(extent=(88, 128, 1000)), hits([230, 230])
    with torch.autocast("cpu", torch.bfloat16):
        half = net(batch)
    torch.testing.assert_close(half.float(), net(batch), atol=0.05, rtol=0.05)


def test_stored_weights_tell_the_sizes():
    net = HitTransformer(4, 3, 5, extent=(1, 2, 3, 4), feature_scale=([0, 1, 2], [1, 2, 3]))
    sizes = hit_network_sizes(net.state_dict())
    again = build_hit_network("hits", **sizes)
    again.load_state_dict(net.state_dict())
    batch = hits([20], 4, 3)
    torch.testing.assert_close(again(batch), net(batch), atol=0, rtol=0)


def test_features_enter_in_their_own_scale():
    net = HitTransformer(3, 1, feature_scale=([5.0], [2.0]))
    same = HitTransformer(3, 1)
    same.load_state_dict({**net.state_dict(), "feature_scale": same.feature_scale})
    batch = hits([9], n_features=1)
    scaled = batch._replace(feature=batch.feature * 2 + 5)
    torch.testing.assert_close(net(scaled), same(batch))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": "huge"}, "`size` .*tiny"),
        ({"width": 10, "heads": 4}, "multiple of 2 `heads`, 8, got 10"),
        ({"orders": ()}, "at least one order"),
        ({"orders": ("colour",)}, "orders"),
        ({"metric": (1, 2)}, "`metric` with 3 numbers above 0"),
        ({"extent": (1, 2, 0)}, "`extent` with 3 numbers above 0"),
        ({"wavelengths": (5, 4)}, "shortest first"),
        ({"window": 1}, "`window` of at least 2"),
    ],
)
def test_bad_options_are_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        HitTransformer(3, **changes)


@pytest.mark.parametrize("name", ["hits:tinny", "hit", "hits:"])
def test_unknown_networks_of_hits_are_refused(name):
    if name == "hits:":
        assert build_hit_network(name, n_axes=3).width == 32
        return
    with pytest.raises(ValueError, match="network of hits to be one of hits, hits:tiny"):
        build_hit_network(name, n_axes=3)
    with pytest.raises(TypeError, match="widht.*Did you mean 'width'"):
        build_hit_network("hits", n_axes=3, widht=3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # graph breaks and the like
@torch.no_grad()
def test_compiled_equals_eager():
    net = network(extent=(88, 128, 1000))
    compiled = torch.compile(net)
    for counts in ([230, 230], [100, 300, 5], [40]):
        batch = hits(counts)
        torch.testing.assert_close(compiled(batch), net(batch), atol=1e-5, rtol=1e-4)
