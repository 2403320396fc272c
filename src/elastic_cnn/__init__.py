"""Elastic (CVPR 2019): convolutional networks whose every layer learns at which scale to look."""

from typing import Any

from elastic_cnn.nn import ElasticSpec, set_blend
from elastic_cnn.policy.scores import scale_policy
from elastic_cnn.surgery import elasticize, recalibrate, restore
from elastic_cnn.zoo import create_model, load_checkpoint, save_checkpoint

__version__ = "0.1.0"
__all__ = [
    "ElasticSpec",
    "create_model",
    "elasticize",
    "load_checkpoint",
    "optimize_for_inference",
    "recalibrate",
    "restore",
    "save_checkpoint",
    "scale_policy",
    "set_blend",
]


def __getattr__(name: str) -> Any:
    """Rooms that most programs do not need load when they are asked for."""
    if name == "optimize_for_inference":
        from elastic_cnn.fast import optimize_for_inference

        return optimize_for_inference
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
