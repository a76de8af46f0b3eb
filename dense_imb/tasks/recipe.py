"""From a config to losses, degradations and other things that run."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.config import (
    DataConfig,
    MixingConfig,
    SamplingConfig,
    TrainConfig,
    UnlabelledConfig,
)
from dense_imb.data.epochs.mixing import Mixer, Mixing
from dense_imb.data.epochs.samplers import ClassSampling
from dense_imb.data.epochs.views import check_rand_augment
from dense_imb.data.images.labelled import check_names
from dense_imb.data.labels.long_tail import long_tail_counts
from dense_imb.hits import Blob, Burst, Degradation, HotLines, HotPixels, Measured, Uniform
from dense_imb.hits.events import Geometry
from dense_imb.hits.frames import CHANNELS
from dense_imb.hits.noise import Profile
from dense_imb.hits.reader import open_hits
from dense_imb.losses import Margin
from dense_imb.losses.foreign.codes import loss_from_code
from dense_imb.losses.foreign.feeding import feeds_on, takes_logits
from dense_imb.losses.foreign.parse import parse_call, parse_loss, split_sum
from dense_imb.metrics import class_groups
from dense_imb.models import CLASSIFIERS, build_classifier_network, build_model
from dense_imb.runs.stages import check_second, of_second, stages_of
from dense_imb.tasks.feature_loss import check_not_mixed, check_takes_features
from dense_imb.tasks.hits.task import N_CHANNELS, Reading
from dense_imb.tasks.images.task import ImageReading
from dense_imb.tasks.labels.task import ClassReading
from dense_imb.tasks.mean_teacher import check_semi_supervised

# a config may come from anybody: what it names is imported from here and nowhere else
PACKAGES = ("dense_imb", "torch", "monai", "segmentation_models_pytorch", "kornia", "torchvision")
_ANY = (1, 1)  # counts of classes, where a loss is only looked at
PROFILES: dict[str, type[Profile]] = {
    "uniform": Uniform,
    "blob": Blob,
    "burst": Burst,
    "hot_pixels": HotPixels,
    "hot_lines": HotLines,
}


class SamplingWarning(UserWarning):
    """Sampling by class changes nothing."""


def check_config(config: TrainConfig) -> None:
    """Refuse what can't be trained, before anything is read or written."""
    _check_types(config)
    check_second(config.second)
    first, second = stages_of(config)
    _check_stage(first)
    if second is not None:
        try:
            _check_stage(second)
        except (ValueError, TypeError) as problem:
            raise of_second(problem) from problem


def _check_types(config: TrainConfig) -> None:
    for one in fields(TrainConfig):
        wanted: Any = one.default_factory
        got = getattr(config, one.name)
        if isinstance(wanted, type) and is_dataclass(wanted) and not isinstance(got, wanted):
            raise TypeError(
                f"Expected `{one.name}` as a {wanted.__name__}, got {type(got).__name__}."
            )


def _check_used(config: TrainConfig) -> None:
    """Refuse options that change nothing: whoever gave them expects something."""
    mixing, plain = config.mixing, MixingConfig()
    if mixing.kind == "none" and mixing != plain:
        raise ValueError(
            f"Expected a kind of mixing beside its other options (--mixing.kind), got {mixing}."
        )
    sampling = config.sampling
    for name, kind in (("power", "power"), ("epochs", "progressive")):
        is_given = getattr(sampling, name) != getattr(SamplingConfig(), name)
        if is_given and sampling.kind != kind:
            raise ValueError(
                f"Expected `sampling.kind` {kind} with a `sampling.{name}`, got {sampling.kind}."
            )


