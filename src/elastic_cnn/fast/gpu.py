"""Elastic blocks on GPUs: everything after the last convolutions in one Triton kernel, in inference and in training.

A residual block of two branches ends in upsample, add, norm, shortcut, ReLU, and the next elastic block begins by
pooling what the ReLU wrote. On a GPU these are bound by memory: one by one they move the widest map of the block about
eleven times, in one kernel three (read the high branch and the shortcut, write the result; the pooled map and the low
branch are a quarter as large). Elsewhere than on CUDA the blocks compute their plain form.

`use_gpu_kernels` changes classes alone: parameters, buffers and their names stay the same objects.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from timm.layers import DropPath
from torch import Tensor, nn

from elastic_cnn.fast.branches_form import LowBranch, does_nothing, obstacle
from elastic_cnn.fast.residual_form import FoldedElasticBottleneck
from elastic_cnn.kernels.triton import area_pool, elastic_tail, elastic_tail_train, serves
from elastic_cnn.nn import Branch
from elastic_cnn.nn.resample import AreaDownsample, Upsample
from elastic_cnn.surgery.dla_block import ElasticDlaBlock
from elastic_cnn.surgery.residual import ElasticResidual


@dataclass
class GpuReport:
    """fused: names of blocks whose tail is one kernel on CUDA; left: {name of an elastic block: why it is not};
    handed_over: names of sequences in which a block hands the next one its pooled map."""

    fused: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    handed_over: list[str] = field(default_factory=list)


class GpuResidual(ElasticResidual):
    """`ElasticResidual` of two branches with a batch norm after their sum; in training and in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, None, False)[0]

    def run(self, x: Tensor, pooled: Tensor | None, pool: bool) -> tuple[Tensor, Tensor | None]:
        """The block's output and, with `pool` and where it is free, its 2 x 2 mean; `pooled`: that of `x`, if known."""
        if not serves(x) or blends(self):
            return ElasticResidual.forward(self, x), None
        return run_tail(self, x, x if self.shortcut is None else self.shortcut(x), pooled, pool)


class GpuDlaBlock(ElasticDlaBlock):
    """`ElasticDlaBlock`, likewise; DLA's trees compute its shortcut, and no block's output goes to one block alone."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        if not serves(x) or blends(self):
            return super().forward(x, shortcut, children)
        return run_tail(self, x, x if shortcut is None else shortcut, None, False)[0]


def blends(block: Any) -> bool:
    """Whether the low branch runs at full resolution, too (`set_blend`): then the plain form serves."""
    low: Any = block.branches.low[0]
    return low.blend < 1


def run_tail(
    block: Any, x: Tensor, shortcut: Tensor, pooled: Tensor | None, pool: bool
) -> tuple[Tensor, Tensor | None]:
    """Branches by library convolutions, the rest by one kernel; `obstacle_to_kernels` has checked the block."""
    high = block.branches.high.transform(x)  # (N, C, H, W)
    low = block.branches.low[0].transform(area_pool(x) if pooled is None else pooled)  # (N, C, ceil(H/2), ceil(W/2))
    norm = block.tail[0]
    if norm.training or norm.running_mean is None:
        return elastic_tail_train(high, low, norm, shortcut, True, pool)
    scale = (norm.running_var + norm.eps).rsqrt()  # a few numbers a channel
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
    return elastic_tail(high, low, scale, bias, shortcut, True, pool)


class GpuBottleneck(FoldedElasticBottleneck):
    """`FoldedElasticBottleneck` of two branches: norms are folded, and the last convolution's bias joins the kernel."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        if not serves(x):
            return super().forward(x, shortcut, children)
        return self.run(x, None, False, shortcut)[0]

    def run(
        self, x: Tensor, pooled: Tensor | None, pool: bool, shortcut: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """As `GpuResidual.run`."""
        if not serves(x):
            return super().forward(x, shortcut), None
        branch: Any = self.low[0]
        low = branch.transform(area_pool(x) if pooled is None else pooled)
        *inner, last = self.high.children()
        y = x
        for layer in inner:
            y = layer(y)
        conv: Any = last
        high = conv._conv_forward(y, conv.weight, None)  # without its bias, which would be one more pass over the map
        return elastic_tail(high, low, None, conv.bias, self._start(x, shortcut), True, pool)


class PoolHandingSequential(nn.Sequential):
    """A sequence in which an elastic block writes its output's pooled map, too, if the next block is to read it."""

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self.children())
        pooled: Tensor | None = None
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if isinstance(layer, (GpuResidual, GpuBottleneck)):
                x, pooled = layer.run(x, pooled, isinstance(following, (GpuResidual, GpuBottleneck)))
            else:
                x, pooled = layer(x), None
        return x


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    ElasticResidual: GpuResidual,
    ElasticDlaBlock: GpuDlaBlock,
    FoldedElasticBottleneck: GpuBottleneck,
}


