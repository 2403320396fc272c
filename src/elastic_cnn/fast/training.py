"""The training form of a network: the same gradients in fewer passes over memory, on the CPU."""

from torch import nn

from elastic_cnn.fast import training_ops
from elastic_cnn.fast.describe import Unsupported, is_block
from elastic_cnn.fast.describe.judge import is_batch_norm
from elastic_cnn.fast.report import FormReport
from elastic_cnn.fast.training_blocks import TRAINING_CLASSES, TrainingForm


def optimize_for_training(network: nn.Module) -> FormReport:
    """Let the blocks of `network` compute in fused native passes while they train, in place; returns what was done.

    Parameters, buffers and their names stay the very same objects: optimizers, averages, checkpoints and resumed runs
    notice nothing, and `plain_form` undoes it. Outputs, gradients and running statistics are those of the plain form
    but for the order of sums. The passes serve float32 (and float64) training on the CPU with channels_last maps; in
    evaluation, on other devices, in half precision, under autocast or `torch.compile`, with frozen norms, hooks inside
    a block, or while branches are blended, a block computes as it always did and says so (`why_plain`). Where the
    native kernels cannot be had nothing changes, and the report says why. Gradients of gradients are not offered.
    """
    report = FormReport(reason=training_ops.unavailable())
    for name, module in network.named_modules():
        if isinstance(module, TrainingForm):
            report.rewritten[name] = module.plain_class.__name__
        elif type(module) in TRAINING_CLASSES and (type(module) is not nn.Sequential or _has_norm(module)):
            _convert(name, module, report)
        elif is_block(module) and isinstance(module, tuple(TRAINING_CLASSES)):
            report.left[name] = f"{type(module).__name__} may compute something else than what it extends"
    return report


def _has_norm(module: nn.Module) -> bool:
    return any(is_batch_norm(child) for child in module.children())


def _convert(name: str, module: nn.Module, report: FormReport) -> None:
    kind: type[nn.Module] = type(module)
    if report.reason:
        report.left[name] = "the native passes cannot run"
        return
    module.__class__ = TRAINING_CLASSES[kind]
    try:
        module.read_layers()  # type: ignore[operator]
        report.rewritten[name] = kind.__name__
    except Unsupported as error:
        module.__class__ = kind
        report.left[name] = str(error)


def plain_form(network: nn.Module) -> nn.Module:
    """Undo `optimize_for_training`, in place; returns `network`."""
    for module in network.modules():
        if isinstance(module, TrainingForm):
            module.__dict__.pop("plain_because", None)
            module.__class__ = module.plain_class  # type: ignore[assignment]
    return network


def why_plain(network: nn.Module) -> dict[str, str]:
    """{name of a block in the training form: why its latest call computed in the plain form}; empty where none did."""
    return {
        name: module.plain_because
        for name, module in network.named_modules()
        if isinstance(module, TrainingForm) and module.plain_because
    }
