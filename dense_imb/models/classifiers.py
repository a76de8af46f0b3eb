"""Classification networks for whole images: a body that gives features, and a head."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.base.imports import import_installed
from dense_imb.base.refusals import refusal, suggest
from dense_imb.models._checks import check_frames, check_whole, refuse_unknown_options

# networks of whole images
CLASSIFIERS = ("resnet32", "timm:NAME")
HEADS = ("linear", "cosine")
# timm's options that load files; a config from a stranger must not do so
_UNSAFE = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


class CosineHead(nn.Module):
    """Linear layer without bias on normalised features f and weights w.

        z_k = scale cos(w_k, f)

    LDAM expects cosines as logits and has a scale of its own, so leave `scale` at 1 for it. Other
    losses need a scale of 16 to 32.

    Args:
        in_features: number of features.
        n_classes: number of logits.
        scale: factor of the cosines.

    Example:
        >>> head = CosineHead(2, 2)
        >>> _ = head.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
        >>> head(torch.tensor([[3.0, 0.0]])).tolist()
        [[1.0, 0.0]]
    """

    def __init__(self, in_features: int, n_classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(nn.functional.normalize(torch.randn(n_classes, in_features)))

    def forward(self, features: Tensor) -> Tensor:
        unit = nn.functional.normalize(features)
        return self.scale * nn.functional.linear(unit, nn.functional.normalize(self.weight))


class ClassNetwork(nn.Module):
    """Classifier that maps frames (B, C, H, W) to logits (B, n_classes): `head(body(frames))`.

    Args:
        body: maps frames to features (B, n_features).
        head: maps features to logits.
        name: name of the network in error messages.
        in_channels: channels of the frames.
    """

    def __init__(self, body: nn.Module, head: nn.Module, *, name: str, in_channels: int) -> None:
        super().__init__()
        self.body, self.head = body, head
        self._name, self._in_channels = name, in_channels

    def features(self, frames: Tensor) -> Tensor:
        """Return the features (B, n_features), the input of the head."""
        check_frames(self._name, frames, self._in_channels)
        features: Tensor = self.body(frames)
        return features

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(frames))
        return logits


class _Block(nn.Module):
    """Residual block relu(x + f(x)); where f changes the shape, x is subsampled and padded."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm_2 = nn.BatchNorm2d(channels)
        self.stride, self.more = stride, channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_2(self.second(self.norm_1(self.first(x)).relu()))
        if self.stride > 1 or self.more:
            x = x[:, :, :: self.stride, :: self.stride]
            before = self.more // 2
            x = nn.functional.pad(x, (0, 0, 0, 0, before, self.more - before))
        return (x + y).relu()  # type: ignore[no-any-return]


class ResNet32(nn.Sequential):
    """Body of the residual network for small images (He et al., 2016, section 4.2).

    A convolution is followed by three stages and a global average. A stage has (depth - 2) / 6
    blocks. The stages have 1, 2 and 4 times `width` channels; the last two halve the resolution.
    With 10 classes and a linear head there are 0.46 million parameters.

    Args:
        in_channels: channels of the frames.
        depth: number of layers, 6 n + 2.
        width: channels of the first stage.
    """

    def __init__(self, in_channels: int = 3, depth: int = 32, width: int = 16) -> None:
        check_whole("width", width)
        check_whole("depth", depth, 8)
        if (depth - 2) % 6:
            raise ValueError(f"Expected `depth` of 6 n + 2, such as 20 or 32, got {depth}.")
        n_blocks = (depth - 2) // 6
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        before = width
        for stage in range(3):
            for block in range(n_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(_Block(before, width << stage, stride))
                before = width << stage
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_features = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)


def build_classifier_network(
    name: str,
    *,
    in_channels: int,
    n_classes: int,
    head: str = "linear",
    scale: float = 1.0,
    **options: Any,
) -> ClassNetwork:
    """Build a network that maps frames (B, in_channels, H, W) to logits (B, n_classes).

    By default weights are random and nothing is downloaded.

    Args:
        name: "resnet32", or a network of timm such as "timm:resnet18".
        in_channels: channels of the frames.
        n_classes: number of logits.
        head: "linear", or "cosine" for LDAM, see `CosineHead`.
        scale: factor of the cosines.
        **options: `depth` and `width` of "resnet32", or options of the network of timm.

    Example:
        >>> network = build_classifier_network("resnet32", in_channels=3, n_classes=10)
        >>> network(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(parameter.numel() for parameter in network.parameters())
        464154
    """
    check_whole("in_channels", in_channels)
    check_whole("n_classes", n_classes, 2)
    if head not in HEADS:
        raise ValueError(f"Expected `head` of {' or '.join(HEADS)}, got {head!r}.")
    if scale != 1 and head != "cosine":
        raise refusal("A linear head takes no {scale}; drop it, or pass {head=cosine}.")
    library, _, inner = name.partition(":")
    if name == "resnet32":
        known = [p for p in inspect.signature(ResNet32).parameters if p != "in_channels"]
        refuse_unknown_options(name, options, [*known, "head", "scale"])
        body: Any = ResNet32(in_channels, **options)
    elif library == "timm" and inner:
        body = _timm_body(inner, in_channels, options)
    else:
        cure = suggest(name, (*CLASSIFIERS, "timm:resnet18")) or " Try {model.name=resnet32}."
        raise refusal(
            f"Expected a network of whole images ({', '.join(CLASSIFIERS)}), got {name!r}.{cure}"
        )
    n_features = int(getattr(body, "head_hidden_size", None) or body.num_features)
    last = CosineHead(n_features, n_classes, scale) if head == "cosine" else None
    return ClassNetwork(
        body, last or nn.Linear(n_features, n_classes), name=name, in_channels=in_channels
    )


def _timm_body(name: str, in_channels: int, options: dict[str, Any]) -> nn.Module:
    try:
        timm: Any = import_installed("timm")
    except (ImportError, RuntimeError) as problem:
        raise ImportError(
            f"timm could not be imported ({problem}); install it: pip install timm."
        ) from problem
    known = timm.list_models()
    if name not in known:  # this also keeps out names that stand for files and downloads
        cure = suggest(name, known)
        raise ValueError(f"Expected one of timm's networks, got {name!r}.{cure}")
    for option in _UNSAFE:
        if option in options:
            raise TypeError(f"{option!r} would load a file into timm:{name}; drop it.")
    try:
        body: nn.Module = timm.create_model(
            name, **{"pretrained": False, **options}, in_chans=in_channels, num_classes=0
        )
    except TypeError as problem:
        raise TypeError(
            f"Expected options that timm:{name} takes, got: {str(problem).rstrip('.')}."
        ) from problem
    return body
