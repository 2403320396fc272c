"""`optimize_for_inference`: the same function as a network's eval mode, in the fastest exact form."""

from typing import Any, Literal

import torch
from torch import nn

from elastic_cnn.fast.bfloat16 import check_in_bfloat16, converted, to_bfloat16
from elastic_cnn.fast.compiled import compile_for_inference
from elastic_cnn.fast.describe import Unsupported, describe, is_block
from elastic_cnn.fast.describe.judge import is_exactly, require_unhooked
from elastic_cnn.fast.fold import bake_standardized, fold_layer_scale, fold_norms
from elastic_cnn.fast.gpu import GPU_FORM, gpu_blocks, is_on_gpu
from elastic_cnn.fast.native import least_seconds, make_native, native_available
from elastic_cnn.fast.report import FormReport
from elastic_cnn.fast.rewrite import Change, Root
from elastic_cnn.fast.torch_form import fold_block
from elastic_cnn.fast.training import plain_form
from elastic_cnn.fast.verify import Check, Step, apply_steps, check_outputs, nothing_checked
from elastic_cnn.nn.example import Example, placement
from elastic_cnn.nn.trial import copy_module, run_trial
from elastic_cnn.surgery.repvgg_block import ElasticRepVggBlock


def optimize_for_inference(
    network: nn.Module,
    example: Any = None,
    *,
    compile: bool = False,
    channels_last: bool = True,
    native: bool | Literal["auto"] = "auto",
    dtype: torch.dtype | Literal["auto"] | None = None,
    verify: bool = True,
) -> nn.Module:
    """A new network with the outputs of `network` in eval mode, in the fastest exact form; `network` is not changed.

    Batch norms are folded into the layers before them, wherever a run of the network shows that nothing else reads what
    lies between; branches of equal resolution are merged; the shortcut joins the enlarged low-resolution map, so that
    the last convolution can add both as it writes. Works for the zoo's networks, for everything `elasticize` makes,
    and for plain networks, so that a base can be compared in like form. Outputs agree to rounding.

    network: any module; the result takes every size that it takes.
    example: an input of the batch and size that matter: a tensor, a tuple of the network's arguments, a dict of them by
        name, or a list of images where the network takes such a list. By default one image of the size that the network
        was designed for.
    compile: also compile it (what the native kernels leave of it), see `compile_for_inference`.
    channels_last: keep the weights, and so the maps, in channels-last memory format, where the network runs so.
    native: let native CPU kernels compute the blocks that they know (see `elastic_cnn.fast.native`). "auto"
        does so where they run here and, where an example is given, are faster on it (three calls of either form are
        timed), and says in the report why not elsewhere; True raises `NativeKernelsMissing`; False keeps to PyTorch,
        as an export needs. Where the kernels were not compiled with the package, the first use of a machine compiles
        them (about a minute).
    dtype: torch.bfloat16 computes in bfloat16 (sums in float32, weights rounded once), as a network that is in bfloat16
        already is computed anyway; inputs and outputs keep their dtype. "auto" takes the faster of float32 and
        bfloat16 on the example, where bfloat16's outputs differ by at most 6% of the largest, or twice the difference
        that PyTorch's own bfloat16 makes. Native kernels for bfloat16 need AVX-512 BF16.
    verify: run the result and `network` once on the example and compare the outputs; where they differ by more than
        rounding, or the result does not run, the form at fault is put back and reported, never returned.

    Returns the new network: in eval mode, without gradients, not meant to be trained or saved, with
    `optimization_report` (a `FormReport`: what was folded and rewritten, what was left and why). Blocks that hooks
    look at and blocks with a blend below 1 keep their plain form and are reported. Hooks do not fire meanwhile. Raises
    `ValueError` where the network was optimized before, cannot be copied, or does not run on the example.
    """
    if getattr(network, "optimization_report", None) is not None:
        raise ValueError("the network is optimized for inference already; start from the network it was made from")
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError("a scripted or traced network cannot be optimized; optimize the module it was made from")
    if native not in (True, False, "auto"):
        raise ValueError(f"native must be True, False or 'auto', got {native!r}")
    if dtype == "auto":
        return _in_faster_dtype(network, example, compile=compile, channels_last=channels_last, native=native)
    maps = _dtype_of_maps(network, dtype)
    in_bfloat16 = maps == torch.bfloat16
    plain = copy_module(network).float() if in_bfloat16 and placement(network)[1] != torch.float32 else network
    verify = verify and placement(network)[0].type != "meta"
    used, expected = run_trial(plain, example, meta=not verify)
    root = Root(plain_form(copy_module(plain)))
    notes = _to_eval(root.network)
    check: Check = check_outputs(plain, used, expected) if verify else nothing_checked
    with torch.no_grad():
        report, _ = apply_steps(root, _steps(used, channels_last, is_on_gpu(root.network)), check)
    report.notes += notes
    if on_gpu := sum(form == GPU_FORM for form in report.rewritten.values()):
        report.notes.append(f"{on_gpu} blocks end in one kernel on the GPU")
    fast: Any = root.network
    fast.requires_grad_(False)
    if in_bfloat16 and verify:
        check = converted(check_in_bfloat16(plain, used))
    if native is True or (native == "auto" and not (reason := native_available(fast, maps))):
        timed = native == "auto" and not in_bfloat16 and _has_values(used, example)
        fast = make_native(root, report, check, used if timed else None, maps)
    elif native == "auto":
        report.notes.append(reason)
    if in_bfloat16:
        fast = to_bfloat16(fast)
        report.notes.append("computes in bfloat16; inputs and outputs keep their dtype")
    fast.optimization_report = report
    return compile_for_inference(fast) if compile else fast


