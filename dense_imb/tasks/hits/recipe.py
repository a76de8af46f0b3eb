"""Recipes of networks that score hits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.refusals import Refused, refusal
from dense_imb.config import HitsConfig
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.hits import (
    Blob,
    Burst,
    Degradation,
    Geometry,
    HitsFile,
    HitsFiles,
    HotLines,
    HotPixels,
    MeasuredNoise,
    Uniform,
    open_hits,
)
from dense_imb.hits.frames import CHANNELS
from dense_imb.hits.noise import Profile
from dense_imb.losses.foreign.feeding import takes_logits
from dense_imb.losses.foreign.parse import parse_call
from dense_imb.models import build_model
from dense_imb.tasks.base import TrainingData
from dense_imb.tasks.hits.pseudo_labels import HitsPseudoLabels
from dense_imb.tasks.hits.task import (
    N_CHANNELS,
    HitsOptions,
    HitsReading,
    HitsTask,
    Pixels,
    is_signal,
    is_visible,
)
from dense_imb.tasks.hits.trained import TrainedHits
from dense_imb.tasks.recipe import Recipe, build_loss, check_share
from dense_imb.tasks.unlabelled import REST, naming_the_option

PROFILES: dict[str, type[Profile]] = {
    "uniform": Uniform,
    "blob": Blob,
    "burst": Burst,
    "hot_pixels": HotPixels,
    "hot_lines": HotLines,
}
_COUNTED = 256  # events
_HITS = ("/event/offset", "/hit/x", "/hit/y", "/hit/t")


@dataclass(frozen=True)
class HitsRecipe(Recipe):
    """The recipe of a network that scores hits."""

    def check(self) -> None:
        """Refuse options of hits that cannot be trained."""
        config, hits = self.config, self.config.hits
        if hits.validation_events is not None:
            check_at_least("validation_events", hits.validation_events, 1)
        check_share("validation_share", hits.validation_share)
        if not 0 < hits.retention <= 1:
            raise ValueError(f"Expected `retention` above 0 and up to 1, got {hits.retention}.")
        for name, is_used in (
            ("profiles", hits.profiles != HitsConfig().profiles),
            ("measured_noise", hits.measured_noise is not None),
        ):
            if is_used and hits.noise == 0:
                raise refusal(
                    f"{{hits.{name}}} changes nothing while {{hits.noise}} is 0; add "
                    "{hits.noise=200}."
                )
        self.degradation  # noqa: B018  # refuses wrong profiles
        reading = self.reading(self.is_logit)
        if reading.output == "value" and reading.is_logit:
            raise Refused(
                "a loss of values with {hits.output=value}",
                f"{config.loss}, a loss of logits",
                "take {loss=ACBMSELoss}, usually with {hits.pixels=frame}",
            )
        if reading.output == "both":
            build_loss(hits.value_loss)
        if hits.mixing != "linear" and config.mixing.kind == "none":
            raise refusal(
                "{hits.mixing} changes nothing while {mixing.kind} is none; add "
                "{mixing.kind=mixup}."
            )
        if hits.mixing == "union" and hits.target == "pattern":
            raise Refused(
                "{hits.target=signal} with {hits.mixing=union}",
                "pattern: hits that thinning removed belong to it as well",
                "take {hits.mixing=linear}, which mixes frames",
            )

    @cached_property
    def degradation(self) -> Degradation | None:
        """Degradation of each event; None without any."""
        hits = self.config.hits
        smears = (hits.smear_x, hits.smear_y, hits.smear_t)
        if hits.signal is None and hits.noise == 0 and not any(smears):
            return None
        profiles: list[Profile | MeasuredNoise] = [_profile(text) for text in hits.profiles]
        if hits.measured_noise is not None:
            measured = open_hits(hits.measured_noise, in_memory=True)[:]
            profiles.append(MeasuredNoise(measured, weight=hits.measured_weight))
        return Degradation(
            signal=None if hits.signal is None else _range("signal", hits.signal),
            noise=_range("noise", hits.noise),
            smear_x=hits.smear_x,
            smear_y=hits.smear_y,
            smear_t=hits.smear_t,
            profiles=profiles,
        )

    def reading(self, is_logit: bool) -> HitsReading:
        """Return how events become frames, and how the output becomes scores."""
        hits = self.config.hits
        return HitsReading(tuple(hits.channels), hits.threshold, hits.output, is_logit)

    def open_data(self) -> tuple[VirtualEvents, VirtualEvents, VirtualEvents | None]:
        """Open training and validation events, and training events whose labels are not used."""
        hits, seed = self.config.hits, self.config.seed
        source = open_hits(hits.train)
        if hits.validation:
            train, held_out = VirtualEvents(source, self.degradation, seed), self.open_validation()
        else:
            n_held_out = max(round(hits.validation_share * len(source)), 1)
            cut = len(source) - n_held_out
            if cut < 1:
                raise ValueError(
                    f"Expected at least two events to train and validate on, got {len(source)}."
                )
            train = VirtualEvents(source, self.degradation, seed, count=cut)
            held_out = VirtualEvents(
                source, self.degradation, seed, first=cut, count=hits.validation_events
            )
        train, rest = split_labelled_events(train, self.config.labelled_share)
        return train, held_out, rest

    def open_validation(self) -> VirtualEvents:
        """Open the validation events alone; training files of their own may be gone."""
        hits = self.config.hits
        if hits.validation:
            return VirtualEvents(
                open_hits(hits.validation),
                self.degradation,
                self.config.seed,
                count=hits.validation_events,
            )
        return self.open_data()[1]

    def labelled_task(self) -> HitsTask:
        """Open the events and build the network and its losses."""
        hits = self.config.hits
        train, held_out, rest = self.open_data()
        class_counts = count_pixels(train, hits.pixels)
        loss = self.loss(class_counts)
        content = train.class_content() if self.needs_content else None
        options = HitsOptions(
            **self.shared_options(content, len(train)),
            target=hits.target,
            pixels=hits.pixels,
            value_loss=build_loss(hits.value_loss) if hits.output == "both" else None,
            retention=hits.retention,
            batch_size=self.config.batch_size,
        )
        return HitsTask(
            self.network(self.network_sizes(train.geometry)),
            loss,
            TrainingData(train, held_out, class_counts, rest=rest),
            self.reading(takes_logits(loss)),
            options,
        )

    def network_sizes(self, geometry: Geometry) -> dict[str, Any]:
        """Return the sizes of the network's input and output."""
        hits = self.config.hits
        return {
            "in_channels": sum(CHANNELS.get(channel, 0) for channel in hits.channels),
            "out_channels": N_CHANNELS[hits.output],
            "frame": (geometry.height, geometry.width),
        }

    def initial_network(self, sizes: Mapping[str, Any]) -> nn.Module:
        """Build the network."""
        model = self.config.model
        return build_model(model.name, **sizes, **model.options)

    def pseudo_labels(self, task: HitsTask) -> HitsPseudoLabels:
        """Open the unlabelled events."""
        events = task.data.rest if self.config.unlabelled.rest else self._unlabelled_events(task)
        return HitsPseudoLabels(
            task,
            events,
            self.pseudo_label_loss(task.class_counts),
            strong=self.config.unlabelled.strong,
        )

    def _unlabelled_events(self, task: HitsTask) -> VirtualEvents:
        paths = self.config.unlabelled.train
        assert paths is not None
        with naming_the_option():
            source = open_hits(paths)
            if self.config.hits.validation:
                why = "hits.validation, which are validated on"
                _refuse_shared(source, task.validation.source, why)
                why = "hits.train, which are learnt from already"
            else:
                why = "hits.train, whose last events are validated on"
            _refuse_shared(source, task.train.source, why)
        return VirtualEvents(source, None, self.config.seed)

    def trained(self, name: str, content: Mapping[str, Any], device: Any) -> TrainedHits:
        """Build the trained network."""
        setup = content["setup"]
        geometry = geometry_of_setup(setup)
        is_logit = HitsReading.is_logit_in(setup["target"])
        network = self.trained_network(self.network_sizes(geometry), content["network"])
        return TrainedHits(name, network, self.reading(is_logit), geometry, device)


