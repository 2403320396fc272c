"""The training form of a network: the same gradients in fewer passes over memory, on the CPU."""

from collections import Counter
from dataclasses import dataclass, field

from torch import nn

from elastic_cnn.fast import training_ops
from elastic_cnn.fast.training_blocks import FORMS, TrainingForm, Unsupported


@dataclass
class TrainingReport:
    """Which blocks of a network compute in fused passes. `str()` prints it for people.

    fused: {name of a block: its kind}. plain: {name of a block that could have a form: why it has none}.
    reason: why no block has one, empty where the native passes can run.
    """

    fused: dict[str, str] = field(default_factory=dict)
    plain: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(self.fused.values()).items()) or "none"
        lines = [f"blocks in the training form: {kinds}" + (f" ({self.reason})" if self.reason else "")]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.plain.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            lines.append(f"  plain, {reason}: {shown}")
        return "\n".join(lines)


def optimize_for_training(network: nn.Module) -> TrainingReport:
    """Let the blocks of `network` compute in fused native passes while they train, in place; returns what was done.

    Parameters, buffers and their names stay the very same objects: optimizers, averages, checkpoints and resumed runs
    notice nothing, and `plain_form` undoes it. Outputs, gradients and running statistics are those of the plain form
    but for the order of sums. The passes serve float32 (and float64) training on the CPU with channels_last maps; in
    evaluation, on other devices, in half precision, under autocast or `torch.compile`, with frozen norms, hooks inside
    a block, or while branches are blended, a block computes as it always did and says so (`why_plain`). Where the
    native kernels cannot be had nothing changes, and the report says why. Gradients of gradients are not offered.
    """
    report = TrainingReport(reason=training_ops.unavailable())
    for name, module in network.named_modules():
        form = FORMS.get(type(module))
        if isinstance(module, TrainingForm):
            report.fused[name] = type(module).__mro__[2].__name__
        elif form is not None and (form is not FORMS[nn.Sequential] or _has_norm(module)):
            _convert(name, module, form, report)
    return report


def _has_norm(module: nn.Module) -> bool:
    return any(type(child) is nn.BatchNorm2d for child in module.children())


def _convert(name: str, module: nn.Module, form: type[TrainingForm], report: TrainingReport) -> None:
    kind = type(module).__name__
    if report.reason:
        report.plain[name] = "the native passes cannot run"
        return
    module.__class__ = form
    try:
        module.read_layers()  # type: ignore[operator]
        report.fused[name] = kind
    except Unsupported as error:
        module.__class__ = form.__mro__[2]
        report.plain[name] = str(error)


def plain_form(network: nn.Module) -> nn.Module:
    """Undo `optimize_for_training`, in place; returns `network`."""
    for module in network.modules():
        if isinstance(module, TrainingForm):
            module.__dict__.pop("plain_because", None)
            module.__class__ = type(module).__mro__[2]
    return network


def why_plain(network: nn.Module) -> dict[str, str]:
    """{name of a block in the training form: why its latest call computed in the plain form}; empty where none did."""
    return {
        name: module.plain_because
        for name, module in network.named_modules()
        if isinstance(module, TrainingForm) and module.plain_because
    }
