"""Conversion that keeps what a trained network learnt: order, shares, division, refit; no labels, no training."""

from elastic_cnn.conversion.main import SCALES, Calibration, convert
from elastic_cnn.conversion.refit import Refit
from elastic_cnn.conversion.report import BlockConversion, ConversionReport

__all__ = ["SCALES", "BlockConversion", "Calibration", "ConversionReport", "Refit", "convert"]
