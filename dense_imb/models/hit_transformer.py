"""Networks that score hits: attention in which messages carry where their sender lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dense_imb.base.checks import check_choice
from dense_imb.models._checks import check_whole
from dense_imb.models._windows import ORDERS, Windows, plan_windows

SIZES = {
    "tiny": {"width": 16, "depth": 2, "heads": 1},
    "small": {"width": 32, "depth": 2, "heads": 2},
    "base": {"width": 64, "depth": 4, "heads": 4},
}
WAVES = 8  # frequencies of each coordinate in the input
_OCTAVES = 6  # between the lowest and the highest of them
_EPSILON = 1e-6
# wave vectors are learned in a unit in which the mean wavelength at the start has this length, so
# that one learning rate fits pixels and metres
_MEAN_WAVELENGTH = 22.0


class HitInput(NamedTuple):
    """Hits of a batch of events, as a network of hits takes them.

    Args:
        coordinate: (n_hits, D) position and, last, time.
        feature: (n_hits, n_features) further inputs; n_features may be 0.
        offset: (n_events + 1,) int64; event i has the hits offset[i] .. offset[i + 1] - 1.

    Example:
        >>> import torch
        >>> from dense_imb.models import HitInput
        >>> xyt = torch.zeros(5, 3)  # two events of 3 and 2 hits, without further features
        >>> given = HitInput(xyt, torch.zeros(5, 0), torch.tensor([0, 3, 5]))
        >>> given.coordinate.shape, given.offset.diff()
        (torch.Size([5, 3]), tensor([3, 2]))
    """

    coordinate: Tensor
    feature: Tensor
    offset: Tensor


class HitTransformer(nn.Module):
    """Attention over the hits of an event, with queries, keys and values turned by coordinates.

        u_i  coordinates of hit i in one unit;  w_f  wave vectors, learned
        R(u) multiplies the f-th complex pair of numbers by exp(i w_f . u)

        q, k, v = R(u_i) (W_q, W_k, W_v) norm(x_i)
        a_i     = R(u_i)* sum_j softmax_j(q_i . k_j / sqrt(d_h)) v_j
        x_i    += W_o a_i;    x_i += W_2 relu(W_1 norm(x_i))
        x_i(0)  = W_in [1, features, waves of the coordinates]

    The turns cancel but for the difference u_j - u_i: ordinary rotary attention weighs messages by
    it, turned values also tell the receiver where the sender lies. Events with more than `window`
    hits attend inside windows of neighbours, in turn in time and in space and time, so the cost is
    linear in the hits.

    Args:
        n_axes: D, number of coordinates, time included.
        n_features: further inputs of a hit.
        n_outputs: numbers for each hit: 1 for signal against noise, or one for each class.
        metric: (D,) factors that turn coordinates into one unit; 1 by default.
        extent: (D,) size of the detector in coordinates, so that the network sees where in it a
            hit lies; None sees differences of coordinates only.
        feature_scale: (2, n_features) middle m and spread s of each feature f, which enters as
            asinh((f - m) / s); 0 and 1 by default.
        wavelengths: shortest and longest wavelength at the start, in the unit of `metric`.
        size: tiny, small or base: presets of `width`, `depth` and `heads`.
        width: d, numbers that describe a hit; a multiple of 2 `heads`.
        depth: number of layers.
        heads: number of attention heads.
        window: hits that attend to each other in long events.
        orders: orders of hits whose neighbours form the windows, in turn over the layers: "time",
            "space" (along a Morton curve) or "space-time".
        seed: random seed of the wave vectors at the start.

    Example:
        >>> network = HitTransformer(3, metric=(1, 1, 0.1), extent=(88, 128, 1000), size="tiny")
        >>> sum(weight.numel() for weight in network.parameters())
        6041
        >>> hits = HitInput(torch.rand(5, 3), torch.zeros(5, 0), torch.tensor([0, 3, 5]))
        >>> network(hits).shape
        torch.Size([5, 1])
    """

    metric: Tensor
    extent: Tensor | None
    feature_scale: Tensor
    frequency: Tensor

    def __init__(
        self,
        n_axes: int,
        n_features: int = 0,
        n_outputs: int = 1,
        *,
        metric: Sequence[float] | None = None,
        extent: Sequence[float] | None = None,
        feature_scale: Sequence[Sequence[float]] | None = None,
        wavelengths: tuple[float, float] = (4.4, 110.0),
        size: str = "small",
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        window: int = 256,
        orders: Sequence[str] = ("time", "space-time"),
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("size", size, SIZES)
        given = {"width": width, "depth": depth, "heads": heads}
        chosen = {n: SIZES[size][n] if value is None else value for n, value in given.items()}
        for name, value in {**chosen, "n_axes": n_axes, "n_outputs": n_outputs}.items():
            check_whole(name, value)
        check_whole("n_features", n_features, 0)
        check_whole("window", window, 2)
        if chosen["width"] % (2 * chosen["heads"]):
            raise ValueError(
                f"Expected `width` to be a multiple of 2 `heads`, {2 * chosen['heads']}, got "
                f"{chosen['width']}."
            )
        if not orders:
            raise ValueError("Expected `orders` with at least one order, got none.")
        for order in orders:
            check_choice("orders", order, ORDERS)
        if not 0 < wavelengths[0] <= wavelengths[1]:
            raise ValueError(
                f"Expected `wavelengths` above 0, the shortest first, got {wavelengths}."
            )
        self.width, self.depth, self.heads = chosen["width"], chosen["depth"], chosen["heads"]
        self.n_axes, self.n_features, self.n_outputs = n_axes, n_features, n_outputs
        self.window, self.orders = window, tuple(orders)
        metric = [1.0] * n_axes if metric is None else metric
        unit = math.sqrt(wavelengths[0] * wavelengths[1]) / _MEAN_WAVELENGTH
        self.register_buffer("metric", _coordinates("metric", metric, n_axes) / unit)
        has_extent = extent is not None
        self.register_buffer(
            "extent", _coordinates("extent", extent, n_axes) if extent is not None else None
        )
        scale = [[0.0] * n_features, [1.0] * n_features]
        scale = scale if feature_scale is None else [[*row] for row in feature_scale]
        self.register_buffer("feature_scale", torch.tensor(scale).view(2, n_features))
        frequency = math.pi * torch.logspace(0, _OCTAVES, WAVES, base=2)
        self.register_buffer("frequency", frequency, persistent=False)
        shortest, longest = (length / unit for length in wavelengths)
        waves = _wave_vectors(self.heads, self.width, n_axes, (shortest, longest), seed)
        self.waves = nn.Parameter(waves)
        self.embed = nn.Linear(1 + n_features + 2 * WAVES * n_axes * has_extent, self.width)
        self.layers = nn.ModuleList(HitLayer(self.width, self.heads) for _ in range(self.depth))
        self.norm = nn.RMSNorm(self.width, _EPSILON)
        self.head = nn.Linear(self.width, n_outputs)

    def forward(self, hits: HitInput) -> Tensor:
        """Return the outputs of each hit, (n_hits, n_outputs)."""
        if len(hits.coordinate) == 0:
            # with every weight, or processes with hits would wait for gradients from this one
            return sum(weight.sum() for weight in self.parameters()) * hits.coordinate.new_zeros(
                0, self.n_outputs
            )
        place = (hits.coordinate * self.metric).detach()
        windows = plan_windows(place, hits.offset, self.window, self.orders, self.depth)
        return self._outputs(hits.coordinate, hits.feature, windows)

    def score_padded(self, coordinate: Tensor, is_hit: Tensor, feature: Tensor) -> Tensor:
        """Return the outputs of padded events, (B, N, n_outputs); those of padding mean nothing.

        All hits of an event attend to each other. `forward` gives the same for events of at most
        `window` hits, but cuts longer ones into windows.

        Args:
            coordinate: (B, N, D) position and, last, time.
            is_hit: (B, N) bool, False at padding, which may hold any values.
            feature: (B, N, n_features) further inputs.
        """
        window = Windows((is_hit.shape[0], is_hit.shape[1]), mask=is_hit[:, None, None])
        padding = ~is_hit[..., None]  # a weight of 0 does not hide NaN
        coordinate, feature = (
            one.masked_fill(padding, 0).flatten(0, 1) for one in (coordinate, feature)
        )
        output = self._outputs(coordinate, feature, [window] * self.depth)
        return output.view(*is_hit.shape, self.n_outputs)

    def _outputs(self, coordinate: Tensor, feature: Tensor, windows: Sequence[Windows]) -> Tensor:
        """Return the outputs of hits that attend to each other in these windows, one a layer."""
        place = coordinate * self.metric
        x = self.embed(self._inputs(coordinate, feature))
        x = x.to(place.dtype)  # the sum over layers stays exact
        with torch.autocast(place.device.type, enabled=False):  # angles may be thousands
            angle = torch.einsum("md,hnd->mhn", place, self.waves)
        turn = torch.stack([angle.cos(), angle.sin()], -1)[:, None]  # (n_hits, 1, heads, n, 2)
        for number, window in enumerate(windows):
            x = self.layers[number](x, turn, window)
        output: Tensor = self.head(self.norm(x))
        return output

    def _inputs(self, coordinate: Tensor, feature: Tensor) -> Tensor:
        middle, spread = self.feature_scale
        feature = torch.asinh((feature - middle) / spread)
        inputs = [torch.ones_like(coordinate[:, :1]), feature]
        if self.extent is not None:
            phase = (coordinate / self.extent)[..., None] * self.frequency
            phase = phase.flatten(1)
            inputs += [phase.sin(), phase.cos()]
        return torch.cat(inputs, 1)

    def weight_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the weights by how they like to be trained.

        "matrices" are those of the layers, for Muon; "waves" are the wave vectors; "others" are
        the input, the norms and the output.
        """
        kinds = {
            name: "matrices" if name.startswith("layers.") and weight.dim() == 2 else "others"
            for name, weight in self.named_parameters()
        }
        kinds["waves"] = "waves"
        return {
            kind: [weight for name, weight in self.named_parameters() if kinds[name] == kind]
            for kind in ("matrices", "waves", "others")
        }


