"""A network that computes in bfloat16 and is called as before: inputs and outputs keep their precision."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from elastic_cnn.fast.verify import Check, call_unhooked
from elastic_cnn.nn.compare import TOLERANCES, relative_error
from elastic_cnn.nn.example import Example, make_tensor
from elastic_cnn.nn.trial import call, copy_module, copy_structure


class InBfloat16(nn.Module):
    """Mixed in before a network's own class: inputs become bfloat16, outputs the dtype that the inputs had."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = next((t.dtype for t in tree_leaves((args, kwargs)) if _is_floating(t)), torch.float32)
        args, kwargs = _cast((args, kwargs), torch.bfloat16)
        return _cast(super().forward(*args, **kwargs), given)


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _cast(values: Any, dtype: torch.dtype) -> Any:
    return tree_map(lambda value: value.to(dtype) if _is_floating(value) else value, values)


def to_bfloat16(network: nn.Module) -> nn.Module:
    """Let `network` compute in bfloat16, in place; native blocks keep the weights that they packed for it."""
    network.to(torch.bfloat16)
    kind = type(network)
    network.__class__ = type(kind.__name__, (InBfloat16, kind), {"__module__": kind.__module__})
    return network


def check_in_bfloat16(plain: nn.Module, example: Example) -> Check:
    """A network that computes in bfloat16 is compared with `plain` in its own precision, on the example.

    Allowed are bfloat16's tolerance and twice the error that PyTorch's own layers have in bfloat16.
    """
    if any(tensor.is_meta for tensor in example.tensors()):
        example = example.map(lambda tensor: make_tensor(tensor.shape, tensor.dtype))
    base = copy_structure(plain)
    expected = call(base, example)
    usual = relative_error(call(to_bfloat16(copy_module(base)), example), expected)
    most = max(TOLERANCES[torch.bfloat16], 2 * usual)

    def check(network: nn.Module) -> str:
        try:
            error = relative_error(call_unhooked(network, example), expected)
        except Exception as failure:  # of any network whatsoever
            return f"{type(failure).__name__}: {' '.join(str(failure).split())[:160]}"
        return "" if error <= most else f"relative error {error:.1e} in bfloat16, {usual:.1e} in PyTorch's own form"

    return check


def converted(check: Check) -> Check:
    """The same check of what a network becomes in bfloat16."""
    return lambda network: check(to_bfloat16(copy_module(network)))
