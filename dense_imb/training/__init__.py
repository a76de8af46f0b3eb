"""What trains: one loop that knows no task, the tasks, and the folder of a run."""

from dense_imb.config import (
    CifarConfig,
    DataConfig,
    ImagesConfig,
    MixingConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    SecondConfig,
    TableConfig,
    TrainConfig,
    UnlabelledConfig,
)
from dense_imb.training.build import SamplingWarning, check_config
from dense_imb.training.callbacks import (
    CollapseAlarm,
    CollapseWarning,
    EarlyStopping,
    GradientShares,
    LossParts,
    ProgressBar,
)
from dense_imb.training.checkpoint import (
    CheckpointError,
    CheckpointWarning,
    load_checkpoint,
    save_checkpoint,
)
from dense_imb.training.classifier import ClassBatch, Classifier, ClassReading, TrainedClassifier
from dense_imb.training.denoiser import Denoiser, HitBatch, Reading
from dense_imb.training.fit import check_folder, train
from dense_imb.training.launch import is_launched, launch
from dense_imb.training.loop import (
    Callback,
    Loop,
    LoopSettings,
    State,
    TrainingError,
)
from dense_imb.training.run import Run, TrainedDenoiser, open_run
from dense_imb.training.signals import Interrupted
from dense_imb.training.stages import stages_of
from dense_imb.training.task import OrderedTask, Task
from dense_imb.training.unlabelled import HeldOutWarning

__all__ = [
    "Callback",
    "CheckpointError",
    "CheckpointWarning",
    "CifarConfig",
    "ClassBatch",
    "ClassReading",
    "Classifier",
    "CollapseAlarm",
    "CollapseWarning",
    "DataConfig",
    "Denoiser",
    "EarlyStopping",
    "GradientShares",
    "HeldOutWarning",
    "HitBatch",
    "ImagesConfig",
    "Interrupted",
    "Loop",
    "LoopSettings",
    "LossParts",
    "MixingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "OrderedTask",
    "ProgressBar",
    "Reading",
    "Run",
    "SamplingConfig",
    "SamplingWarning",
    "SecondConfig",
    "State",
    "TableConfig",
    "Task",
    "TrainConfig",
    "TrainedClassifier",
    "TrainedDenoiser",
    "TrainingError",
    "UnlabelledConfig",
    "check_config",
    "check_folder",
    "is_launched",
    "launch",
    "load_checkpoint",
    "open_run",
    "save_checkpoint",
    "stages_of",
    "train",
]
