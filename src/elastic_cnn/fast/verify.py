"""Whether a network in the making still computes what it did, and what to do where it does not."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from elastic_cnn.fast.report import FormReport
from elastic_cnn.fast.rewrite import Change, Root
from elastic_cnn.nn.compare import TOLERANCES, compare, output_tensors, relative_error
from elastic_cnn.nn.example import Example, make_tensor, placement
from elastic_cnn.nn.trial import HOOK_TABLES, call, copy_structure, is_users_hook

Check = Callable[[nn.Module], str]  # what is wrong with a network, empty where nothing is
Step = Callable[[Root, FormReport], Sequence[Change]]


@contextlib.contextmanager
def hooks_suspended(network: nn.Module) -> Iterator[None]:
    """Without the user's hooks, which are not to fire for runs of our own."""
    kept = []
    for module in network.modules():
        for hooks in (getattr(module, table) for table in HOOK_TABLES):
            if any(map(is_users_hook, hooks.values())):
                kept.append((hooks, dict(hooks)))
    for hooks, before in kept:
        hooks.clear()
        hooks.update({key: hook for key, hook in before.items() if not is_users_hook(hook)})
    try:
        yield
    finally:
        for hooks, before in kept:
            hooks.clear()
            hooks.update(before)


def call_unhooked(network: nn.Module, example: Example) -> Any:
    """One call of `network` of which the user's hooks hear nothing."""
    with hooks_suspended(network):
        return call(network, example)


def check_outputs(plain: nn.Module, example: Example, expected: Any) -> Check:
    """Outputs are compared with `expected`, those of `plain` in eval mode on `example`; on drawn values of its shapes
    where it has none (on the meta device) or the outputs are not finite."""
    if any(t.is_meta for t in example.tensors()) or not all(bool(t.isfinite().all()) for t in output_tensors(expected)):
        example = example.map(lambda tensor: make_tensor(tensor.shape, tensor.dtype))
        expected = call(copy_structure(plain), example)
    tolerance = TOLERANCES.get(placement(plain)[1], 0.0)

    def check(network: nn.Module) -> str:
        with hooks_suspended(network):
            try:
                if relative_error(call(network, example), expected) <= tolerance:
                    return ""
            except Exception as error:  # of any network whatsoever
                return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            return compare(network, copy_structure(plain), example).problem  # looks again in double precision

    return check


def nothing_checked(network: nn.Module) -> str:
    return ""


def apply_steps(root: Root, steps: Sequence[Step], check: Check) -> tuple[FormReport, list[Change]]:
    """Take all steps and check once; where that finds something, undo them and take each with a check of its own.

    Returns what was done, and the changes, which are made.
    """
    for careful in (False, True):
        report, made = FormReport(), list[Change]()
        for step in steps:
            changes = step(root, report)
            for change in _keep_sound(root, changes, check, report) if careful else changes:
                if change.table:
                    getattr(report, change.table)[change.name] = change.form
                made.append(change)
        if careful or not check(root.network):
            break
        for change in reversed(made):
            change.undo()
    return report, made


def _keep_sound(root: Root, changes: Sequence[Change], check: Check, report: FormReport) -> list[Change]:
    """Of changes that are made, those with which the network computes what it did; the others are undone, and said."""
    if not changes or not (problem := check(root.network)):
        return list(changes)
    for change in reversed(changes):
        change.undo()
    if len(changes) == 1:
        report.left[changes[0].name] = f"put back ({changes[0].form}): {problem}"
        return []
    kept: list[Change] = []
    middle = len(changes) // 2
    for part in (changes[:middle], changes[middle:]):
        for change in part:
            change.redo()
        kept += _keep_sound(root, part, check, report)
    return kept
