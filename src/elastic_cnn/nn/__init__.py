"""Elastic layers (Equation 3 of the paper). Imports torch alone."""

from elastic_cnn.nn.branches import Branch, ElasticBranches, ElasticSpec, make_branches
from elastic_cnn.nn.split import CannotDivide

__all__ = ["Branch", "CannotDivide", "ElasticBranches", "ElasticSpec", "make_branches"]