def _check_stage(config: TrainConfig) -> None:
    _check_used(config)
    kinds = {
        "hits (--data.train)": bool(config.data.train),
        "images (--images.train)": config.trains_on_images,
        "a table (--table.train)": config.table.train is not None,
        "CIFAR (--cifar.path)": config.cifar.path is not None,
    }
    if not any(kinds.values()):
        raise ValueError(
            "Expected hits files to train on (--data.train FILE), or images with masks "
            "(--images.train FOLDER --images.masks FOLDER), or with labels (--table.train CSV, "
            "--cifar.path ARCHIVE), got none."
        )
    if sum(kinds.values()) > 1:
        got = [name for name, is_there in kinds.items() if is_there]
        raise ValueError(
            f"Expected one of {', '.join(kinds)} to train on, got "
            f"{'both' if len(got) == 2 else 'several'}: {', '.join(got)}."
        )
    for name in ("steps", "batch_size"):
        check_at_least(name, getattr(config, name), 1)
    for name in ("learning_rate", "weight_decay"):
        check_at_least(name, getattr(config.optimizer, name), 0)
    if not config.optimizer.clip > 0:
        raise ValueError(f"Expected `clip` above 0, got {config.optimizer.clip}.")
    if not 0 <= config.seed < 2**63:
        raise ValueError(f"Expected `seed` from 0 to 2^63 - 1, got {config.seed}.")
    for name in ("patience", "validate_every"):
        if getattr(config, name) is not None:
            check_at_least(name, getattr(config, name), 1)
    if config.data.validation_events is not None:
        check_at_least("validation_events", config.data.validation_events, 1)
    shares = (one.validation_share for one in (config.data, config.images, config.table))
    for share in shares:
        if not 0 < share < 1:
            raise ValueError(f"Expected `validation_share` between 0 and 1, got {share}.")
    if build_feature_loss(config) is not None:
        check_not_mixed(build_mixing(config))
    if config.sampling.epochs is not None:
        check_at_least("sampling.epochs", config.sampling.epochs, 1)
    ClassSampling.of([0, 1], config.sampling.kind, power=config.sampling.power)
    if not 0 < config.labelled_share <= 1:
        raise ValueError(
            f"Expected `labelled_share` above 0 and up to 1, got {config.labelled_share}."
        )
    if not 0 < config.retention <= 1:
        raise ValueError(f"Expected `retention` above 0 and up to 1, got {config.retention}.")
    _check_unlabelled(config)
    if config.trains_on_images:
        _check_images(config)
        return
    if config.trains_on_classes:
        check_classes(config)
        return
    build_reading(config)
    if config.model.output == "value" and takes_logits(build_loss(config.loss, _ANY)):
        raise ValueError(
            f"Expected a loss of values with an output of value, got {config.loss}, which is fed "
            "logits; --loss ACBMSELoss for one, mostly with --pixels frame."
        )
    if config.model.output == "both":
        build_loss(config.value_loss)
    if config.mixing.hits == "union" and config.target == "pattern":
        raise ValueError(
            "Expected the target signal with a union of hits, got pattern: hits that thinning "
            "leaves out can't be asked for; --mixing.hits linear mixes the frames."
        )


def _check_unlabelled(config: TrainConfig) -> None:
    """Refuse to learn without labels from nothing, or in a way that nothing is learnt."""
    wanted = config.unlabelled
    if not config.is_semi_supervised:
        if wanted != UnlabelledConfig():
            raise ValueError(
                "Expected something to learn from without labels beside other options of "
                "`unlabelled`, got none; --unlabelled.train FOLDER, or --labelled_share 0.1 "
                "--unlabelled.rest true."
            )
        return
    if wanted.rest and wanted.train:
        raise ValueError(
            f"Expected `unlabelled.rest` or `unlabelled.train`, got both: {wanted.train}."
        )
    if wanted.rest and config.labelled_share == 1:
        raise ValueError(
            "Expected `labelled_share` below 1 with `unlabelled.rest`, got 1: no sample is left "
            "without a label."
        )
    check_semi_supervised(wanted.ratio, wanted.weight, wanted.threshold, wanted.decay)
    check_rand_augment(wanted.operations, wanted.magnitude)
    if not 0 <= wanted.ramp <= 1:
        raise ValueError(f"Expected `unlabelled.ramp` between 0 and 1, got {wanted.ramp}.")
    if wanted.loss is not None:
        build_loss(wanted.loss, _ANY)


