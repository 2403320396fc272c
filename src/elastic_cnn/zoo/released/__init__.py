"""Checkpoints of the paper's released code, read into this package's networks."""

from elastic_cnn.zoo.released.recognise import Recognised, recognise, strip
from elastic_cnn.zoo.released.translate import Translation, translate, unused

__all__ = ["Recognised", "Translation", "recognise", "strip", "translate", "unused"]
