"""A block, described once: `describe` says what it is to every faster form, or why no form knows it.

    description.py  what a description holds
    families.py     a case for each family of blocks: the only place that reads one
    judge.py        what all forms judge alike: hooks, activations, convolutions, norms, half resolution

The forms (PyTorch's, the native ones, the training form, the GPU's) consume descriptions and ask nothing of blocks.
"""

from elastic_cnn.fast.describe.description import BlockDescription, BranchDescription, Layer, Unsupported
from elastic_cnn.fast.describe.families import describe, family_of, is_block, read_layers

__all__ = [
    "BlockDescription",
    "BranchDescription",
    "Layer",
    "Unsupported",
    "describe",
    "family_of",
    "is_block",
    "read_layers",
]
