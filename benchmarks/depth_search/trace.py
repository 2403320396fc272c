"""What a network's forward pass, or training step, runs: every operator with its FLOPs, bytes and place in the network.

Traced on the meta device: nothing is computed, and any batch fits.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

FREE = ("detach", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "zeros_like", "t", "view")

FOLDED_NORM = "folded_norm"  # a batch norm in evaluation: a few numbers a channel, which a convolution can take in


@dataclass(frozen=True)
class Op:
    """One operator call.

    name: aten's, or `FOLDED_NORM`. place: the innermost module that ran it ("" outside all). kind: `pointwise`,
    `grouped` or `dense` for convolutions (1x1; in groups; others), `matmul`, or "" for what has no FLOPs to speak of.
    flops: two a multiply-add.
    inputs, outputs: {tensor: bytes}, tensors numbered by their storage; weights: the inputs that are parameters.
    """

    name: str
    place: str
    kind: str
    flops: int
    inputs: dict[int, int]
    outputs: dict[int, int]
    weights: frozenset[int]


class _Recorder(TorchDispatchMode):
    def __init__(self, weights: set[int]):
        super().__init__()
        self.ops: list[Op] = []
        self.places: list[str] = [""]
        self.weights = weights
        self.kept: list[Any] = []  # so that no storage's address is used again
        self.numbers: dict[int, int] = {}

    def number(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.numbers:
            self.kept.append(storage)
            self.numbers[storage._cdata] = len(self.numbers)
        return self.numbers[storage._cdata]

    def sizes(self, values: Any) -> dict[int, int]:
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        return {self.number(tensor): tensor.numel() * tensor.element_size() for tensor in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = written = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        name = packet.__name__
        if func.is_view or name.rstrip("_") in FREE:
            return result
        if "batch_norm" in name and "backward" not in name and args[5] is False:  # no statistics of this batch
            name, args, kwargs, written = FOLDED_NORM, args[:1], None, result[0]
        flops = int(flop_registry[packet](*args, **(kwargs or {}), out_val=result)) if packet in flop_registry else 0
        if name == "convolution_backward":
            flops = _backward_flops(args)
        inputs = self.sizes((args, kwargs))
        weights = frozenset(inputs) & frozenset(
            self.number(leaf) for leaf in _tensors(args) if id(leaf) in self.weights
        )
        kind = _kind(name, args)
        self.ops.append(Op(name, self.places[-1], kind, flops, inputs, self.sizes(written), weights))
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _backward_flops(args: Any) -> int:
    """Of a convolution's gradients: the forward pass's for each of input and weight that has one.

    torch's own formula takes the weight's gradient for one of a convolution without groups.
    """
    gradient, weight, transposed, mask = args[0], args[2], args[7], args[10]
    maps = args[1] if transposed else gradient
    return 2 * maps.numel() * weight[0].numel() * (int(mask[0]) + int(mask[1]))


def _kind(name: str, args: Any) -> str:
    if name == "convolution":
        weight, groups = args[1], args[8]
    elif name == "convolution_backward":
        weight, groups = args[2], args[9]
    else:
        return "matmul" if name in ("addmm", "mm", "bmm") else ""
    if groups > 1:
        return "grouped"
    return "pointwise" if weight.shape[-1] == weight.shape[-2] == 1 else "dense"


def trace(
    network: nn.Module,
    size: Sequence[int] = (3, 224, 224),
    batch: int = 1,
    train: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[Op]:
    """The operators of one forward pass in eval mode or, with `train`, of a forward and backward pass.

    `ValueError` for a network that does not run on the meta device.
    """
    meta = copy.deepcopy(network).to("meta", dtype).train(train)
    recorder = _Recorder({id(parameter) for parameter in meta.parameters()})
    for name, module in meta.named_modules():
        module.register_forward_pre_hook(partial(_enter, recorder.places, name))
        module.register_forward_hook(partial(_leave, recorder.places), always_call=True)
    images = torch.empty(batch, *size, device="meta", dtype=dtype)
    try:
        with torch.set_grad_enabled(train), recorder:
            output = meta(images)
            if train:
                _attribute_backward(output, recorder)
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{type(network).__name__} does not run on images of {tuple(size)}: {error}") from error
    return recorder.ops


def _enter(places: list[str], name: str, *_: Any) -> None:
    places.append(name)


def _leave(places: list[str], *_: Any) -> None:
    places.pop()


def _attribute_backward(output: Tensor, recorder: _Recorder) -> None:
    """Run the backward pass; its operators stand in the places of those whose outputs they differentiate, by order."""
    before = len(recorder.ops)
    output.sum().backward()
    places = {number: op.place for op in recorder.ops[:before] for number in op.outputs}
    for index in range(before, len(recorder.ops)):
        op = recorder.ops[index]
        known = [places[number] for number in op.inputs if number in places]
        place = known[-1] if known else (recorder.ops[index - 1].place if index > before else "")
        recorder.ops[index] = Op(op.name, place, op.kind, op.flops, op.inputs, op.outputs, op.weights)
