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
    ValuesConfig,
)
from dense_imb.runs.apply import denoise, predict, segment, stream
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
    "ValuesConfig",
    "calibrate",
    "check_folder",
    "denoise",
    "open_run",
    "predict",
    "read_config",
    "segment",
    "stages_of",
    "stream",
    "train",
]
