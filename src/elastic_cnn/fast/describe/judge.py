"""Judgements that all forms share, each made here alone: what does nothing, what a hook looks at, which convolution,
norm, activation and resampling is exactly the one that a form computes.

Classes are compared by identity: a subclass may compute something else. `require_...` raise `Unsupported`.
"""

from typing import Any

import torch
from timm.layers import BatchNormAct2d, DropBlock2d, DropPath, FrozenBatchNormAct2d, SEModule, SyncBatchNormAct
from timm.layers import activations as timm_activations
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from elastic_cnn.fast.describe.description import BlockDescription, BranchDescription, Layer, Unsupported
from elastic_cnn.nn.resample import AreaDownsample, BilinearDownsample, Upsample

NOTHING_IN_EVAL = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, DropBlock2d, DropPath)
WITH_ACTIVATION = (BatchNormAct2d, SyncBatchNormAct, FrozenBatchNormAct2d)
FIXED_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, FrozenBatchNorm2d, *WITH_ACTIVATION)
ACTIVATIONS = (nn.modules.activation.__name__, timm_activations.__name__)


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Unsupported(otherwise)


def is_exactly(module: Any, *kinds: type[nn.Module]) -> bool:
    """Whether `module` is of one of these very classes, with the class's own forward."""
    return type(module) in kinds and "forward" not in vars(module)


def does_nothing(module: nn.Module | None) -> bool:
    """Whether `module` returns its input in eval mode."""
    return module is None or is_exactly(module, *NOTHING_IN_EVAL)


def is_absent(module: nn.Module | None) -> bool:
    """Whether there is no such layer, in training mode either."""
    return module is None or type(module) is nn.Identity


def has_hooks(module: nn.Module) -> bool:
    """Whether `module` itself carries a hook on its forward or backward pass."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def require_unhooked(module: nn.Module, inside_alone: bool = False) -> None:
    """Nothing looks at `module` or at a layer inside it; with `inside_alone`, hooks on itself may (it is called)."""
    hooked = any(has_hooks(part) for part in module.modules() if not inside_alone or part is not module)
    require(not hooked, "hooks look at it")


def require_unblended(block: BlockDescription) -> None:
    blended = any(branch.blended for branch in block.branches)
    require(not blended, "blend below 1: its low branches still run at full resolution too")


def require_tensors(module: nn.Module, dtype: torch.dtype, device: str) -> None:
    tensors = [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]
    fits = all(tensor.dtype == dtype and tensor.device.type == device for tensor in tensors)
    require(fits, f"its weights are not all {str(dtype).removeprefix('torch.')} on {device.upper()}")


def require_channels(module: nn.Module) -> None:
    """No layer of 0 channels, which no pass computes."""
    require(all(parameter.numel() for parameter in module.parameters()), "a layer has no channels")


def is_norm(module: Any) -> bool:
    """Norms with fixed statistics in eval mode, whose arithmetic is known here."""
    return is_exactly(module, *FIXED_NORMS)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether its role is a batch norm's (`is_norm`: whether its arithmetic is known, too)."""
    return isinstance(module, (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d, FrozenBatchNormAct2d))


def is_any_norm(module: Any) -> bool:
    """Whether its role is a norm's, of whatever kind."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, FrozenBatchNorm2d, FrozenBatchNormAct2d)
    return isinstance(module, kinds)


def is_activation(module: nn.Module) -> bool:
    """Whether its role is an activation's, of whatever function."""
    return type(module).__module__ in ACTIVATIONS


def scale_and_shift(norm: Any, dtype: torch.dtype | None = torch.float64) -> tuple[Tensor, Tensor]:
    """A norm with fixed statistics as `scale * x + shift`, (C,) each, in `dtype` (None: the norm's own)."""
    variance, mean = norm.running_var.to(dtype), norm.running_mean.to(dtype)
    scale = torch.rsqrt(variance + norm.eps)
    if getattr(norm, "weight", None) is not None:
        scale = scale * norm.weight.to(dtype)
    shift = -mean * scale
    if getattr(norm, "bias", None) is not None:
        shift = shift + norm.bias.to(dtype)
    return scale, shift


