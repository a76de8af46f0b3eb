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
from dense_imb.runs.apply import denoise, segment, stream
from dense_imb.runs.calibrate import calibrate
from dense_imb.runs.folder import check_folder
from dense_imb.runs.read import Run, open_run, read_config
from dense_imb.runs.train import train
from dense_imb.tasks.recipe import Recipe, SamplingWarning
from dense_imb.tasks.stages import stages_of
from dense_imb.tasks.unlabelled import HeldOutWarning

__all__ = [
    "HeldOutWarning",
    "HitsConfig",
    "ImagesConfig",
    "LabelsConfig",
    "MixingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Recipe",
    "Run",
    "SamplingConfig",
    "SamplingWarning",
    "SecondConfig",
    "TrainConfig",
    "UnlabelledConfig",
    "calibrate",
    "check_folder",
    "denoise",
    "open_run",
    "read_config",
    "segment",
    "stages_of",
    "stream",
    "train",
]
