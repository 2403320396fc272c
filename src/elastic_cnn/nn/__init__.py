"""Elastic layers (Equation 3 of the paper). Imports torch alone."""

from elastic_cnn.nn.branches import Branch, ElasticBranches, ElasticSpec, PartedBranches, make_branches, set_blend
from elastic_cnn.nn.convolution import ElasticConv2d, ElasticLinear, convert_convolution, convert_linear
from elastic_cnn.nn.gated import GatedBranches
from elastic_cnn.nn.layout import channels_last, in_precision
from elastic_cnn.nn.split import CannotDivide

__all__ = [
    "Branch",
    "CannotDivide",
    "ElasticBranches",
    "ElasticConv2d",
    "ElasticLinear",
    "ElasticSpec",
    "GatedBranches",
    "PartedBranches",
    "channels_last",
    "convert_convolution",
    "convert_linear",
    "in_precision",
    "make_branches",
    "set_blend",
]
