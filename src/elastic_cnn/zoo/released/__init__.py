"""Checkpoints of the paper's released code, read into this package's networks."""

from elastic_cnn.zoo.released.convert import Conversion, convert
from elastic_cnn.zoo.released.reading import read_released
from elastic_cnn.zoo.released.recognise import Recognised, recognise, strip
from elastic_cnn.zoo.released.translate import Translation, translate, unused

__all__ = [
    "Conversion",
    "Recognised",
    "Translation",
    "convert",
    "read_released",
    "recognise",
    "strip",
    "translate",
    "unused",
]
