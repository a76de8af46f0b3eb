"""The training loop and its parts: callbacks, checkpoints, schedule, signals."""

from dense_imb.engine.callbacks import (
    CollapseAlarm,
    CollapseWarning,
    EarlyStopping,
    GradientShares,
    LossParts,
    ProgressBar,
)
from dense_imb.engine.checkpoint import (
    CheckpointError,
    CheckpointWarning,
    load_checkpoint,
    save_checkpoint,
)
from dense_imb.engine.launch import (
    is_launched,
    launch,
)
from dense_imb.engine.loop import (
    Callback,
    Loop,
    LoopSettings,
    State,
    TrainingError,
)
from dense_imb.engine.score_lines import (
    ScoreLines,
)
from dense_imb.engine.signals import (
    Interrupted,
)
from dense_imb.engine.task import (
    OrderedTask,
    Task,
)

__all__ = [
    "Callback",
    "CheckpointError",
    "CheckpointWarning",
    "CollapseAlarm",
    "CollapseWarning",
    "EarlyStopping",
    "GradientShares",
    "Interrupted",
    "Loop",
    "LoopSettings",
    "LossParts",
    "OrderedTask",
    "ProgressBar",
    "ScoreLines",
    "State",
    "Task",
    "TrainingError",
    "is_launched",
    "launch",
    "load_checkpoint",
    "save_checkpoint",
]