def _dtype_of_maps(network: nn.Module, dtype: torch.dtype | None) -> torch.dtype:
    """float32, or bfloat16 where the network is in it or is to be. `ValueError` for another dtype than these."""
    own = placement(network)[1]
    if dtype not in (None, own, torch.bfloat16) or (dtype == torch.bfloat16 and own not in (dtype, torch.float32)):
        raise ValueError(f"dtype must be torch.bfloat16, 'auto' or the network's own ({own}), got {dtype!r}")
    return torch.bfloat16 if torch.bfloat16 in (dtype, own) else torch.float32


def _has_values(used: Example, example: Any) -> bool:
    """Whether an example was given whose values a network can be run on."""
    return example is not None and all(tensor.device.type != "meta" for tensor in used.tensors())


def _in_faster_dtype(network: nn.Module, example: Any, **options: Any) -> nn.Module:
    """The form in the network's own precision or that in bfloat16, whichever is faster on the example."""
    used, _ = run_trial(network, example)
    if not _has_values(used, example):
        raise ValueError('dtype="auto" measures both precisions: give an example of the batch and size that matter')
    own: Any = optimize_for_inference(network, example, **options)
    if placement(network)[1] != torch.float32:
        return own
    half: Any = optimize_for_inference(network, example, dtype=torch.bfloat16, **options)
    problem = check_in_bfloat16(network, used)(half)
    seconds = [least_seconds(form, used) for form in (own, half)]
    took = f"bfloat16 took {1e3 * seconds[1]:.3g} ms on {used}, float32 {1e3 * seconds[0]:.3g} ms"
    chosen = own if problem or seconds[0] <= seconds[1] else half
    chosen.optimization_report.notes.append(f"{took}{f'; not taken: {problem}' if problem else ''}")
    return chosen


def _to_eval(network: nn.Module) -> list[str]:
    """Put `network` into eval mode; what is to be said of it."""
    training = sum(module.training for module in network.modules())
    network.eval()
    return [f"{training} modules were in training mode; this is the network's eval mode"] if training else []


def _steps(example: Example, channels_last: bool, on_gpu: bool) -> list[Step]:
    """What is done to a network in eval mode, in this order."""

    def fold(root: Root, report: FormReport) -> list[Change]:
        return fold_norms(root, example, report)

    steps: list[Step] = [_merge_trained_branches, bake_standardized, fold, _fold_blocks]
    return [*steps, *([gpu_blocks] if on_gpu else []), *([_channels_last] if channels_last else [])]


def _merge_trained_branches(root: Root, report: FormReport) -> list[Change]:
    """Parallel layers that timm merges after training (RepVGG, MobileOne, LeViT, ...) in that form."""
    changes, done = [], [" "]
    for name, module in list(root.network.named_modules()):
        known = type(module).__module__.startswith("timm.") or is_exactly(module, ElasticRepVggBlock)
        merges = hasattr(module, "fuse") or hasattr(module, "reparameterize")
        if not name or not known or not merges or name.startswith(tuple(done)):
            continue
        try:
            require_unhooked(module)
            merged: Any = copy_module(module)
            if hasattr(module, "fuse"):
                merged = merged.fuse()
            else:
                merged.reparameterize()
        except Exception as error:  # third-party code of many kinds; the layer then stays as it was
            report.left[name] = f"timm could not merge its branches ({type(error).__name__}: {error})"
            continue
        changes.append(Change(name, f"parallel layers of {type(module).__name__}"))
        changes[-1].replace(root, module, merged)
        done.append(f"{name}.")
    return changes


def _fold_blocks(root: Root, report: FormReport) -> list[Change]:
    """Every block that a faster form is known for in that form, none inside another."""
    changes, done = [], [" "]
    for name, module in list(root.network.named_modules()):
        if name.startswith(tuple(done)):
            continue
        try:
            change = fold_layer_scale(name, module)
            block = describe(module) if is_block(module) else None
        except Unsupported as reason:
            report.left[name] = str(reason)
            continue
        if change is not None:
            changes.append(change)
        if block is None:
            continue
        try:
            form = fold_block(block)
        except Unsupported as reason:
            report.left[name] = str(reason)
            done.append(f"{name}." if name else "")
            continue
        if form is not None:
            changes.append(Change(name, block.kind))
            changes[-1].replace(root, module, form)
            done.append(f"{name}." if name else "")
    return changes


def _channels_last(root: Root, report: FormReport) -> list[Change]:
    """Weights, and so maps, in channels-last memory format."""
    change = Change("", "channels-last maps", None)
    change.set_format(root.network, torch.channels_last)
    return [change]
