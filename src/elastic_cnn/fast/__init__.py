"""Faster exact forms of networks: `optimize_for_inference` and what it is made of."""

from elastic_cnn.fast.optimize import compile_for_inference, optimize_for_inference
from elastic_cnn.fast.report import FormReport, OptimizationReport, TrainingReport
from elastic_cnn.fast.training import optimize_for_training

__all__ = [
    "FormReport",
    "OptimizationReport",
    "TrainingReport",
    "compile_for_inference",
    "optimize_for_inference",
    "optimize_for_training",
]