def _check_images(config: TrainConfig) -> None:
    """Refuse what a segmenter can't be trained with, options of hits among it."""
    build_loss(config.loss, _ANY)
    _refuse_options_of_hits(config)
    check_names(config.images.names)
    images = config.images
    held_out = images.validation
    if held_out and images.validation_masks is None and Path(held_out).is_dir():
        raise ValueError(
            f"Expected `validation_masks`, the folder of the masks of {held_out} "
            "(--images.validation_masks FOLDER), got none."
        )
    check_at_least("patches", config.images.patches, 1)
    for side in config.images.patch or []:
        check_at_least("patch", side, 1)
    if not 0 <= config.images.test_share < 1:
        raise ValueError(
            f"Expected `test_share` from 0 to below 1, got {config.images.test_share}."
        )
    if not 0 <= config.images.foreground <= 1:
        raise ValueError(f"Expected `foreground` between 0 and 1, got {config.images.foreground}.")


def check_classes(config: TrainConfig) -> None:
    """Refuse what a classifier can't be trained with, options of hits among it."""
    loss = build_loss(config.loss, _ANY)
    _refuse_options_of_hits(config)
    if not takes_logits(loss):
        raise ValueError(
            f"Expected a loss of logits to classify with, got {config.loss}, which is fed values; "
            "--loss CrossEntropyLoss for one."
        )
    options = config.model.options
    if not config.model.name.startswith((*CLASSIFIERS[:1], "timm:")):
        raise ValueError(
            f"Expected a network of whole images ({', '.join(CLASSIFIERS)}; --model.name "
            f"resnet32), got {config.model.name}."
        )
    wants_cosines = isinstance(getattr(loss, "adjustment", None), Margin)
    if wants_cosines and options.get("head") != "cosine":
        raise ValueError(
            f"Expected a cosine head with {config.loss}, whose margins are of cosines, got "
            f'{options.get("head", "linear")}; --model.options \'{{"head": "cosine"}}\'.'
        )
    if not 0 <= config.cifar.validation_share < 1:
        raise ValueError(
            "Expected `cifar.validation_share` from 0 to below 1, got "
            f"{config.cifar.validation_share}."
        )
    used = config.table if config.table.train is not None else config.cifar
    if used.padding is not None:
        check_at_least("padding", used.padding, 0)
    class_groups((), used.many, used.few)
    for side in config.table.size or []:
        check_at_least("size", side, 1)
    if config.cifar.path is not None:  # a ratio that CIFAR has no images for is refused later
        long_tail_counts(2, 10**9, config.cifar.imb_ratio)


def _refuse_options_of_hits(config: TrainConfig) -> None:
    plain = TrainConfig()
    if config.mixing.hits != "linear":
        raise ValueError("Expected no `mixing.hits` with images to train on: it is of hits.")
    for name in ("data", "value_loss", "target", "pixels", "retention"):
        if getattr(config, name) != getattr(plain, name):
            raise ValueError(f"Expected no `{name}` with images to train on: it is of hits.")
    if config.model.output != "score":
        raise ValueError(
            f"Expected no `model.output` with images to train on, got {config.model.output}: it "
            "is of hits."
        )


