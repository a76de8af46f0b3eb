"""Networks of segmentation-models-pytorch and MONAI, imported on first use."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dense_imb.base.imports import import_installed
from dense_imb.base.refusals import suggest
from dense_imb.models._checks import check_frames, refuse_unknown_options
from dense_imb.models._frames import crop_frames, larger_side, pad_frames, padded_size

Options = Mapping[str, Any]


class Padded(nn.Module):
    """Wrap a network that needs certain sizes: pad its input and crop its output.

    Args:
        network: maps frames (B, C, *spatial) to frames of the same size, or to a tuple whose
            first entry is such frames.
        multiple: sizes are padded to a multiple of this, at least twice it: normalisation needs
            more than one pixel at the lowest resolution.
        name: name of the network in error messages.
        in_channels: channels of the input.
        spatial_dims: number of spatial axes of the input.
        frame: the only frame size that the network takes; None takes any.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        multiple: int,
        name: str,
        in_channels: int,
        spatial_dims: int = 2,
        frame: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._multiple = multiple
        self._name = name
        self._in_channels = in_channels
        self._spatial_dims = spatial_dims
        self._frame = None if frame is None else tuple(frame)

    def forward(self, frames: Tensor) -> Tensor:
        check_frames(self._name, frames, self._in_channels, self._spatial_dims)
        size = tuple(frames.shape[2:])
        if self._frame not in (None, size):
            raise ValueError(
                f"Expected frames of {self._frame} pixels for this {self._name}, got {size}; "
                f"build one with frame={size}."
            )
        whole = pad_frames(frames, self.padded(size))
        answer = self.network(whole)
        if isinstance(answer, (list, tuple)):
            answer = answer[0]
        if answer.shape[2:] != whole.shape[2:]:
            raise ValueError(
                f"Expected {self._name} to return frames of the size of its input, "
                f"{tuple(whole.shape)}, got {tuple(answer.shape)}; use a segmentation network "
                "without deep supervision."
            )
        return crop_frames(answer, size)

    def padded(self, frame: Sequence[int]) -> tuple[int, ...]:
        """Return the size to which a frame is padded."""
        return _whole_size(frame, self._multiple)


def _whole_size(size: Sequence[int], multiple: int) -> tuple[int, ...]:
    return tuple(larger_side(side, 2 * multiple) for side in padded_size(size, multiple))


def smp_network(name: str, in_channels: int, out_channels: int, options: Options) -> nn.Module:
    """Build a network of segmentation-models-pytorch: "Unet/resnet18", or "Unet".

    `encoder_weights` defaults to None; "imagenet" would download weights.
    """
    architecture, _, encoder = name.partition("/")
    library = _import("segmentation_models_pytorch", "segmentation-models-pytorch>=0.5")
    networks = _networks(library)
    _check_known("smp", "architecture", architecture, networks)
    network: Any = networks[architecture]
    # the prefix "tu-" selects an encoder of timm, which are not in this list
    if encoder.startswith("tu-"):
        check_timm_name(encoder.removeprefix("tu-"))
    elif encoder:
        _check_known("smp", "encoder", encoder, library.encoders.get_encoder_names())
    own = ("encoder_name", "in_channels", "classes", "aux_params", "kwargs")
    known = [option for option in inspect.signature(network).parameters if option not in own]
    refuse_unknown_options(f"smp:{name}", options, known)
    arguments = {"encoder_weights": None, **options}
    if encoder:
        arguments["encoder_name"] = encoder
    built = network(in_channels=in_channels, classes=out_channels, **arguments)
    return Padded(built, multiple=32, name=f"smp:{name}", in_channels=in_channels)


def check_timm_name(name: str) -> None:
    """Refuse other names than those of timm's networks, with or without the tag of its weights.

    Names such as hf-hub:OWNER/NAME and local-dir:FOLDER stand for downloads and files.
    """
    known = _import("timm", "timm").list_models()
    if name.partition(".")[0] not in known:
        raise ValueError(f"Expected one of timm's networks, got {name!r}.{suggest(name, known)}")


