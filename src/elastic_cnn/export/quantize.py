"""8-bit integers: post-training quantization of an ONNX file, calibrated on photos, by ONNX Runtime's quantizer.

Weights are rounded channel by channel to signed, activations to unsigned 8-bit integers; the file holds QDQ pairs
(quantize, dequantize), which ONNX Runtime and OpenVINO both turn into integer arithmetic.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from elastic_cnn.export.onnx_file import INPUT
from elastic_cnn.extras import require

METHODS = ("minmax", "entropy", "percentile")


def quantize_onnx(source: Path, target: Path, images: Tensor, method: str = "minmax") -> None:
    """Write `target`, the int8 form of the float32 ONNX file `source`, with its metadata.

    images: `(N, C, H, W)`, prepared photos; each is run once to find the range of every activation. method: how the
    range follows from the values seen, one of `METHODS`.
    """
    quantization = require("onnxruntime.quantization", "export")
    onnx = require("onnx", "export")
    methods = quantization.CalibrationMethod
    chosen = {"minmax": methods.MinMax, "entropy": methods.Entropy, "percentile": methods.Percentile}
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends a preparation that is done already
    try:
        quantization.quantize_static(
            str(source),
            str(target),
            _reader(quantization.CalibrationDataReader, images),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            calibrate_method=chosen[method],
        )
    finally:
        logger.setLevel(level)
    model, original = onnx.load(target), onnx.load(source, load_external_data=False)
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    onnx.save(model, target)


def _reader(base: Any, images: Tensor) -> Any:
    class Reader(base):
        def __init__(self) -> None:
            self.rest: Iterator[Tensor] = iter(images.split(1))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.rest, None)
            return None if image is None else {INPUT: image.numpy()}

    return Reader()
