"""The recipe's key `fused`: whether blocks train in fused native passes (`optimize_for_training`)."""

import torch

from elastic_cnn.fast import FormReport, optimize_for_training, training_ops
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.strict import concerning


def excluded(recipe: Recipe) -> str:
    """Why a run by this recipe trains in the plain form on any processor, empty where it need not."""
    if recipe.fused == "never":
        return "fused=never"
    if recipe.precision not in ("fp32", "bf16-mixed"):
        return f"the native passes compute fp32 and bf16-mixed, the recipe asks for precision={recipe.precision}"
    if not recipe.channels_last:
        return "the native passes need channels_last=true"
    return "the recipe compiles the network" if recipe.compile else ""


def obstacle(recipe: Recipe, device: torch.device) -> str:
    """Why a run by this recipe trains in the plain form here, empty where it need not."""
    if reason := excluded(recipe):
        return reason
    if device.type != "cpu":
        return f"the native passes are for the CPU, the run is on {device.type}"
    if recipe.precision == "bf16-mixed" and not training_ops.bf16_level():
        return f"precision=bf16-mixed: {training_ops.unavailable() or 'this processor has no AVX-512 BF16'}"
    return ""


@concerning("fused")
def use_training_form(recipe: Recipe, network: torch.nn.Module, device: torch.device) -> str:
    """Bring `network` into its training form, in place, where the recipe allows; returns what was done, in words.

    Empty where the recipe does not lead there, or no block has such a form (by `fused: auto` alone, nothing is missed).
    `fused: always` names each block that trains as it is, and why; `ValueError` where all do.
    """
    reason = obstacle(recipe, device)
    report = FormReport(reason=reason) if reason else optimize_for_training(network)
    if recipe.fused == "always" and not report.fused:
        raise ValueError(f"fused=always, but no block can train in fused passes: {report.reason or report}")
    if reason:
        return ""
    return str(report) if recipe.fused == "always" else _in_short(report)


def _in_short(report: FormReport) -> str:
    """The report as somebody who trains wants it: how much gains, and what that means."""
    if report.reason:
        return f"all blocks train in the plain form, which is slower: {report.reason} (see `elastic doctor`)"
    fused, count = len(report.fused), len(report.fused) + len(report.plain)
    if not fused:
        return ""
    others = ", the others as they are (fused=always says why)" if fused < count else ""
    return f"{fused} of {count} blocks and shortcuts train in the fused form, the same computation in less time{others}"