def require_fixed_norm(norm: Any) -> None:
    require(is_norm(norm), f"a norm is {type(norm).__name__}")
    fixed = getattr(norm, "running_mean", None) is not None and getattr(norm, "running_var", None) is not None
    require(fixed, "a norm without running statistics")


def require_trained_norm(norm: Any) -> None:
    """A plain batch norm that trains its weights and keeps statistics."""
    require(is_exactly(norm, nn.BatchNorm2d), f"a norm is a {type(norm).__name__}, not a BatchNorm2d")
    kept = norm.weight is not None and norm.track_running_stats and norm.running_mean is not None
    require(kept, "a batch norm has no weight or keeps no running statistics")
    require(norm.num_features > 0, "a layer has no channels")


def require_relu(module: Any) -> None:
    require(is_exactly(module, nn.ReLU), f"its activation is {type(module).__name__}")


def is_sigmoid(module: Any) -> bool:
    return is_exactly(module, nn.Sigmoid, timm_activations.Sigmoid)


def require_plain_convolution(conv: Any) -> None:
    require(is_exactly(conv, nn.Conv2d), f"{type(conv).__name__} in place of a convolution")
    require(conv.padding_mode == "zeros" and not isinstance(conv.padding, str), "another padding than with zeros")


def require_convolution(conv: Any, size: int, strides: tuple[int, ...] = (1,), grouped: bool = False) -> None:
    """A plain convolution of `size` x `size`, padded to keep the map's size but for one of `strides`."""
    require_plain_convolution(conv)
    require(conv.kernel_size == (size, size), f"a kernel of {conv.kernel_size} in place of {size} x {size}")
    require(conv.dilation == (1, 1), "a dilated convolution")
    require(conv.padding == (size // 2, size // 2), "another padding")
    require(conv.stride in {(s, s) for s in strides}, f"a stride of {conv.stride} in a {size} x {size} convolution")
    require(grouped or conv.groups == 1, f"a grouped {size} x {size} convolution")


def require_single_layers(branch: BranchDescription, count: int, training: bool = False) -> None:
    """A branch of `count` convolutions with norms and activations between and nothing else."""
    require(len(branch.layers) == count, f"its branches are not {count} convolutions")
    for layer in branch.layers:
        require_nothing_else(layer, training)


def require_nothing_else(layer: Layer, training: bool = False) -> None:
    nothing = is_absent if training else does_nothing
    doing = next((other for other in layer.others if not nothing(other)), None)
    require(doing is None, f"{type(doing).__name__} stands between its layers")


def require_half(branch: BranchDescription, downs: tuple[type[nn.Module], ...] = (AreaDownsample,)) -> None:
    """A branch at half resolution: averaged over 2 x 2 (`downs` may allow bilinear), upsampled bilinearly."""
    require(branch.scale == 2, f"a low resolution of 1/{branch.scale}")
    down: Any = branch.down
    averaged = is_exactly(down, *downs) and down.factor == 2
    require(averaged, f"downsampling by {type(down).__name__}, not averaged over 2 x 2")
    up: Any = branch.up
    bilinear = is_exactly(up, Upsample) and up.mode == "bilinear" and up.factor == 2
    require(bilinear, f"upsampling by {getattr(up, 'mode', type(up).__name__)}, not bilinearly by two")


MEANS_OF_TWO = (AreaDownsample, BilinearDownsample)  # the same at a factor of two


def require_squeeze(gate: Any) -> None:
    """timm's squeeze-and-excitation of two layers, by the means alone."""
    require(is_exactly(gate, SEModule) and not gate.add_maxpool, f"its attention is {type(gate).__name__}")


def bias_of(conv: Any) -> Tensor:
    """The bias (C_out,) of a convolution, zeros where it has none."""
    bias: Tensor = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
    return bias
