"""Elastic blocks on GPUs: everything after the last convolutions in one Triton kernel, in inference and in training.

A residual block of two branches ends in upsample, add, norm, shortcut, ReLU, and the next elastic block begins by
pooling what the ReLU wrote. On a GPU these are bound by memory: one by one they move the widest map of the block about
eleven times, in one kernel three (read the high branch and the shortcut, write the result; the pooled map and the low
branch are a quarter as large). Elsewhere than on CUDA the blocks compute their plain form.

`use_gpu_kernels` changes classes alone: parameters, buffers and their names stay the same objects.
"""

from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn

from elastic_cnn.fast.describe import BlockDescription, Unsupported, describe
from elastic_cnn.fast.describe.judge import (
    does_nothing,
    has_hooks,
    is_absent,
    is_exactly,
    require,
    require_half,
    require_plain_convolution,
    require_relu,
    require_unblended,
    require_unhooked,
    scale_and_shift,
)
from elastic_cnn.fast.forms import FoldedElasticBottleneck
from elastic_cnn.fast.report import FormReport
from elastic_cnn.fast.rewrite import Change, Root
from elastic_cnn.kernels.triton import area_pool, elastic_tail, elastic_tail_train, serves
from elastic_cnn.surgery.dla_block import ElasticDlaBlock
from elastic_cnn.surgery.residual import ElasticResidual

GPU_FORM = "block that ends in one kernel on the GPU"


class GpuResidual(ElasticResidual):
    """`ElasticResidual` of two branches with a batch norm after their sum; in training and in evaluation."""

    plain_class: ClassVar[type[nn.Module]] = ElasticResidual

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, None, False)[0]

    def run(self, x: Tensor, pooled: Tensor | None, pool: bool) -> tuple[Tensor, Tensor | None]:
        """The block's output and, with `pool` and where it is free, its 2 x 2 mean; `pooled`: that of `x`, if known."""
        if not serves(x) or blends(self):
            return ElasticResidual.forward(self, x), None
        return run_tail(self, x, x if self.shortcut is None else self.shortcut(x), pooled, pool)


class GpuDlaBlock(ElasticDlaBlock):
    """`ElasticDlaBlock`, likewise; DLA's trees compute its shortcut, and no block's output goes to one block alone."""

    plain_class: ClassVar[type[nn.Module]] = ElasticDlaBlock

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
    """Branches by library convolutions, the rest by one kernel; `_require_kernels` has checked the block."""
    high = block.branches.high.transform(x)  # (N, C, H, W)
    low = block.branches.low[0].transform(area_pool(x) if pooled is None else pooled)  # (N, C, ceil(H/2), ceil(W/2))
    norm = block.tail[0]
    if norm.training or norm.running_mean is None:
        return elastic_tail_train(high, low, norm, shortcut, True, pool)
    scale, bias = scale_and_shift(norm, None)  # a few numbers a channel
    return elastic_tail(high, low, scale, bias, shortcut, True, pool)


class GpuBottleneck(FoldedElasticBottleneck):
    """`FoldedElasticBottleneck` of two branches: norms are folded, and the last convolution's bias joins the kernel."""

    plain_class: ClassVar[type[nn.Module]] = FoldedElasticBottleneck

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


GPU_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    ElasticResidual: GpuResidual,
    ElasticDlaBlock: GpuDlaBlock,
    FoldedElasticBottleneck: GpuBottleneck,
}


def is_on_gpu(network: nn.Module) -> bool:
    """Whether any parameter of `network` lies on a CUDA device."""
    return any(parameter.is_cuda for parameter in network.parameters())


def use_gpu_kernels(network: nn.Module) -> FormReport:
    """Let elastic residual blocks of `network` run fused kernels on CUDA, in place; elsewhere they compute as before.

    Takes plain networks, for training and evaluation, and those of `optimize_for_inference`. Parameters, buffers and
    their names stay the same objects, and the function is the same to rounding (sums are float32 in every dtype, so in
    bfloat16 it rounds less often). Hooks on a block's inner `branches`, `tail` or `act` would not run: blocks that have
    some are left, and so are those of other scales, resamplings, norms or activations than the kernels compute.
    """
    report = FormReport()
    changes = gpu_blocks(Root(network), report)
    report.rewritten |= {change.name: change.form for change in changes if change.table}
    handing_over = [change.name for change in changes if not change.table]
    if handing_over:
        report.notes.append(f"a block hands the next one its pooled map in {', '.join(handing_over)}")
    return report


def gpu_blocks(root: Root, report: FormReport) -> list[Change]:
    """Every block that the kernels compute in its form for the GPU, and the sequences that they stand in."""
    changes = []
    for name, module in root.network.named_modules():
        if type(module) not in GPU_CLASSES:
            continue
        try:
            _require_kernels(describe(module))
        except Unsupported as reason:
            report.left[name] = str(reason)
            continue
        changes.append(Change(name, GPU_FORM))
        changes[-1].set_class(module, GPU_CLASSES[type(module)])
    for name, module in root.network.named_modules():
        if type(module) is nn.Sequential and _hands_over(module):
            changes.append(Change(name, "sequence that hands on pooled maps", None))
            changes[-1].set_class(module, PoolHandingSequential)
    return changes


def _hands_over(sequence: nn.Sequential) -> bool:
    kinds = [isinstance(layer, (GpuResidual, GpuBottleneck)) for layer in sequence]
    return not any(map(has_hooks, sequence)) and any(a and b for a, b in pairwise(kinds))


def _require_kernels(block: BlockDescription) -> None:
    """`Unsupported` says why the kernels do not compute this block."""
    require_unhooked(block.module)
    require_unblended(block)
    require_relu(block.act)
    require(is_absent(block.high.up) and is_absent(block.high.down), "its high branch is resampled")
    if isinstance(block.module, FoldedElasticBottleneck):
        require(not block.after, "something follows its branches' sum")
        last = block.high.layers[-1]
        require_plain_convolution(last.conv)
        require(last.norm is last.act is None and not last.others, "its high branch does not end in a convolution")
    else:
        norms = [module for _, module in block.after if not does_nothing(module)]
        one = len(norms) == 1 and is_exactly(norms[0], nn.BatchNorm2d)
        require(one, "something else than one batch norm follows the branches' sum")
        require(not getattr(block.drop_path, "drop_prob", block.drop_path), "it drops paths")
    require(len(block.low) == 1, f"it has {len(block.branches)} branches")
    require_half(block.low[0])
