"""Elastic (CVPR 2019): convolutional networks whose every layer learns at which scale to look."""

from elastic_cnn.nn import ElasticSpec
from elastic_cnn.surgery import elasticize
from elastic_cnn.zoo import create_model, load_checkpoint, save_checkpoint

__version__ = "0.1.0"
__all__ = ["ElasticSpec", "create_model", "elasticize", "load_checkpoint", "save_checkpoint"]
