"""The training form of a network: the same gradients in fewer passes over memory, on the CPU."""

from timm.models.dla import DlaRoot
from torch import nn

from elastic_cnn.fast import training_ops
from elastic_cnn.fast.describe import Unsupported, describe, is_block
from elastic_cnn.fast.describe.judge import is_batch_norm, require
from elastic_cnn.fast.forms import FoldedElasticBottleneck
from elastic_cnn.fast.report import FormReport
from elastic_cnn.fast.training_blocks import TrainingForm, training_class


def optimize_for_training(network: nn.Module) -> FormReport:
    """Let the blocks of `network` compute in fused native passes while they train, in place; returns what was done.

    Parameters, buffers and their names stay the very same objects: optimizers, averages, checkpoints and resumed runs
    notice nothing, and `plain_form` undoes it. Outputs, gradients and running statistics are those of the plain form
    but for the order of sums. The passes serve float32 (and float64) training on the CPU with channels_last maps, and
    bfloat16 under autocast where the processor has AVX-512 BF16; in evaluation, on other devices, in float16, under
    `torch.compile`, with frozen norms, hooks inside a block, or while branches are blended, a block computes as it
    always did and says so (`why_plain`). Where the native kernels cannot be had nothing changes, and the report says
    why. Gradients of gradients are not offered.
    """
    report = FormReport(reason=training_ops.unavailable())
    for name, module in network.named_modules():
        if isinstance(module, TrainingForm):
            report.rewritten[name] = module.plain_class.__name__
            continue
        try:
            if _can_train(module):
                kind = type(module).__name__
                require(not report.reason, "the native passes cannot run")
                _convert(module)
                report.rewritten[name] = kind
        except Unsupported as error:
            report.left[name] = str(error)
    return report


def _can_train(module: nn.Module) -> bool:
    """Whether `module` is of a kind that has a training form: residual blocks, DLA's roots, sequences with norms.
    `Unsupported` for a class that extends one."""
    if type(module) is nn.Sequential:
        return any(is_batch_norm(child) for child in module)
    if not is_block(module) or isinstance(module, FoldedElasticBottleneck):
        return False
    block = describe(module)
    return isinstance(module, DlaRoot) or (block.adds_input and block.inputs != "maps")


def _convert(module: nn.Module) -> None:
    """Give `module` the training form. `Unsupported` says why it stays as it was."""
    kind: type[nn.Module] = type(module)
    module.__class__ = training_class(kind)
    try:
        module.read_layers()  # type: ignore[operator]
    except Unsupported:
        module.__class__ = kind
        raise


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
