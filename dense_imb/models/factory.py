"""Networks by name: ours, segmentation-models-pytorch's and MONAI's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dense_imb.base.refusals import Refused, option, suggest
from dense_imb.config import IN_3D
from dense_imb.models._checks import check_frame, check_whole, refuse_unknown_options
from dense_imb.models.autoencoder import Autoencoder
from dense_imb.models.external import monai_network, smp_network
from dense_imb.models.fast_unet import FastUNet
from dense_imb.models.hit_transformer import SIZES, WAVES, HitTransformer

# networks of frames; `build_hit_network` builds those of hits
MODELS = ("autoencoder", "fast_unet", "smp:ARCHITECTURE/ENCODER", "monai:NETWORK")


def build_model(
    name: str,
    *,
    in_channels: int,
    out_channels: int,
    frame: Sequence[int] | None = None,
    spatial_dims: int = 2,
    **options: Any,
) -> nn.Module:
    """Build a network that maps frames (B, in_channels, *frame) to (B, out_channels, *frame).

    All arguments are names, numbers and lists, so a file of settings can rebuild the network.
    Networks of other libraries are wrapped in `Padded`, so frames of any size fit. By default
    weights are random and nothing is downloaded.

    Args:
        name: "autoencoder"; "fast_unet"; "smp:Unet/resnet18" or another architecture and
            encoder of segmentation-models-pytorch; "monai:UNet" or another network of MONAI
            whose output is a frame.
        in_channels: channels of the input.
        out_channels: channels of the output, 1 if binary.
        frame: height and width (and depth) of the frames, for networks of a fixed size
            ("autoencoder", "monai:UNETR").
        spatial_dims: number of spatial axes: 2, or 3 with MONAI's networks.
        **options: options of the network, named as in its library.
    Example:
        >>> build_model("autoencoder", in_channels=1, out_channels=1, frame=(37, 53)).frame
        (37, 53)
        >>> build_model("fast_unit", in_channels=8, out_channels=1)
        Traceback (most recent call last):
        ValueError: Expected the model to be one of autoencoder, fast_unet,
            smp:ARCHITECTURE/ENCODER, monai:NETWORK; got 'fast_unit'. Did you mean 'fast_unet'?
    """
    check_whole("in_channels", in_channels)
    check_whole("out_channels", out_channels)
    if spatial_dims not in (2, 3):
        raise ValueError(f"Expected `spatial_dims` 2 or 3, got {spatial_dims!r}.")
    size = None if frame is None else check_frame(frame, spatial_dims)
    library, _, inner = name.partition(":")
    if library == "monai" and inner:
        return monai_network(inner, in_channels, out_channels, size, spatial_dims, options)
    if spatial_dims == 3:
        raise Refused("a network for volumes", repr(name), f"take {option('model.name', IN_3D)}")
    if name not in ("autoencoder", "fast_unet") and not (library == "smp" and inner):
        cure = suggest(name, (*MODELS, "smp:Unet/resnet18", "monai:UNet"))
        raise ValueError(
            f"Expected the model to be one of {', '.join(MODELS)}; got {name!r}.{cure}"
        )
    if library == "smp":
        return smp_network(inner, in_channels, out_channels, options)
    if name == "fast_unet":
        refuse_unknown_options(name, options, _keywords(FastUNet))
        return FastUNet(in_channels, out_channels, **options)
    refuse_unknown_options(name, options, _keywords(Autoencoder))
    if size is None:
        raise ValueError(
            "Expected `frame` for 'autoencoder', whose size is fixed, got none; "
            "pass its height and width, such as (128, 88)."
        )
    return Autoencoder(in_channels, out_channels, frame=size, **options)


def build_hit_network(
    name: str,
    *,
    n_axes: int,
    n_features: int = 0,
    n_outputs: int = 1,
    metric: Sequence[float] | None = None,
    extent: Sequence[float] | None = None,
    wavelengths: tuple[float, float] = (4.4, 110.0),
    feature_scale: Sequence[Sequence[float]] | None = None,
    **options: Any,
) -> HitTransformer:
    """Build a network of hits, see `HitTransformer`.

    Args:
        name: "hits", or with a size: "hits:tiny", "hits:small", "hits:base".
        n_axes: coordinates of a hit, time included.
        n_features: further inputs of a hit.
        n_outputs: outputs of a hit.
        metric: factors that turn coordinates into one unit.
        extent: size of the detector in coordinates; None hides where in it a hit lies.
        wavelengths: shortest and longest wavelength at the start.
        feature_scale: middle and spread of each feature.
        **options: other values of these, or further arguments of `HitTransformer`.

    Example:
        >>> build_hit_network("hits:tiny", n_axes=3).width
        16
    """
    head, _, size = name.partition(":")
    known = _keywords(HitTransformer)
    if head != "hits" or (size and size not in SIZES):
        listed = ["hits", *(f"hits:{one}" for one in SIZES)]
        raise ValueError(
            f"Expected the network of hits to be one of {', '.join(listed)}, got "
            f"{name!r}.{suggest(name, listed)}"
        )
    refuse_unknown_options(name, options, known)
    if size and "size" in options:
        raise ValueError(f"Expected one size, got {name} and size={options['size']!r}; drop one.")
    sizes: dict[str, Any] = {
        "metric": metric,
        "extent": extent,
        "wavelengths": wavelengths,
        "feature_scale": feature_scale,
    }
    chosen = {"size": size} if size else {}
    return HitTransformer(n_axes, n_features, n_outputs, **{**sizes, **chosen, **options})


def hit_network_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of `build_hit_network` that fit stored weights.

    Example:
        >>> from dense_imb.models import build_hit_network, hit_network_sizes
        >>> network = build_hit_network("hits:tiny", n_axes=3, n_features=1)
        >>> hit_network_sizes(network.state_dict())
        {'n_axes': 3, 'n_features': 1, 'n_outputs': 1, 'extent': None}
    """
    n_axes = weights["waves"].shape[-1]
    has_extent = "extent" in weights
    n_inputs = weights["embed.weight"].shape[1]
    return {
        "n_axes": n_axes,
        "n_features": n_inputs - 1 - 2 * WAVES * n_axes * has_extent,
        "n_outputs": len(weights["head.bias"]),
        "extent": [1.0] * n_axes if has_extent else None,
    }


def _keywords(network: type[nn.Module]) -> list[str]:
    parameters = inspect.signature(network).parameters.values()
    return [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.name != "frame"]