class HitLayer(nn.Module):
    """One layer of a `HitTransformer`.

    Args:
        width: numbers that describe a hit.
        heads: number of attention heads.
        ratio: width of the hidden layer, as a multiple of `width`.
    """

    def __init__(self, width: int, heads: int, ratio: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width, _EPSILON), nn.RMSNorm(width, _EPSILON)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, ratio * width, bias=False)
        self.down = nn.Linear(ratio * width, width, bias=False)

    def forward(self, x: Tensor, turn: Tensor, windows: Windows) -> Tensor:
        """Return the new description of each hit, (n_hits, width).

        Args:
            x: (n_hits, width) description of each hit.
            turn: (n_hits, 1, heads, n, 2) cos and sin of w . u.
            windows: hits that attend to each other.
        """
        n_hits, width = x.shape
        size = width // self.heads
        pairs = (self.heads, size // 2, 2)
        z = _turned(self.qkv(self.norm1(x)).view(n_hits, 3, *pairs), turn)
        z = windows.gather(z.view(n_hits, 3, self.heads, size))  # (W, s, 3, heads, d_h)
        q, k, v = z.permute(2, 0, 3, 1, 4)
        message = F.scaled_dot_product_attention(q, k, v, attn_mask=windows.mask)
        message = windows.scatter(message.transpose(1, 2))  # (n_hits, heads, d_h)
        message = _turned(message.reshape(n_hits, *pairs), turn[:, 0], is_back=True)
        x = x + self.out(message.reshape(n_hits, width))
        down: Tensor = self.down(F.relu(self.up(self.norm2(x)), inplace=True))
        return x + down


def _turned(x: Tensor, turn: Tensor, *, is_back: bool = False) -> Tensor:
    """Multiply pairs of numbers by exp(i a), or by exp(-i a) to turn them back.

    Args:
        x: (..., n, 2) pairs.
        turn: (..., n, 2) cos a and sin a.
        is_back: turn by -a.
    """
    pair = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    if torch.compiler.is_compiling():  # compilers have no complex numbers
        (a, b), (cos, sin) = pair.unbind(-1), turn.unbind(-1)
        sin = -sin if is_back else sin
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)
    factor = torch.view_as_complex(turn)  # one product: seven times faster than four
    product = torch.view_as_complex(pair.contiguous()) * (factor.conj() if is_back else factor)
    return torch.view_as_real(product).to(x.dtype)


