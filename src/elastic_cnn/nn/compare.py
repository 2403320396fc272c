"""Whether two networks compute the same: their outputs on one example, within what rounding explains.

Rounding grows with depth and with norms over few numbers, so a difference in single or half precision is looked at
again in double precision, where a fault stays as large as it is and rounding all but vanishes.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.nn.example import Example, placement
from elastic_cnn.nn.trial import call

# The largest |a - b| over the largest |b| that is taken for rounding; a fault in a layer moves outputs by 1e-2 and more
TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
LOOSE = 1e-2  # where double precision cannot run: float32 through a hundred layers stays below


@dataclasses.dataclass(frozen=True)
class Comparison:
    """error: relative, infinite where outputs differ in number or shape. problem: what is wrong, or nothing."""

    error: float
    problem: str = ""

    def __bool__(self) -> bool:
        return not self.problem


def output_tensors(value: Any) -> list[Tensor]:
    """Every tensor in what a network returned: in tuples, lists, dicts, dataclasses and objects with `to_tuple`."""
    if isinstance(value, Tensor):
        return [value]
    if hasattr(value, "to_tuple"):
        value = value.to_tuple()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, entry.name) for entry in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in output_tensors(item)]
    return []


def require_finite(outputs: Any, whose: object = "the network") -> None:
    """`ValueError` where outputs hold NaN or infinities, of which the best class says nothing; whose: the network."""
    if not all(bool(tensor.isfinite().all()) for tensor in output_tensors(outputs)):
        raise ValueError(
            f"the answers of {whose} are not finite: weights are too large or broken, or the precision is too low; "
            "take an earlier checkpoint"
        )


def relative_error(found: Any, expected: Any) -> float:
    """The largest difference of any tensor over that tensor's largest number; infinite where number, shape or the
    places of NaN and infinities differ. Where the expected tensor is all zeros, the difference itself.
    """
    ours, theirs = output_tensors(found), output_tensors(expected)
    if len(ours) != len(theirs):
        return math.inf
    return max((_tensor_error(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _tensor_error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape or found.device.type == "meta" or expected.device.type == "meta":
        return math.inf if found.shape != expected.shape else 0.0
    if not found.is_floating_point() or not expected.is_floating_point():
        return 0.0 if torch.equal(found, expected) else math.inf
    a, b = found.detach().double(), expected.detach().double()
    finite = b.isfinite()
    if not torch.equal(a.isfinite(), finite) or not torch.equal(a[~finite].isnan(), b[~finite].isnan()):
        return math.inf
    a, b = a[finite], b[finite]
    if not a.numel():
        return 0.0
    size = float(b.abs().max())
    return float((a - b).abs().max()) / (size or 1.0)


def compare(other: nn.Module, base: nn.Module, example: Example, expected: Any = None) -> Comparison:
    """Whether `other` gives the outputs of `base` on the example; both are copies made to be run (`copy_structure`).

    expected: the outputs of `base`, where they are known already.
    """
    dtype = placement(base)[1]
    try:
        expected = call(base, example) if expected is None else expected
    except Exception as failure:  # of any network whatsoever: nothing can be said
        return Comparison(math.nan, f"the network does not run: {_text(failure)}")
    try:
        error = relative_error(call(other, example), expected)
    except Exception as failure:
        return Comparison(math.inf, _text(failure))
    if error <= TOLERANCES.get(dtype, 1e-4):
        return Comparison(error)
    exact = _in_double(other, base, example)
    if exact is None:  # does not run in double precision
        return Comparison(error, "" if error <= max(LOOSE, TOLERANCES.get(dtype, 0)) else _differs(error))
    return Comparison(error) if exact <= TOLERANCES[torch.float64] else Comparison(exact, _differs(exact))


def _in_double(other: nn.Module, base: nn.Module, example: Example) -> float | None:
    try:
        first, second = (copy.deepcopy(network).double() for network in (other, base))
        double = example.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
        return relative_error(call(first, double), call(second, double))
    except Exception:  # code with a precision of its own
        return None


def _differs(error: float) -> str:
    return f"relative error {error:.1e}" if math.isfinite(error) else "outputs of another number, shape or finiteness"


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
