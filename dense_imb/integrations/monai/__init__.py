"""Event handlers for MONAI's engines, scores as MONAI metrics, and instance maps of labels.

    evaluator = SupervisedEvaluator(
        ...,
        key_val_metric={
            "val_ap": IgniteMetricHandler(
                PixelAveragePrecision(), output_transform=from_engine(["pred", "label"])
            )
        },
        val_handlers=[CollapseHandler("stop", trainer=trainer), OperatingPointHandler(0.97)],
    )

Losses need none of this: they are the `loss_function` of any engine. Those with per="instance"
want the map that `LabelInstancesd` makes, and read it through `InstanceInTarget`. Handlers read
the logits of the network, before the engine's postprocessing. All of them count in constant
memory, and exactly over several processes.
"""

try:
    import ignite  # noqa: F401
    import monai  # noqa: F401
except ImportError as why:
    raise ImportError(
        f"dense_imb.integrations.monai needs MONAI and pytorch-ignite, and {why.name} is missing: "
        'pip install "dense-imb[monai]".'
    ) from why

from dense_imb.integrations.monai.handlers import (
    CollapseHandler,
    GradientShareHandler,
    OperatingPointHandler,
    ProgressHandler,
)
from dense_imb.integrations.monai.instances import InstanceInTarget, LabelInstancesd
from dense_imb.integrations.monai.metrics import PixelAveragePrecision, PixelDice, PixelIoU

__all__ = [
    "CollapseHandler",
    "GradientShareHandler",
    "InstanceInTarget",
    "LabelInstancesd",
    "OperatingPointHandler",
    "PixelAveragePrecision",
    "PixelDice",
    "PixelIoU",
    "ProgressHandler",
]