def is_on_gpu(network: nn.Module) -> bool:
    """Whether any parameter of `network` lies on a CUDA device."""
    return any(parameter.is_cuda for parameter in network.parameters())


def use_gpu_kernels(network: nn.Module) -> GpuReport:
    """Let elastic residual blocks of `network` run fused kernels on CUDA, in place; elsewhere they compute as before.

    Takes plain networks, for training and evaluation, and those of `optimize_for_inference`. Parameters, buffers and
    their names stay the same objects, and the function is the same to rounding (sums are float32 in every dtype, so in
    bfloat16 it rounds less often). Hooks on a block's inner `branches`, `tail` or `act` would not run: blocks that have
    some are left, and so are those of other scales, resamplings, norms or activations than the kernels compute.
    """
    report = GpuReport()
    for name, module in network.named_modules():
        form = FORMS.get(type(module))
        if form is None:
            continue
        if reason := obstacle(module) or obstacle_to_kernels(module):
            report.left[name] = reason
        else:
            module.__class__ = form
            report.fused.append(name)
    for name, module in network.named_modules():
        if type(module) is nn.Sequential and _hands_over(module):
            module.__class__ = PoolHandingSequential
            report.handed_over.append(name)
    return report


def _hands_over(sequence: nn.Sequential) -> bool:
    kinds = [isinstance(layer, (GpuResidual, GpuBottleneck)) for layer in sequence]
    hooks = any(layer._forward_hooks or layer._forward_pre_hooks for layer in sequence)
    return not hooks and any(a and b for a, b in pairwise(kinds))


def obstacle_to_kernels(block: Any) -> str:
    """Why the kernels do not compute this block; empty where they do."""
    if type(block.act) is not nn.ReLU:
        return f"its activation is {type(block.act).__name__}"
    if isinstance(block, FoldedElasticBottleneck):
        lows: list[Any] = list(block.low)
        last = list(block.high.children())[-1]
        if type(last) is not nn.Conv2d or last.padding_mode != "zeros":
            return f"its high branch ends in {type(last).__name__}"
    else:
        lows = list(block.branches.low)
        if not does_nothing(block.branches.high.up) or not does_nothing(block.branches.high.down):
            return "its high branch is resampled"
        if len(block.tail) != 1 or type(block.tail[0]) is not nn.BatchNorm2d:
            return "something else than one batch norm follows the branches' sum"
        if isinstance(block.drop_path, DropPath) and block.drop_path.drop_prob:
            return "it drops paths"
    if len(lows) != 1:
        return f"it has {len(lows) + 1} branches"
    return _obstacle_of_low(lows[0])


def _obstacle_of_low(branch: Branch | LowBranch) -> str:
    if branch.scale != 2 or type(branch.down) is not AreaDownsample:
        return "its low branch is not averaged over 2 x 2"
    if type(branch.up) is not Upsample or branch.up.mode != "bilinear":
        return "its low branch is not upsampled bilinearly"
    return ""
