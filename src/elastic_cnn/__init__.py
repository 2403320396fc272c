"""Elastic (CVPR 2019): convolutional networks whose every layer learns at which scale to look."""

from elastic_cnn import zoo  # noqa: F401  (registers our networks with timm)
from elastic_cnn.nn import ElasticSpec
from elastic_cnn.surgery import elasticize

__version__ = "0.1.0"
__all__ = ["ElasticSpec", "elasticize"]
