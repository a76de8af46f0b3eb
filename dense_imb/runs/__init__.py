"""Runs: their configuration, training, folders and stages."""

from dense_imb.config import (
    HitsConfig,
    ImagesConfig,
    LabelsConfig,
    MixingConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    SecondConfig,
    TrainConfig,
    UnlabelledConfig,
)
from dense_imb.runs.read import (
    Run,
    TrainedHits,
    open_run,
)
from dense_imb.runs.stages import (
    stages_of,
)
from dense_imb.runs.train import (
    check_folder,
    train,
)
from dense_imb.tasks.recipe import (
    SamplingWarning,
    check_config,
)
from dense_imb.tasks.unlabelled import (
    HeldOutWarning,
)

__all__ = [
    "LabelsConfig",
    "HitsConfig",
    "HeldOutWarning",
    "ImagesConfig",
    "MixingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Run",
    "SamplingConfig",
    "SamplingWarning",
    "SecondConfig",
    "LabelsConfig",
    "TrainConfig",
    "TrainedHits",
    "UnlabelledConfig",
    "check_config",
    "check_folder",
    "open_run",
    "stages_of",
    "train",
]