def _coordinates(name: str, values: Sequence[float], n_axes: int) -> Tensor:
    tensor = torch.as_tensor(values, dtype=torch.float32)
    if tensor.shape != (n_axes,) or not bool((tensor.isfinite() & (tensor > 0)).all()):
        raise ValueError(
            f"Expected `{name}` with {n_axes} numbers above 0, one for each coordinate, got "
            f"{tensor.tolist()}."
        )
    return tensor


def _wave_vectors(
    heads: int, width: int, n_axes: int, wavelengths: tuple[float, float], seed: int
) -> Tensor:
    """Return (heads, width / 2 heads, n_axes) vectors of log-spaced lengths.

    Orthonormal triples spread the directions: with few vectors, a bad draw costs accuracy.
    """
    n = width // heads // 2
    generator = torch.Generator().manual_seed(seed)
    n_frames = -(-heads * n // n_axes)
    frames = torch.linalg.qr(torch.randn(n_frames, n_axes, n_axes, generator=generator))[0]
    direction = frames.flatten(0, 1)[: heads * n].view(heads, n, n_axes)
    shortest, longest = wavelengths
    length = torch.logspace(math.log10(shortest), math.log10(longest), n)
    vectors: Tensor = direction * (2 * math.pi / length)[:, None]
    return vectors
