"""Promises of the autoencoder and the FastUNet for frames of any size."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dense_imb.models import Autoencoder, FastUNet, build_model

FRAMES = [(1, 1), (2, 3), (16, 16), (37, 53), (128, 88)]
NETWORKS = ["autoencoder", "fast_unet"]


def made(name: str, frame=(37, 53), in_channels=2, out_channels=3, seed=0, **options) -> nn.Module:
    torch.manual_seed(seed)
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    return build_model(name, **channels, frame=frame, **options)


def hits(*shape: int, seed: int = 1) -> torch.Tensor:
    """Frames in which a pixel of twenty is lit."""
    generator = torch.Generator().manual_seed(seed)
    lit = torch.rand(shape[0], 1, *shape[2:], generator=generator) < 0.05
    return torch.rand(shape, generator=generator) * lit


@pytest.fixture(params=NETWORKS)
def name(request) -> str:
    return request.param


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_the_output_has_the_size_of_the_frame(name, frame):
    network = made(name, frame)
    assert network(hits(2, 2, *frame)).shape == (2, 3, *frame)


def test_a_blank_frame_has_finite_outputs_and_gradients(name):
    network = made(name)
    network(torch.zeros(2, 2, 37, 53)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("frame", [(37, 53), (128, 88)], ids=str)
def test_the_gradient_reaches_every_parameter(name, frame):
    network = made(name, frame)
    network(hits(4, 2, *frame)).square().mean().backward()
    silent = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_the_padding_is_empty_pixels_behind_the_far_edges():
    network = made("fast_unet", out_channels=1)
    frames = hits(1, 2, 37, 53)
    whole = nn.functional.pad(frames, (0, 3, 0, 3))
    torch.testing.assert_close(network(frames), network(whole)[..., :37, :53])


def test_the_seed_decides_the_network(name):
    same, again, other = (made(name, seed=seed) for seed in (3, 3, 4))
    frames = hits(2, 2, 37, 53)
    assert torch.equal(same(frames), again(frames))
    assert not torch.equal(same(frames), other(frames))


def test_a_state_dict_brings_the_network_back(name):
    network, other = made(name, seed=1), made(name, seed=2)
    other.load_state_dict(copy.deepcopy(network.state_dict()))
    frames = hits(2, 2, 37, 53)
    assert torch.equal(network(frames), other(frames))


def test_weights_are_contiguous_and_there_are_no_buffers(name):
    # safetensors refuses others, and DDP would have to copy buffers at every step
    network = made(name)
    assert all(p.is_contiguous() for p in network.parameters())
    assert list(network.buffers()) == []


@pytest.mark.parametrize("training", [True, False])
def test_a_frame_does_not_depend_on_its_batch(name, training):
    network = made(name).train(training)
    frames = hits(5, 2, 37, 53)
    alone = torch.cat([network(frame[None]) for frame in frames])
    others = torch.cat([frames[2:3], 1e3 * hits(4, 2, 37, 53, seed=9)])
    torch.testing.assert_close(network(frames), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(others)[0], alone[2], rtol=1e-4, atol=1e-5)


def test_either_memory_layout_gives_the_same(name):
    network = made(name)
    frames = hits(2, 2, 37, 53)
    channels_last = frames.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(frames), network(channels_last), rtol=1e-4, atol=1e-5)


def test_half_precision_is_finite_and_near(name):
    network = made(name)
    frames = hits(2, 2, 37, 53)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(frames)
        half.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    single = network(frames)
    assert (half - single).abs().max() < 0.05 * single.abs().max()


def test_it_learns_one_frame(name):
    network = made(name, (16, 24), in_channels=1, out_channels=1)
    frames = (hits(1, 1, 16, 24) > 0).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(150):
        loss = (network(frames) - frames).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * frames.square().mean()


def test_it_can_be_exported(name):
    network = made(name).eval()
    frames = hits(2, 2, 37, 53)
    batch = torch.export.Dim("batch", min=1, max=512)
    exported = torch.export.export(network, (frames,), dynamic_shapes=({0: batch},))
    more = hits(7, 2, 37, 53)
    torch.testing.assert_close(exported.module()(more), network(more), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_compiles_as_one_graph(name):
    network = made(name)
    frames = hits(2, 2, 37, 53)
    compiled = torch.compile(network, fullgraph=True)
    torch.testing.assert_close(compiled(frames), network(frames), rtol=1e-4, atol=1e-5)
    compiled(frames).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_default_sizes_are_the_documented_ones():
    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())

    assert 1.1e6 < count(Autoencoder()) < 1.3e6
    assert 1.3e6 < count(FastUNet()) < 1.4e6


def test_a_code_without_bottleneck_is_a_small_frame():
    network = Autoencoder(frame=(37, 53), width=8, latent=None)
    frames = torch.zeros(2, 1, 37, 53)
    assert network.encode(frames).shape == (2, 32, 3, 4)
    assert network(frames).shape == (2, 1, 37, 53)
    with pytest.raises(ValueError, match="latent"):
        Autoencoder(latent=0)


def test_the_code_is_the_latent_numbers():
    network = Autoencoder(frame=(37, 53), latent=5)
    frames = hits(2, 1, 37, 53)
    assert network.encode(frames).shape == (2, 5)
    assert torch.equal(network.decode(network.encode(frames)), network(frames))


@pytest.mark.parametrize("prior", [0.5, 0.02, 0.0001])
def test_the_untrained_output_is_the_prior(prior):
    torch.manual_seed(0)
    share = FastUNet(prior=prior)(hits(4, 8, 64, 64)).sigmoid()
    torch.testing.assert_close(share, torch.full_like(share, prior), rtol=0.15, atol=0)
    assert share.mean().item() == pytest.approx(prior, rel=0.02)


def test_the_untrained_softmax_is_the_prior_of_each_class():
    torch.manual_seed(0)
    prior = [0.9, 0.08, 0.02]
    share = FastUNet(8, 3, prior=prior)(hits(4, 8, 64, 64)).softmax(1).mean((0, 2, 3))
    torch.testing.assert_close(share, torch.tensor(prior), rtol=0.05, atol=0)


@pytest.mark.parametrize("prior", [0.0, 1.0, -1, [0.5, 0.4], [0.2, 0.2, 0.2], float("nan"), []])
def test_a_prior_that_is_no_share_is_refused(prior):
    with pytest.raises(ValueError, match="Expected `prior` as a share between 0 and 1"):
        FastUNet(8, 3, prior=prior)


@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 24, 32)], ids=len)
def test_any_number_of_levels(widths):
    network = FastUNet(2, 1, widths=widths)
    assert network(hits(1, 2, 37, 53)).shape == (1, 1, 37, 53)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(2, 2, 38, 53), r"37 x 53 pixels for this Autoencoder, got 38 x 53; .*frame="),
        (torch.zeros(2, 1, 37, 53), r"frames \(batch, 2, height, width\).*\(2, 1, 37, 53\)"),
        (torch.zeros(2, 37, 53), r"frames \(batch, 2, height, width\).*\(2, 37, 53\)"),
    ],
)
def test_frames_of_another_shape_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        made("autoencoder")(frames)


def test_frames_with_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"Expected frames \(batch, 2, height, width\)"):
        made("fast_unet")(torch.zeros(2, 8, 37, 53))


@pytest.mark.parametrize(
    "options",
    [{"widths": ()}, {"widths": (0, 8)}, {"widths": (8.0,)}, {"out_channels": 0}],
    ids=str,
)
def test_sizes_that_make_no_network_are_refused(options):
    with pytest.raises((ValueError, TypeError), match=r"Expected `\w+`"):
        FastUNet(**options)


@pytest.mark.parametrize("frame", [(128,), (128, 0), (128.0, 88), "128", 128], ids=str)
def test_a_frame_that_is_none_is_refused(frame):
    with pytest.raises(ValueError, match="Expected `frame` to hold 2 whole numbers"):
        Autoencoder(frame=frame)
