"""Trial runs of a network that leave no trace on it: on a copy of its structure, in eval mode, without its hooks.

The copy is on the meta device, where nothing is computed, or shares the network's own parameters, so that neither
takes memory for weights. Hooks of the user do not fire; those that compute weights (weight norm, pruning) stay.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.nn.example import Example, candidate_examples, placement

HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Hooks of these packages are part of how a network computes: weights by old-style norms, outputs that are collected.
_LIBRARIES = ("torch.", "transformers.", "accelerate.")


class CannotRun(ValueError):
    """A network did not run on any example; the message says on which, why, and what to pass."""


def is_users_hook(hook: Any) -> bool:
    """Whether a hook is not one by which a library computes weights or collects outputs."""
    function = getattr(hook, "func", hook)  # behind a functools.partial
    module = getattr(function, "__module__", None) or type(function).__module__
    return not str(module).startswith(_LIBRARIES)


def strip_hooks(network: nn.Module) -> None:
    """Take the user's hooks off `network`, in place."""
    for module in network.modules():
        for table in HOOK_TABLES:
            hooks = getattr(module, table, {})
            for key in [key for key, hook in hooks.items() if is_users_hook(hook)]:
                del hooks[key]


def copy_structure(network: nn.Module, *, meta: bool = False) -> nn.Module:
    """A copy in eval mode and without the user's hooks: on the meta device, else with the network's own parameters.

    `ValueError` where it cannot be copied, with the reason.
    """
    if lazy := [name for name, p in network.named_parameters() if nn.parameter.is_lazy(p)]:
        raise ValueError(f"{type(network).__name__} has lazy layers that never ran ({lazy[0]}): call it once first")
    twin = copy_to_meta(network) if meta else copy_module(network, {id(p): p for p in network.parameters()})
    strip_hooks(twin)
    return twin.eval()


def copy_to_meta(module: nn.Module) -> nn.Module:
    """A copy on the meta device, made without copying weights. `ValueError` where it cannot be copied."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()}
    memo |= {id(tensor): tensor.detach().to("meta") for tensor in (*module.buffers(), *_computed_tensors(module))}
    return copy_module(module, memo)


def copy_module(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """`copy.deepcopy`, and a sentence where a module holds what cannot be copied (`ValueError`).

    Tensors that a network keeps from its last call (weights that pruning computed, activations) are copied as values.
    """
    memo = {} if memo is None else memo
    for tensor in _computed_tensors(module):
        memo.setdefault(id(tensor), tensor.detach().clone())
    try:
        twin = copy.deepcopy(module, memo)
    except Exception as error:  # anything that anyone keeps on a module: locks, files, graphs
        raise ValueError(
            f"{type(module).__name__} cannot be copied, since it holds something that Python cannot copy "
            f"({' '.join(str(error).split())[:160]}): drop it first (a lock, an open file, an activation)"
        ) from error
    for own, original in zip(twin.modules(), module.modules(), strict=False):
        own.training = original.training  # which copies of torchvision's feature extractors forget
    return twin


def _computed_tensors(module: nn.Module) -> list[Tensor]:
    """Tensors with a history that modules hold as plain attributes, which `copy.deepcopy` refuses."""
    held = []
    for child in module.modules():
        for value in vars(child).values():
            several = value.values() if isinstance(value, dict) else value
            items = several if isinstance(value, (dict, list, tuple)) else (value,)
            held += [item for item in items if isinstance(item, Tensor) and item.grad_fn is not None]
    return held


def run_trial(
    network: nn.Module,
    given: Any = None,
    prepare: Callable[[nn.Module], None] | None = None,
    *,
    run: Callable[[nn.Module, Example], Any] | None = None,
    meta: bool = True,
) -> tuple[Example, Any]:
    """Call a copy of `network` on the first example that it runs on; returns that example and the outputs.

    given: an example as `Example.of` takes it; without one, what the network tells of itself (`candidate_examples`).
    prepare: applied to each copy before it runs, to put hooks on it. run: in place of the call itself.
    meta: try the meta device before real tensors.

    Raises `CannotRun` where nothing runs; the message names the shapes and `example=`. `ValueError` where the network
    cannot be copied.
    """
    examples = list(candidate_examples(network, given))
    on_meta = placement(network)[0].type == "meta"
    failure: tuple[Example, Exception] | None = None
    for as_meta in (True, False):
        if (as_meta and not (meta or on_meta)) or (not as_meta and on_meta):
            continue
        failure = None
        for example in examples:
            twin = copy_structure(network, meta=as_meta)
            if prepare is not None:
                prepare(twin)
            try:
                return example, (run or call)(twin, example)
            except Exception as error:  # of any network whatsoever
                failure = failure or (example, error)
    assert failure is not None  # there is always an example, and a place to run it
    raise CannotRun(_refusal(network, given, *failure)) from failure[1]


def _refusal(network: nn.Module, given: Any, example: Example, error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    if given is not None:
        return f"{type(network).__name__} does not run on the example of {example}: {text}"
    return (
        f"{type(network).__name__} does not run on an input of {example}: {text}; pass what it takes as "
        "example= (a tensor, a tuple of arguments, a dict, or (channels, height, width))"
    )


def call(network: nn.Module, example: Example) -> Any:
    """One call without gradients, on the network's device and in its precision; random numbers elsewhere unchanged."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return example.like(network).call(network)


def first_map(value: Any) -> Tensor | None:
    """The first 4-dimensional tensor in a module's inputs or output."""
    if isinstance(value, Tensor):
        return value if value.dim() == 4 else None
    if isinstance(value, (tuple, list)):
        return next((found for item in value if (found := first_map(item)) is not None), None)
    return None
