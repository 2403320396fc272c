"""What modules have in common that run a plan of the native kernels."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from elastic_cnn.fast.rewrite import Change
from elastic_cnn.kernels import ops


class NativeModule(nn.Module):
    """A plan and its packed weights (`kernels.packing`) as one native call: `(N, C_in, H, W)` -> `(N, C_out, H', W')`.

    On the CPU, in float32, or in bfloat16 where the weights are packed for it. operator: its name in `kernels.ops`.
    """

    operator: ClassVar[str]

    def __init__(self, weights: Tensor, plan: list[int]):
        super().__init__()
        self.plan = plan
        self.register_buffer("weights", weights, persistent=False)
        self.weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return ops.call(self.operator, x, self.weights, self.plan)


def join_weights(change: Change, blocks: Sequence[Any]) -> Tensor:
    """The weights of these modules behind one another in huge pages; each gets its part of them for its own."""
    whole = ops.in_huge_pages([block.weights for block in blocks])
    for block, part in zip(blocks, whole.split([len(block.weights) for block in blocks]), strict=True):
        change.set(block, "weights", part)
    return whole
