"""Triton kernels for GPUs: the elastic tail (upsample, add, norm, shortcut, ReLU, pool) and pooling, in one pass each.

`elastic_tail`, `elastic_tail_train` and `area_pool` run the kernels where they serve and plain PyTorch elsewhere; both
compute the same function, with the same gradients.
"""

from elastic_cnn.kernels.triton.functions import area_pool, elastic_tail, elastic_tail_train
from elastic_cnn.kernels.triton.launch import serves

__all__ = ["area_pool", "elastic_tail", "elastic_tail_train", "serves"]
