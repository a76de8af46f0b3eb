"""The recipe of a run: its checked configuration, and the cheap objects built from it.

`Recipe.of(config)` is the check. The recipe is handed on and never built again: `build_task` opens
the data and builds the network and the losses.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import nn

from dense_imb.base.checks import check_at_least
from dense_imb.base.refusals import Refused, RefusedType, refusal
from dense_imb.config import (
    AUTO,
    KINDS,
    MixingConfig,
    SamplingConfig,
    TrainConfig,
    UnlabelledConfig,
    with_defaults,
)
from dense_imb.data.epochs.mixing import Mixer, Mixing
from dense_imb.data.epochs.samplers import ClassSampling
from dense_imb.data.epochs.views import check_rand_augment
from dense_imb.data.images.folders import LARGEST
from dense_imb.losses.foreign.codes import loss_from_code
from dense_imb.losses.foreign.feeding import feeds_on, takes_logits
from dense_imb.losses.foreign.parse import (
    LOSS_MODULES,
    build_spec,
    check_length,
    parse_loss,
    parse_spec,
    split_sum,
)
from dense_imb.losses.foreign.recommended import Recommendation
from dense_imb.losses.foreign.short_names import full_text, suggest_loss
from dense_imb.losses.foreign.values import Value
from dense_imb.tasks.base import SampledTask
from dense_imb.tasks.feature_loss import check_not_mixed, check_takes_features
from dense_imb.tasks.instances import check_pseudo_loss
from dense_imb.tasks.kind import Kind, kind_named, kind_of
from dense_imb.tasks.mean_teacher import (
    SemiSupervised,
    StrongViews,
    TeacherOptions,
    Unlabelled,
)
from dense_imb.tasks.stages import check_second, in_second_stage, stages_of

# options of networks that download weights, and their values for random ones
_RANDOM: dict[str, Any] = {"pretrained": False, "encoder_weights": None}
_ANY = (1, 1)  # class counts, while a loss is only checked


class SamplingWarning(UserWarning):
    """Class-balanced sampling that changes nothing.

    Example:
        >>> import warnings
        >>> from dense_imb.runs import SamplingWarning
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", SamplingWarning)  # refuse such a configuration
    """


@dataclass(frozen=True)
class Recipe:
    """One stage of a run; each kind of data has its own subclass.

    Args:
        config: configuration of this stage, as a run in one stage.
        whole_config: configuration of the run, with all its stages.
        second: recipe of the second stage, if there is one.
        given_loss: training loss as a Module, in place of the text of the configuration.

    Example:
        >>> from dense_imb import HitsConfig, TrainConfig
        >>> from dense_imb.runs import Recipe
        >>> config = TrainConfig(HitsConfig(train="clean.h5"), loss="FocalLoss(gamma=1.0)")
        >>> recipe = Recipe.of(config)
        >>> recipe.kind.name, recipe.is_logit
        ('hits', True)
        >>> recipe.loss(class_counts=(9000, 1000)).penalty
        Focal(gamma=1.0, alpha=1.0)
    """

    config: TrainConfig
    whole_config: TrainConfig
    second: Recipe | None = None
    given_loss: nn.Module | None = None

    @classmethod
    def of(cls, config: TrainConfig, *, loss: nn.Module | None = None) -> Recipe:
        """Check a configuration, its losses included, and return its recipe.

        Args:
            config: configuration of the run.
            loss: training loss as a Module. `config.loss` is then its name in the run folder only.
        """
        _check_types(config)
        check_second(config.second)
        recipe = cls.read(config)
        if loss is not None:
            recipe = recipe._with_loss(loss)
        recipe._check()
        if recipe.second is not None:
            try:
                recipe.second._check()
            except (ValueError, TypeError) as problem:
                raise in_second_stage(problem) from problem
        recipe.check_stages()
        return recipe

    @classmethod
    def read(cls, config: TrainConfig) -> Recipe:
        """Return the recipe of a stored configuration.

        It equals that of `of`, but no loss is built and nothing that the configuration names is
        imported: a run folder may come from anybody.
        """
        config = with_defaults(config)
        kind = kind_of(config)
        first, second = stages_of(config)
        if second is None:
            return kind.recipe(first, config)
        return kind.recipe(first, config, kind.recipe(second, second))

    def _with_loss(self, loss: nn.Module) -> Recipe:
        """Return the recipe that trains with a Module, in both stages unless the second has one."""
        if not isinstance(loss, nn.Module):
            raise TypeError(f"Expected `loss` to be a torch.nn.Module, got {loss!r}.")
        second = self.second
        if second is not None and self.whole_config.second.loss is None:
            second = replace(second, given_loss=loss)
        return replace(self, second=second, given_loss=loss)

    @property
    def kind(self) -> Kind:
        """Kind of the training data."""
        return kind_of(self.config)

    @property
    def last(self) -> Recipe:
        """Recipe of the last stage, whose network a run is read for."""
        return self.second or self

    @cached_property
    def mixing(self) -> Mixing:
        """Mixing of samples and targets."""
        wanted = self.config.mixing
        return Mixing(wanted.kind, wanted.alpha, wanted.tau, _mixing_of_hits(self.config))

    def resolved(self) -> tuple[Self, str]:
        """Return the recipe with a named loss, and the sentence that says which the data chose.

        A configuration without a loss gets the one that `dense-imb inspect` recommends. The
        sentence is "" if the loss was named before.
        """
        return (self, "") if self.config.loss != AUTO else self.choose_loss()

    def choose_loss(self) -> tuple[Self, str]:
        """Return the recipe with the loss that its data recommend, and a sentence on it."""
        recommended = self.recommend(_ANY)
        return self.with_loss(recommended.loss), recommended.sentence()

    def with_loss(self, loss: str) -> Self:
        """Return the recipe with a loss in place of one that the data would choose."""
        second = self.second
        return replace(
            self,
            config=replace(self.config, loss=loss),
            whole_config=replace(self.whole_config, loss=loss),
            second=second.with_loss(loss) if second and second.config.loss == AUTO else second,
        )

    def recommend(self, class_counts: Sequence[int]) -> Recommendation:
        """Return the loss that `dense-imb inspect` recommends for data of these class counts."""
        raise NotImplementedError

    @cached_property
    def parsed_loss(self) -> ParsedLoss:
        """The training loss, parsed."""
        return ParsedLoss(self.config.loss, self.config.allow_import)

    @cached_property
    def checked_loss(self) -> nn.Module:
        """The training loss with stand-in class counts, to look at."""
        return self.loss(_ANY)

    @property
    def is_logit(self) -> bool:
        """Whether the training loss takes logits; otherwise it takes values."""
        return takes_logits(self.checked_loss)

    @cached_property
    def feature_loss(self) -> nn.Module | None:
        """Loss of the features; None without one."""
        return None if self.config.feature_loss is None else _build_feature_loss(self.config)

    def loss(self, class_counts: Sequence[int]) -> nn.Module:
        """Build the training loss; losses that need class counts get these."""
        if self.given_loss is None and self.config.loss == AUTO:
            return build_loss(self.recommend(class_counts).loss, class_counts)
        if self.given_loss is None:
            return self.parsed_loss.build(class_counts)
        loss = copy.deepcopy(self.given_loss)  # each task has its own
        if feeds_on(loss) == "features":
            raise Refused(
                "a loss of the output",
                f"{type(loss).__name__}, a loss of features",
                "use {feature_loss} for it",
            )
        return loss

    def further_loss(self, text: str, class_counts: Any = None) -> nn.Module:
        """Build another loss of the configuration, such as `hits.value_loss`."""
        return ParsedLoss(text, self.config.allow_import).build(class_counts)

    @property
    def needs_content(self) -> bool:
        """Whether the classes of each image or event matter, for sampling or mixing."""
        return self.config.sampling.kind != "instance" or self.mixing.needs_classes

    def sampling(self, content: Any, n_samples: int) -> ClassSampling | None:
        """Return the sampling of an epoch; None shows each sample once and needs no `content`.

        Args:
            content: classes of each image or event, see `ClassSampling.of`.
            n_samples: number of samples of an epoch.
        """
        wanted = self.config.sampling
        if wanted.kind == "instance":
            return None
        steps = n_samples // min(self.config.batch_size, n_samples)  # of an epoch
        n_epochs = wanted.epochs or -(-self.config.steps // steps)
        try:
            sampling = ClassSampling.of(content, wanted.kind, power=wanted.power, n_epochs=n_epochs)
        except ValueError as problem:
            share = self.config.labelled_share
            if share == 1:
                raise
            raise ValueError(
                f"{str(problem).rstrip('.')}; only {share:g} of the images have labels "
                "(labelled_share), a larger fraction may include that class."
            ) from problem
        if sampling.is_uniform:
            warnings.warn(
                f"each of the {sampling.n_images} images holds the same classes: sampling "
                f"{wanted.kind} equals sampling instance",
                SamplingWarning,
                stacklevel=2,
            )
        return sampling

    def mixer(self, content: Any) -> Mixer | None:
        """Return the mixer of batches; None mixes nothing. See `ClassSampling.of` for `content`."""
        if self.mixing.kind == "none":
            return None
        return Mixer(self.mixing, self.config.seed, content)

    def shared_options(self, content: Any, n_samples: int) -> dict[str, Any]:
        """Return the arguments of `TaskOptions`."""
        return {
            "sampling": self.sampling(content, n_samples),
            "mixer": self.mixer(content),
            "feature_loss": self.feature_loss,
        }

    def network(self, sizes: Mapping[str, Any]) -> nn.Module:
        """Build the network with its initial weights.

        Args:
            sizes: sizes of its input and output, see `network_sizes`.
        """
        with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers alone
            torch.manual_seed(self.config.seed)
            network = self.initial_network(sizes)
        is_flat = len(sizes.get("frame", (1, 1))) == 2
        return network.to(memory_format=torch.channels_last) if is_flat else network

    def initial_network(self, sizes: Mapping[str, Any]) -> nn.Module:
        """Build the network of the configuration; each kind has its own networks."""
        raise NotImplementedError

    def build_task(self) -> SampledTask | SemiSupervised:
        """Open the data and build the network and its losses."""
        task = self.labelled_task()
        if not self.config.is_semi_supervised:
            return task
        wanted = self.config.unlabelled
        options = TeacherOptions(
            ratio=wanted.ratio,
            weight=wanted.weight,
            ramp_steps=round(wanted.ramp * self.config.steps),
            threshold=wanted.threshold,
            decay=wanted.decay,
            sampling=wanted.sampling,
            seed=self.config.seed,
        )
        return SemiSupervised(task, self.pseudo_labels(task), options)

    def remark(self) -> str:
        """Return a sentence on the training data that a user should read; "" for none.

        Options are in braces, see `dense_imb.base.refusals`.
        """
        return ""

    def labelled_task(self) -> SampledTask:
        """Open the labelled data and build the network and its losses."""
        raise NotImplementedError

    def pseudo_labels(self, task: Any) -> Unlabelled:
        """Open the unlabelled samples that `task` learns from."""
        raise NotImplementedError

    def pseudo_label_loss(self, class_counts: Sequence[int]) -> nn.Module | None:
        """Build the loss of the pseudo-labels; None if it is that of the labels."""
        text = self.config.unlabelled.loss
        return None if text is None else self.further_loss(text, class_counts)

    @property
    def strong_views(self) -> StrongViews:
        """Strong views of unlabelled samples."""
        wanted = self.config.unlabelled
        return StrongViews(wanted.strong, wanted.operations, wanted.magnitude)

    def trained(self, name: str, content: Mapping[str, Any], device: Any) -> Any:
        """Build the trained network.

        Args:
            name: name in tables.
            content: content of a checkpoint.
            device: device to run on.
        """
        raise NotImplementedError

    def trained_network(self, sizes: Mapping[str, Any], weights: Mapping[str, Any]) -> nn.Module:
        """Build the network of a run and load its weights; nothing is downloaded."""
        if math.prod(sizes.get("frame", ())) > LARGEST:
            raise ValueError(
                f"Expected a frame of at most {LARGEST:,} pixels, got {sizes['frame']}."
            )
        recipe = self.without_download()
        recipe._check_sizes_of(weights, sizes)
        network = recipe.network(sizes)
        network.load_state_dict(weights)
        return network

    def without_download(self) -> Self:
        """Return the recipe with a random network, for weights that follow from elsewhere."""
        options = self.config.model.options
        wanted = {name: value for name, value in _RANDOM.items() if name in options}
        if not wanted:
            return self
        model = replace(self.config.model, options={**options, **wanted})
        return replace(self, config=replace(self.config, model=model))

    def _check_sizes_of(self, weights: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
        """Refuse weights of other shapes before the network takes memory.

        A configuration can ask for a network of any size. Networks that cannot be built without
        memory are checked when the weights are loaded.
        """
        try:
            with torch.device("meta"):
                network = self.network(sizes)
        except Exception:  # it computes with the values of its tensors
            return
        with warnings.catch_warnings(action="ignore"):  # nothing is copied, on purpose
            network.load_state_dict(weights)

    def _check(self) -> None:
        """Refuse a stage that cannot be trained, before anything is read or written."""
        config = self.config
        _check_permissions(config.allow_import)
        _check_other_kinds(config, self.kind)
        _check_used(config)
        _check_numbers(config)
        if self.feature_loss is not None:
            check_not_mixed(self.mixing)
        ClassSampling.of([0, 1], config.sampling.kind, power=config.sampling.power)
        _check_unlabelled(config)
        self.check()

    def check(self) -> None:
        """Refuse options of this kind of data that cannot be trained, losses included."""
        raise NotImplementedError

    def check_stages(self) -> None:
        """Refuse options that change nothing in any stage of the run."""


def _mixing_of_hits(config: TrainConfig) -> Literal["linear", "union"]:
    return "union" if config.hits.mixing == "union" else "linear"


def build_task(config: TrainConfig) -> Any:
    """Open the data of a configuration and build its network and losses.

    Example:
        >>> import tempfile
        >>> from dense_imb import HitsConfig, TrainConfig
        >>> from dense_imb.hits import HitsWriter, simulate
        >>> from dense_imb.tasks import build_task
        >>> path, arcs = tempfile.mkdtemp() + "/arcs.h5", simulate("arc", 8, seed=1)
        >>> with HitsWriter(path, arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> hits = HitsConfig(path, signal=20, noise=50, validation_share=0.5)
        >>> task = build_task(TrainConfig(hits))
        >>> type(task).__name__, task.n_samples, task.monitor
        ('HitsTask', 4, 'removal_at_97')
    """
    return Recipe.of(config).build_task()


class ParsedLoss:
    """A loss of a configuration: its text, parsed once and built as often as asked.

    Args:
        text: name with options, code, import path, or a sum of them, see `TrainConfig`.
        allow_import: packages that it may be imported from, beside those of `LOSS_MODULES`.
    """

    def __init__(self, text: str, allow_import: Sequence[str] = ()) -> None:
        check_length(text)
        name = text.strip().partition("(")[0]
        is_code = (name.isidentifier() and name[0].islower()) or name.startswith(("CB", "LDAM-"))
        self.text, self._packages = text, (*LOSS_MODULES, *allow_import)
        self._spec = None if is_code and full_text(text) is None else parse_spec(text)

    def with_cells(self, n_cells: int) -> Self:
        """Return the loss with the number of cells in each term over cells that names none.

        Args:
            n_cells: number of cells of the data.
        """
        if self._spec is None:
            return self
        parsed, terms = copy.copy(self), []
        for term in self._spec.terms:
            named = dict(zip(("error", "partition", "balance"), term.positional, strict=False))
            named |= term.options
            balance = named.get("balance") or {}
            balance = balance.options if isinstance(balance, Value) else balance
            has_number = "n_classes" in named or "weight" in balance
            if named.get("partition") in ("labels", "masks") and not has_number:
                term = term._replace(options={**term.options, "n_classes": n_cells})
            terms.append(term)
        parsed._spec = self._spec._replace(terms=tuple(terms))
        return parsed

    def build(self, class_counts: Any = None) -> nn.Module:
        """Build the loss.

        Args:
            class_counts: pixels (hits, images) of each class, for losses that need them.
        """
        if self._spec is None:
            try:
                return loss_from_code(self.text.strip(), class_counts)
            except ValueError as problem:
                if not str(problem).startswith("Expected `code`"):
                    raise
                raise ValueError(
                    "Expected `loss` to be a name of `dense-imb losses`, package.module:Class, a "
                    "sum or a code (ce, csce, CBLoss, LDAM-RW, flg2a50, hmld10000000g05a75 or "
                    f"CBFLossg05), got {self.text!r}.{suggest_loss(self.text)}"
                ) from problem
        loss = build_spec(self._spec, packages=self._packages, class_counts=class_counts)
        if feeds_on(loss) == "features":
            raise Refused(
                "a loss of the output",
                f"{self.text!r}, a loss of features",
                "use {feature_loss} for it",
            )
        return loss


def build_loss(
    text: str, class_counts: Any = None, *, allow_import: Sequence[str] = ()
) -> nn.Module:
    """Parse and build a loss, see `ParsedLoss`."""
    return ParsedLoss(text, allow_import).build(class_counts)


def _build_feature_loss(config: TrainConfig) -> nn.Module:
    text = config.feature_loss or ""
    if len(terms := split_sum(text)) > 1 or terms[0][0] is not None:
        raise ValueError(
            f"Expected one loss of features, which has weights of its own, got {text!r}; "
            "for example RangeLoss(intra_weight=5e-5, inter_weight=0.01)."
        )
    loss = parse_loss(text, packages=(*LOSS_MODULES, *config.allow_import))
    check_takes_features(loss)
    if config.compile:
        raise refusal(
            "{compile} and {feature_loss} exclude each other: a compiled network does not hand out "
            "its features; drop one of them."
        )
    if config.optimizer.parts == "head":
        raise refusal(
            f"{{optimizer.parts=head}} and {{feature_loss}} exclude each other: {text} trains the "
            "layers before the head; drop one of them."
        )
    return loss


def _check_types(config: TrainConfig) -> None:
    for one in fields(TrainConfig):
        wanted: Any = one.default_factory
        got = getattr(config, one.name)
        if isinstance(wanted, type) and is_dataclass(wanted) and not isinstance(got, wanted):
            raise RefusedType(f"`{one.name}` as a {wanted.__name__}", type(got).__name__)


def _check_permissions(packages: Sequence[str]) -> None:
    for name in packages:
        if not name.isidentifier():
            raise Refused(
                "a package in {allow_import}",
                repr(name),
                "name the first part of the import path, for example {allow_import=my_losses}",
            )


def _check_other_kinds(config: TrainConfig, kind: Kind) -> None:
    """Refuse options of a kind of data that is not trained on."""
    plain = TrainConfig()
    for other in KINDS:
        if other == kind.name:
            continue
        section, default = getattr(config, other), getattr(plain, other)
        for one in fields(section):
            if getattr(section, one.name) != getattr(default, one.name):
                raise refusal(
                    f"{{{other}.{one.name}}} is an option of {kind_named(other).description}, but "
                    f"the run trains on {kind.description}; drop it."
                )


def _check_used(config: TrainConfig) -> None:
    """Refuse options that change nothing: whoever set them expects an effect."""
    mixing, plain = config.mixing, MixingConfig()
    if mixing.kind == "none" and mixing != plain:
        changed = [
            f"{{mixing.{one.name}}}"
            for one in fields(mixing)
            if getattr(mixing, one.name) != getattr(plain, one.name)
        ]
        raise refusal(
            f"{', '.join(changed)} changes nothing while {{mixing.kind}} is none; add "
            "{mixing.kind=mixup}."
        )
    sampling = config.sampling
    for name, kind in (("power", "power"), ("epochs", "progressive")):
        is_given = getattr(sampling, name) != getattr(SamplingConfig(), name)
        if is_given and sampling.kind != kind:
            raise refusal(
                f"{{sampling.{name}}} changes nothing while {{sampling.kind}} is {sampling.kind}; "
                f"add {{sampling.kind={kind}}}."
            )


def _check_numbers(config: TrainConfig) -> None:
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
    if config.sampling.epochs is not None:
        check_at_least("sampling.epochs", config.sampling.epochs, 1)
    if not 0 < config.labelled_share <= 1:
        raise ValueError(
            f"Expected `labelled_share` above 0 and up to 1, got {config.labelled_share}."
        )


def check_share(name: str, share: float) -> None:
    """Refuse a fraction that is not between 0 and 1."""
    if not 0 < share < 1:
        raise ValueError(f"Expected `{name}` between 0 and 1, got {share}.")


def _check_unlabelled(config: TrainConfig) -> None:
    """Refuse semi-supervised training without unlabelled samples, or without any effect."""
    wanted = config.unlabelled
    if not config.is_semi_supervised:
        if wanted != UnlabelledConfig():
            raise Refused(
                "unlabelled samples with options of `unlabelled`",
                "none",
                "add {unlabelled.train=FOLDER}, or {labelled_share=0.1} with "
                "{unlabelled.rest=true}",
            )
        return
    if wanted.rest and wanted.train:
        raise Refused(
            "one of {unlabelled.rest} and {unlabelled.train}", f"both: {wanted.train}", "drop one"
        )
    if wanted.rest and config.labelled_share == 1:
        raise Refused(
            "`labelled_share` below 1 with `unlabelled.rest`",
            "1, which leaves no sample without a label",
            "add {labelled_share=0.1}",
        )
    TeacherOptions(
        ratio=wanted.ratio, weight=wanted.weight, threshold=wanted.threshold, decay=wanted.decay
    )
    check_rand_augment(wanted.operations, wanted.magnitude)
    if not 0 <= wanted.ramp <= 1:
        raise ValueError(f"Expected `unlabelled.ramp` between 0 and 1, got {wanted.ramp}.")
    loss = wanted.loss or config.loss
    if loss != AUTO:
        check_pseudo_loss(build_loss(loss, _ANY, allow_import=config.allow_import))
