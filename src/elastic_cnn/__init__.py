"""Elastic (CVPR 2019): convolutional networks whose every layer learns at which scale to look.

The names of `__all__` are the stable surface. Importing the package enters the paper's networks in timm's registry; the
rest loads when it is first asked for.
"""

import importlib
import sys
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "ElasticSpec",
    "NetworkCard",
    "convert",
    "create_model",
    "elasticize",
    "evaluate",
    "explore",
    "export_checkpoint",
    "load_checkpoint",
    "load_recipe",
    "optimize_for_inference",
    "optimize_for_training",
    "predict",
    "recalibrate",
    "record_policy",
    "restore",
    "save_checkpoint",
    "scale_policy",
    "set_blend",
    "train",
]

if TYPE_CHECKING:
    from elastic_cnn.conversion.main import convert
    from elastic_cnn.export import export_checkpoint
    from elastic_cnn.fast import optimize_for_inference, optimize_for_training
    from elastic_cnn.functions import evaluate, explore, train
    from elastic_cnn.nn import ElasticSpec, set_blend
    from elastic_cnn.policy import record_policy, scale_policy
    from elastic_cnn.policy.predict import predict
    from elastic_cnn.surgery import elasticize, recalibrate, restore
    from elastic_cnn.tasks.recipe import load_recipe
    from elastic_cnn.zoo import NetworkCard, create_model, load_checkpoint, save_checkpoint
else:  # hidden from type checkers, for which `__getattr__` would make every misspelt name an attribute
    _HOMES = {
        "elastic_cnn.conversion.main": ("convert",),
        "elastic_cnn.export": ("export_checkpoint",),
        "elastic_cnn.fast": ("optimize_for_inference", "optimize_for_training"),
        "elastic_cnn.functions": ("evaluate", "explore", "train"),
        "elastic_cnn.nn": ("ElasticSpec", "set_blend"),
        "elastic_cnn.policy": ("record_policy", "scale_policy"),
        "elastic_cnn.policy.predict": ("predict",),
        "elastic_cnn.surgery": ("elasticize", "recalibrate", "restore"),
        "elastic_cnn.tasks.recipe": ("load_recipe",),
        "elastic_cnn.zoo": ("NetworkCard", "create_model", "load_checkpoint", "save_checkpoint"),
    }

    def __getattr__(name: str) -> object:
        for home, names in _HOMES.items():
            if name in names:
                value = globals()[name] = getattr(importlib.import_module(home), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


if "_elastic_cnn_command" not in sys.modules:
    importlib.import_module("elastic_cnn.zoo")