def geometry_of_setup(setup: Mapping[str, str]) -> Geometry:
    """Return the frame of the training events from the setup in a checkpoint."""
    width, height, time_steps = (int(size) for size in setup["frame"].split(" x "))
    return Geometry(width, height, time_steps)


def split_labelled_events(
    events: VirtualEvents, share: float
) -> tuple[VirtualEvents, VirtualEvents | None]:
    """Split off the first events, whose labels are used; the others are None if there are none."""
    if share == 1:
        return events, None
    n = len(events)
    if n < 2:
        raise ValueError(f"Expected two events or more with a `labelled_share`, got {n}.")
    cut = min(max(round(share * n), 1), n - 1)
    rest = replace(events, first=events.first + cut, count=n - cut)
    return replace(events, count=cut), rest


def count_pixels(events: VirtualEvents, pixels: Pixels) -> tuple[int, int]:
    """Count the background and signal pixels that the loss sees in the first events of an epoch."""
    shown = events.degraded(np.arange(min(_COUNTED, len(events))), 0).torch()
    shown = shown.select(is_visible(shown))
    n_signal = int(is_signal(shown).sum())
    frame = shown.geometry
    n_pixels = shown.n_hits if pixels == "lit" else len(shown) * frame.width * frame.height
    return max(n_pixels - n_signal, 1), max(n_signal, 1)


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


def _refuse_shared(source: HitsFile | HitsFiles, others: HitsFile | HitsFiles, why: str) -> None:
    """Refuse files of `source` that are also in `others`, or hold the same hits."""
    seen = {file.path.resolve() for file in _files(others)}
    hits = {_digests_of_hits(file) for file in _files(others)} - {None}
    for file in _files(source):
        if file.path.resolve() in seen or _digests_of_hits(file) in hits:
            raise Refused(
                f"other hits files than those of {why}",
                f"the hits of {file.path}",
                f"to learn from events of hits.train without their labels, {REST}",
            )


def _files(source: HitsFile | HitsFiles) -> list[HitsFile]:
    return source.files if isinstance(source, HitsFiles) else [source]


def _digests_of_hits(file: HitsFile) -> tuple[str, ...] | None:
    """Return the stored digests of the hits without labels; None if the file has none."""
    try:
        stored = json.loads(str(file.attributes["content_hash"]))
        return tuple(str(stored[name]) for name in _HITS)
    except (KeyError, ValueError, TypeError):
        return None