def monai_network(
    name: str,
    in_channels: int,
    out_channels: int,
    frame: tuple[int, ...] | None,
    spatial_dims: int,
    options: Options,
) -> nn.Module:
    """Build a network of MONAI by the name of its class; `_DEFAULTS` adds missing defaults."""
    library = _import("monai.networks.nets", "monai>=1.6")
    networks = {
        key: network
        for key, network in _networks(library).items()
        if {"in_channels", "out_channels"} <= set(inspect.signature(network).parameters)
    }
    _check_known("MONAI", "network", name, networks)
    network: Any = networks[name]
    label = f"monai:{name}"
    known = list(inspect.signature(network).parameters)
    own = {"in_channels": in_channels, "out_channels": out_channels}
    if "spatial_dims" in known:
        own["spatial_dims"] = spatial_dims
    size_option = next((key for key in ("img_size", "input_image_size") if key in known), None)
    taken = {*own, size_option}
    refuse_unknown_options(label, options, [option for option in known if option not in taken])
    arguments = {**_DEFAULTS.get(name, {}), **options}
    multiple = _MULTIPLES[name](arguments) if name in _MULTIPLES else 32
    if size_option is not None:
        if frame is None:
            raise ValueError(
                f"Expected `frame` for {label!r}, such as (128, 88): its size is fixed."
            )
        own[size_option] = _whole_size(frame, multiple)  # type: ignore[assignment]
    try:
        built = network(**own, **arguments)
    except ImportError as error:  # networks with attention need einops
        reason = str(error).partition("\n")[0]
        raise ImportError(f"{label} needs another package, install it: {reason}") from error
    return Padded(
        built,
        multiple=multiple,
        name=label,
        in_channels=in_channels,
        spatial_dims=spatial_dims,
        frame=frame if size_option is not None else None,
    )


_FOUR_LEVELS = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2)}
_DEFAULTS: dict[str, dict[str, Any]] = {  # arguments that MONAI requires
    "UNet": {**_FOUR_LEVELS, "num_res_units": 2},
    "AttentionUnet": _FOUR_LEVELS,
    "DynUNet": {
        "kernel_size": (3, 3, 3, 3),
        "strides": (1, 2, 2, 2),
        "upsample_kernel_size": (2, 2, 2),
    },
    # MONAI's defaults, made for 96^3 voxels, give 90 million parameters
    "UNETR": {"hidden_size": 192, "mlp_dim": 768},
    "RegUNet": {"num_channel_initial": 16, "depth": 3},
    "FlexibleUNet": {"backbone": "efficientnet-b0"},
}


def _strides(given: Options) -> int:
    return math.prod(s if isinstance(s, int) else max(s) for s in given["strides"])


def _blocks(given: Options) -> int:
    return int(2 ** (len(given.get("blocks_down", (1, 2, 2, 4))) - 1))


_MULTIPLES: dict[str, Callable[[Options], int]] = {  # 32 for networks that are not listed
    "UNet": _strides,
    "AttentionUnet": _strides,
    "DynUNet": _strides,
    "SegResNet": _blocks,
    "SegResNetDS": _blocks,
    "BasicUNet": lambda given: 16,
    "BasicUNetPlusPlus": lambda given: 16,
    "VNet": lambda given: 16,
    "UNETR": lambda given: 16,
    "HighResNet": lambda given: 1,
}


def _import(module: str, package: str) -> Any:
    """Import a module; the ImportError of a missing one names the package to install."""
    try:
        return import_installed(module)
    except ImportError as error:
        raise ImportError(
            f"{module} could not be imported ({error}); install it: pip install '{package}'."
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise ImportError(
            f"{module} could not be imported because torchvision is made for another torch "
            f"({error}); install both together, from one source and into a new environment: "
            f"pip install torch torchvision '{package}'."
        ) from error


def _networks(library: Any) -> dict[str, type[nn.Module]]:
    """Return the networks of a library by class name; MONAI's aliases are left out."""
    return {
        name: value
        for name, value in vars(library).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and value.__name__ == name
    }


def _check_known(library: str, kind: str, name: str, known: Iterable[str]) -> None:
    known = sorted(known)
    if name not in known:
        cure = suggest(name, known) or f" There are {', '.join(known)}."
        raise ValueError(f"Expected one of {library}'s {kind}s, got {name!r}.{cure}")