def build_sampling(config: TrainConfig, content: Any, n_samples: int) -> ClassSampling | None:
    """How often each image or event is shown; None shows each once, and needs no `content`.

    Args:
        config: of the run.
        content: see `ClassSampling.of`.
        n_samples: of an epoch.
    """
    wanted = config.sampling
    if wanted.kind == "instance":
        return None
    steps = n_samples // min(config.batch_size, n_samples)  # of an epoch
    n_epochs = wanted.epochs or -(-config.steps // steps)
    try:
        sampling = ClassSampling.of(content, wanted.kind, power=wanted.power, n_epochs=n_epochs)
    except ValueError as problem:
        if config.labelled_share == 1:
            raise
        raise ValueError(
            f"{str(problem).rstrip('.')}; of all images {config.labelled_share:g} have labels "
            "(labelled_share), more may have that class."
        ) from problem
    if sampling.is_alike:
        warnings.warn(
            f"each of the {sampling.n_images} images holds the same classes, so that the sampling "
            f"{wanted.kind} draws all of them alike, as instance does",
            SamplingWarning,
            stacklevel=2,
        )
    return sampling


def build_mixing(config: TrainConfig) -> Mixing:
    """What is mixed with what."""
    wanted = config.mixing
    return Mixing(wanted.kind, wanted.alpha, wanted.tau, wanted.hits)


def build_mixer(config: TrainConfig, content: Any) -> Mixer | None:
    """What decides about batches; None mixes nothing. For `content` see `ClassSampling.of`."""
    mixing = build_mixing(config)
    return None if mixing.kind == "none" else Mixer(mixing, config.seed, content)


def needs_content(config: TrainConfig) -> bool:
    """Whether it matters to a config which classes each image or event holds."""
    return config.sampling.kind != "instance" or build_mixing(config).needs_classes


def build_degradation(data: DataConfig) -> Degradation | None:
    """What happens to each event; None where nothing does."""
    smears = (data.smear_x, data.smear_y, data.smear_t)
    if data.signal is None and data.noise == 0 and not any(smears):
        return None
    profiles: list[Profile | Measured] = [_profile(text) for text in data.profiles]
    if data.measured_noise is not None:
        measured = open_hits(data.measured_noise, in_memory=True)[:]
        profiles.append(Measured(measured, weight=data.measured_weight))
    return Degradation(
        signal=None if data.signal is None else _range("signal", data.signal),
        noise=_range("noise", data.noise),
        smear_x=data.smear_x,
        smear_y=data.smear_y,
        smear_t=data.smear_t,
        profiles=profiles,
    )


def build_loss(text: str, class_counts: Any = None) -> nn.Module:
    """The loss that a config names, see `TrainConfig`, with the counts if it needs some."""
    name = text.strip().partition("(")[0]
    is_code = (name.isidentifier() and name[0].islower()) or name.startswith(("CB", "LDAM-"))
    if is_code:
        return loss_from_code(text.strip(), class_counts)
    loss = parse_loss(text, packages=PACKAGES, class_counts=class_counts)
    if feeds_on(loss) == "features":
        raise ValueError(f"Expected a loss of frames, got {text!r}, which is one of features.")
    return loss


def build_feature_loss(config: TrainConfig) -> nn.Module | None:
    """The loss of features that a config names; None where it names none."""
    text = config.feature_loss
    if text is None:
        return None
    if len(terms := split_sum(text)) > 1 or terms[0][0] is not None:
        raise ValueError(
            f"Expected one loss of features, which has weights of its own, got {text!r}; "
            "RangeLoss(intra_weight=5e-5, inter_weight=0.01) say."
        )
    loss = parse_loss(text, packages=PACKAGES)
    check_takes_features(loss)
    if config.compile:
        raise ValueError(
            f"Expected no `compile` with a `feature_loss`, got both: {text} asks for what a "
            "compiled network does not give away."
        )
    if config.optimizer.parts == "head":
        raise ValueError(
            f"Expected `optimizer.parts` all with a `feature_loss`, got head: {text} trains what "
            "is before it."
        )
    return loss


def _profile(text: str) -> Profile:
    name, positional, options = parse_call(text, text)
    check_choice("profile", name, PROFILES)
    try:
        return PROFILES[name](*positional, **options)
    except TypeError as problem:
        raise ValueError(f"Expected options that {name} takes, got {text!r}: {problem}.") from None


def _range(name: str, value: int | list[int]) -> int | tuple[int, int]:
    if isinstance(value, int):
        return value
    if len(value) != 2:
        raise ValueError(f"Expected `{name}` as a number or [low, high], got {value}.")
    return value[0], value[1]


def config_from(stored: Any) -> TrainConfig:
    """A config out of what a YAML file holds; every unknown name and wrong type is refused."""
    if not isinstance(stored, dict):
        raise ValueError(f"Expected a config with names and values, got {type(stored).__name__}.")
    for name in (one.name for one in fields(TrainConfig) if is_dataclass(one.default_factory)):
        if not isinstance(stored.get(name, {}), dict):
            raise ValueError(f"Expected names and values in `{name}`, got {stored[name]!r}.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig, "run")
    try:
        parsed = parser.parse_object({"run": stored})
    except (ArgumentError, TypeError, KeyError) as problem:
        raise ValueError(_sentence(str(problem))) from None
    config: TrainConfig = parser.instantiate(parsed).run
    return config


def config_names(of: Any = TrainConfig, before: str = "") -> list[str]:
    """Every name of a config, "data.train" say."""
    names = []
    for one in fields(of):
        factory: Any = one.default_factory
        if is_dataclass(factory):
            names += config_names(factory, f"{before}{one.name}.")
        else:
            names.append(before + one.name)
    return names


def _sentence(problem: str) -> str:
    problem = " ".join(problem.split())
    if unknown := re.search(r"does not accept option '([^']+)'", problem):
        near = difflib.get_close_matches(unknown[1], config_names(), n=1, cutoff=0.5)
        cure = f" Did you mean `{near[0]}`?" if near else ""
        return f"Expected names of a config, got `{unknown[1]}`.{cure}"
    return f"Expected a config that fits, got: {problem.replace('run.', '')}"


def build_reading(config: TrainConfig) -> Reading:
    """How events become frames, and the output scores."""
    model = config.model
    return Reading(
        tuple(model.channels),
        model.threshold,
        model.output,
        takes_logits(build_loss(config.loss, _ANY)),
    )


def of_hits(config: TrainConfig, geometry: Geometry) -> dict[str, Any]:
    """What a network of hits takes and gives, for `build_network`."""
    return {
        "in_channels": sum(CHANNELS.get(channel, 0) for channel in config.model.channels),
        "out_channels": N_CHANNELS[config.model.output],
        "frame": (geometry.height, geometry.width),
    }


def of_images(reading: ImageReading) -> dict[str, Any]:
    """What a network of images takes and gives, for `build_network`."""
    return {
        "in_channels": reading.in_channels,
        "out_channels": reading.out_channels,
        "frame": reading.patch,
        "spatial_dims": len(reading.patch),
    }


def of_classes(reading: ClassReading) -> dict[str, Any]:
    """What a network of whole images takes and gives, for `build_network`."""
    return {"in_channels": len(reading.mean), "n_classes": reading.n_classes}


def build_network(config: TrainConfig, frames: Mapping[str, Any]) -> nn.Module:
    """The network with the weights that training starts from.

    Args:
        config: of the run.
        frames: `of_hits`, `of_images` or `of_classes`.
    """
    build: Any = build_classifier_network if "n_classes" in frames else build_model
    with torch.random.fork_rng(devices=[]):  # who reads a run keeps their own random numbers
        torch.manual_seed(config.seed)
        network: nn.Module = build(config.model.name, **frames, **config.model.options)
    is_flat = len(frames.get("frame", (1, 1))) == 2
    return network.to(memory_format=torch.channels_last) if is_flat else network


def read_config(path: Path) -> TrainConfig:
    """The config that a run was made from."""
    try:
        return config_from(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as problem:
        raise ValueError(f"Expected YAML in {path}, got {str(problem).splitlines()[0]}.") from None
