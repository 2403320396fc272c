"""`optimize_for_inference`: the same function as a network's eval mode, in the fastest exact form."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from timm.models.convnext import ConvNeXtBlock
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from elastic_cnn.fast.branches_form import obstacle, walk_top
from elastic_cnn.fast.compiled import compile_for_inference
from elastic_cnn.fast.flow import has_hooks
from elastic_cnn.fast.fold import bake_standardized, fold_norms
from elastic_cnn.fast.gpu import is_on_gpu, use_gpu_kernels
from elastic_cnn.fast.native import native_available, native_where_faster, to_native
from elastic_cnn.fast.other_forms import fold_branches, fold_dense_layer, fold_layer_scale, fold_mlp
from elastic_cnn.fast.prepacked import prepack_convolutions
from elastic_cnn.fast.report import OptimizationReport
from elastic_cnn.fast.residual_form import fold_plain_bottleneck, fold_residual
from elastic_cnn.nn import ElasticBranches
from elastic_cnn.surgery.convnext_block import ElasticMlp
from elastic_cnn.surgery.dense_layer import ElasticDenseLayer
from elastic_cnn.surgery.elasticize import replace_module
from elastic_cnn.surgery.places import input_size
from elastic_cnn.surgery.repvgg_block import ElasticRepVggBlock
from elastic_cnn.surgery.residual import ElasticResidual

# Families in the order in which they are tried; the first that a module belongs to decides its form.
FORMS: tuple[tuple[type[nn.Module], str, Callable[[Any], nn.Module | None]], ...] = (
    (ElasticResidual, "residual block", fold_residual),
    (ElasticDenseLayer, "dense layer", fold_dense_layer),
    (Bottleneck, "squeeze-and-excitation block", fold_plain_bottleneck),
    (ElasticMlp, "perceptron", fold_mlp),
    (ElasticBranches, "branches", fold_branches),
)

Example = Tensor | Sequence[Tensor]


def optimize_for_inference(
    network: nn.Module,
    example: Example | None = None,
    *,
    compile: bool = False,
    prepack: bool = False,
    channels_last: bool = True,
    native: bool | Literal["auto"] = "auto",
) -> nn.Module:
    """A new network with the outputs of `network` in eval mode, in the fastest exact form; `network` is not changed.

    Batch norms are folded into the layers before them, wherever a run of the network shows that nothing else reads what
    lies between; branches of equal resolution are merged; the shortcut joins the enlarged low-resolution map, so that
    the last convolution can add both as it writes. Works for the zoo's networks, for everything `elasticize` makes,
    and for plain networks, so that a base can be compared in like form. Outputs agree to rounding.

    network: any module of images `(N, 3, H, W)`; the result takes every size that it takes.
    example: an input (or several, as a sequence) of the batch and size that matter; by default one image of the size
        that the network was designed for. Its values do not matter.
    compile: also compile it (what the native kernels leave of it), see `compile_for_inference`.
    prepack: float32 on the CPU only: call oneDNN's fused convolutions directly, their weights laid out once. Much of
        what compilation gives, at once and for every size; the result cannot be copied, saved, exported or compiled.
    channels_last: keep the weights, and so the maps, in channels-last memory format.
    native: let native CPU kernels compute the blocks that they know (float32, see `elastic_cnn.fast.native`). "auto"
        does so where they run here and, where an example is given, are faster on it (three calls of either form are
        timed), and says in the report why not elsewhere; True raises `NativeKernelsMissing`; False keeps to PyTorch,
        as an export needs. Where the kernels were not compiled with the package, the first use of a machine compiles
        them (about a minute).

    Returns the new network: in eval mode, without gradients, not meant to be trained or saved, with
    `optimization_report` (an `OptimizationReport`: what was folded and rewritten, what was left and why). Blocks that
    hooks look at and blocks with a blend below 1 keep their plain form and are reported. Raises `ValueError` where the
    network was optimized before, or does not run on the example.
    """
    if getattr(network, "optimization_report", None) is not None:
        raise ValueError("the network is optimized for inference already; start from the network it was made from")
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError("a scripted or traced network cannot be optimized; optimize the module it was made from")
    if native not in (True, False, "auto"):
        raise ValueError(f"native must be True, False or 'auto', got {native!r}")
    if prepack and (compile or native is True):
        raise ValueError("prepack stands alone: ask for it, or for compile or native")
    report = OptimizationReport()
    fast: Any = copy.deepcopy(network)
    fast = _exact_form(fast, example, report)
    if is_on_gpu(fast):
        fused = use_gpu_kernels(fast).fused
        report.notes.append(f"{len(fused)} blocks end in one kernel on the GPU")
    fast.requires_grad_(False)
    if channels_last:
        fast.to(memory_format=torch.channels_last)
    if prepack:
        fast = _prepacked(fast, report)
    fast.optimization_report = report
    if native is True:
        to_native(fast)
    elif native == "auto" and not prepack and native_available(fast):
        fast = native_where_faster(fast, [] if example is None else _examples(fast, example))
    return compile_for_inference(fast) if compile else fast


def _exact_form(network: nn.Module, example: Example | None, report: OptimizationReport) -> nn.Module:
    """The network in eval mode with norms folded and blocks rewritten, changed in place but for its root."""
    training = sum(module.training for module in network.modules())
    if training:
        report.notes.append(f"{training} modules were in training mode; this is the network's eval mode")
    network.eval()
    with torch.no_grad():
        _merge_trained_branches(network, report)
        bake_standardized(network)
        fold_norms(network, _examples(network, example), report)
        return _rewrite(network, report)


def _prepacked(network: nn.Module, report: OptimizationReport) -> nn.Module:
    network, count = prepack_convolutions(network)
    report.notes.append(f"{count} convolutions are packed for oneDNN")
    left = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    if left:
        report.notes.append(f"{left} convolutions are not (another kind, dtype or device, or hooks look at them)")
    return network


def _examples(network: nn.Module, example: Example | None) -> list[Tensor]:
    if isinstance(example, Tensor):
        return [example]
    if example is not None:
        return list(example)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    return [torch.empty(1, *input_size(network), dtype=dtype, device="meta")]


def _merge_trained_branches(network: nn.Module, report: OptimizationReport) -> None:
    """Parallel layers that timm merges after training (RepVGG, MobileOne, LeViT, ...) in that form, in place."""
    for name, module in list(network.named_modules()):
        known = type(module).__module__.startswith("timm.") or isinstance(module, ElasticRepVggBlock)
        if not name or not known or any(map(has_hooks, module.modules())):
            continue
        try:
            if hasattr(module, "fuse"):
                replace_module(network, module, module.fuse())
            elif hasattr(module, "reparameterize"):
                module.reparameterize()
            else:
                continue
            report.rewritten[name] = f"parallel layers of {type(module).__name__}"
        except Exception as error:  # third-party code of many kinds; the layer then stays as it was
            report.left[name] = f"timm could not merge its branches ({type(error).__name__}: {error})"


def _rewrite(network: nn.Module, report: OptimizationReport) -> nn.Module:
    """The network with every elastic block in its family's faster form, changed in place but for its root."""
    for name, block in walk_top(network, (ConvNeXtBlock,)):
        if not obstacle(block) and fold_layer_scale(block):
            report.rewritten[name] = "layer scale"
    for name, block in walk_top(network, tuple(family for family, _, _ in FORMS)):
        if reason := obstacle(block):
            report.left[name] = reason
            continue
        _, kind, fold = next(form for form in FORMS if isinstance(block, form[0]))
        form = fold(block)
        if form is None and isinstance(block, Bottleneck):  # a plain block: its own form is the fastest known
            continue
        if form is None:
            report.left[name] = "branches of parts of the channels, or that share a gate: no faster form is known"
            continue
        report.rewritten[name] = kind
        if block is network:
            return form
        replace_module(network, block, form)
    return network
