"""The stages of a run, each as the configuration of a run in one stage."""

from __future__ import annotations

from dataclasses import asdict, replace

from dense_imb.base.checks import check_at_least
from dense_imb.base.refusals import Refused, refusal
from dense_imb.config import SecondConfig, TrainConfig, UnlabelledConfig, with_defaults

_SLOWER = 10  # the second stage's default learning rate is lower by this factor for all layers


def stages_of(config: TrainConfig) -> tuple[TrainConfig, TrainConfig | None]:
    """Return the first stage and the second one, each as the configuration of a run in one stage.

    The second stage learns from labelled images only. A second stage of the head alone has no loss
    of the features, which stay as they are.

    Example:
        >>> from dense_imb.config import OptimizerConfig
        >>> rate = OptimizerConfig(learning_rate=0.006)
        >>> config = TrainConfig(
        ...     steps=200, loss="FocalLoss", second=SecondConfig(50), optimizer=rate
        ... )
        >>> first, second = stages_of(config)
        >>> first.steps, first.loss, first.sampling.kind, first.optimizer.learning_rate
        (200, 'FocalLoss', 'instance', 0.006)
        >>> second.steps, second.loss, second.sampling.kind
        (50, 'FocalLoss', 'class')
        >>> round(second.optimizer.learning_rate, 6)
        0.0006
        >>> stages_of(TrainConfig())[1] is None
        True
    """
    config = with_defaults(config)
    wanted = config.second
    first = replace(config, second=SecondConfig())
    if wanted.steps == 0:
        return first, None
    rate = wanted.learning_rate
    if rate is None:
        assert config.optimizer.learning_rate is not None  # filled in
        rate = config.optimizer.learning_rate / (_SLOWER if wanted.parts == "all" else 1)
    second = replace(
        first,
        steps=wanted.steps,
        loss=config.loss if wanted.loss is None else wanted.loss,
        feature_loss=config.feature_loss if wanted.parts == "all" else None,
        optimizer=replace(config.optimizer, learning_rate=rate, parts=wanted.parts),
        sampling=wanted.sampling,
        mixing=wanted.mixing,
        unlabelled=UnlabelledConfig(),
    )
    return first, second


def check_second(wanted: SecondConfig) -> None:
    """Refuse options that no second stage can have, and options without a second stage."""
    check_at_least("second.steps", wanted.steps, 0)
    if wanted.learning_rate is not None:
        check_at_least("second.learning_rate", wanted.learning_rate, 0)
    plain, asked = asdict(SecondConfig()), asdict(wanted)
    given = [f"second.{name}" for name in plain if asked[name] != plain[name]]
    if wanted.steps == 0 and given:
        names = ", ".join(f"{{{name}}}" for name in given)
        raise refusal(f"{names} is set but {{second.steps}} is 0; add {{second.steps=N}}.")


def in_second_stage(problem: Exception) -> Refused:
    """Return an error that names the second stage as the place of a problem."""
    text = problem.sentence if isinstance(problem, Refused) else str(problem)
    sentence = f"second stage: {text}"
    if "sampling" in text:  # by class unless another one is asked for
        sentence = f"{sentence.rstrip('.')} ({{second.sampling.kind=instance}})."
    return refusal(sentence)
