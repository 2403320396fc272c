"""The native operators on maps of the dtype that their weights are packed for."""

from elastic_cnn.kernels import ops


def stem(x, weights, *rest):
    return ops.operator("stem", weights)(x, weights, *rest)


def residual_blocks(x, weights, plan):
    return ops.operator("residual_blocks", weights)(x, weights, plan)


def dla_tree(x, bottom, children, weights, plan):
    return ops.operator("dla_tree", weights)(x, bottom, children, weights, plan)


def dense_blocks(x, weights, plan):
    return ops.operator("dense_blocks", weights)(x, weights, plan)
