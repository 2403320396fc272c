"""What is asked of a network that nobody here wrote: converted, at blend 0 the same, trainable, fast, kept, restored.

Every answer is a number or a sentence. A *wrong* answer is one that came without a sentence: outputs that differ, lost
parameters, gradients that do not arrive, a traceback that is not the package's own `ValueError`.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.flop_counter import FlopCounterMode

import elastic_cnn

Example = Tensor | tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A network to try.

    build: makes it, untrained. example: the input that it takes, by size. size, odd: (C, H, W) of the example and of
    another, odd one (None where the network takes one size alone). dtype: of its weights and inputs.
    call: how it is run, for networks that are parts of a pipeline. skip: checks that make no sense for it, with why.
    """

    name: str
    build: Callable[[], nn.Module]
    size: tuple[int, ...] = (3, 64, 64)
    odd: tuple[int, ...] | None = (3, 61, 83)
    example: Callable[[tuple[int, ...]], Example] | None = None
    dtype: torch.dtype = torch.float32
    batch: int = 2
    skip: dict[str, str] = field(default_factory=dict)

    def input(self, size: tuple[int, ...]) -> Example:
        """A seeded input of this size, as the network takes it."""
        torch.manual_seed(1)
        return self.example(size) if self.example else torch.randn(self.batch, *size, dtype=self.dtype)


@dataclass
class Row:
    """What came of a case: `verdict` is "ok", "refused: WHY" or "WRONG: WHAT"; the rest are the single answers."""

    library: str
    name: str
    verdict: str = ""
    converted: str = ""
    macs: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9, torch.float16: 3e-2, torch.bfloat16: 1e-1}
# float32: sums in another order over up to a hundred layers of random weights; half precisions: a few of their steps


def run(network: nn.Module, example: Example) -> Any:
    """The network's answer to an example that may be one tensor, several or named ones."""
    if isinstance(example, dict):
        return network(**example)
    return network(*example) if isinstance(example, tuple) else network(example)


def tensors(answer: Any) -> list[Tensor]:
    """All floating-point tensors of an answer, in order."""
    answer = answer.to_tuple() if hasattr(answer, "to_tuple") else answer
    return [t for t in tree_flatten(answer)[0] if isinstance(t, Tensor) and t.is_floating_point() and t.numel()]


def difference(got: Any, wanted: Any) -> float:
    """Largest absolute difference over the largest wanted value, of the worst tensor; infinite where shapes differ."""
    worst, pairs = 0.0, (tensors(got), tensors(wanted))
    if [t.shape for t in pairs[0]] != [t.shape for t in pairs[1]]:
        return float("inf")
    for a, b in zip(*pairs, strict=True):
        a, b = a.double(), b.double()
        finite = b.isfinite()
        if not torch.equal(a.isfinite(), finite):
            return float("inf")
        if finite.any():
            worst = max(worst, float((a - b)[finite].abs().max() / b[finite].abs().max().clamp_min(1e-12)))
    return worst


def randomize(network: nn.Module) -> None:
    """Constants that initialisation leaves (ones, zeros, running statistics) become random: they would hide faults."""
    generator = torch.Generator().manual_seed(0)

    def fill(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_((torch.rand(tensor.shape, generator=generator) * (high - low) + low).to(tensor.dtype))

    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                fill(buffer, -0.1, 0.1)
            elif name.endswith("running_var"):
                fill(buffer, 0.7, 1.3)
        for _, parameter in network.named_parameters():
            if (
                parameter.is_floating_point()
                and parameter.numel() > 1
                and bool((parameter == parameter.flatten()[0]).all())
            ):
                one = abs(float(parameter.flatten()[0]) - 1) < 1e-6
                fill(parameter, *((0.7, 1.3) if one else (0.02, 0.1)))


def macs(network: nn.Module, example: Example) -> int:
    """Multiply-adds of one call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(network, example)
    return int(counter.get_total_flops()) // 2


def trainable(network: nn.Module, example: Example) -> set[str] | str:
    """Names of the parameters that a gradient reaches, or a word where none is finite or none arrives."""
    network.zero_grad()
    outputs = [t for t in tensors(run(network, example)) if t.requires_grad]
    if not outputs:
        return "no output has a gradient"
    sum(t.double().square().mean() for t in outputs).backward()  # type: ignore[union-attr]
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return set(gradients) if all(g.isfinite().all() for g in gradients.values()) else "not finite"


def check(library: str, case: Case) -> Row:
    """Try everything on one network."""
    row = Row(library, case.name)
    torch.manual_seed(0)
    try:
        base = case.build()
        randomize(base)
        base.eval()
        example = case.input(case.size)
        with torch.no_grad():
            wanted = run(base, example)
    except Exception as error:
        row.verdict = f"not tried: the network itself fails ({type(error).__name__}: {_line(error)})"
        return row
    before = {name: value.clone() for name, value in base.state_dict().items() if isinstance(value, Tensor)}
    try:
        elastic = elastic_cnn.elasticize(base, example=example)
    except ValueError as reason:
        row.verdict = f"refused: {_line(reason)}"
        return row
    except Exception as error:
        row.verdict = f"WRONG: elasticize ends with {type(error).__name__}: {_line(error)}"
        return row
    report: Any = elastic.elastic_report
    row.converted = f"{len(report.converted)} / {len(report.blocks)}"
    for name, answer in _answers(case, base, elastic, example, wanted, before):
        row.answers[name] = answer
        if name == "multiply-adds":
            row.macs = answer
    wrong = [f"{name}: {answer}" for name, answer in row.answers.items() if answer.startswith("WRONG")]
    row.verdict = "; ".join(wrong) or "ok"
    return row


def _answers(
    case: Case, base: nn.Module, elastic: nn.Module, example: Example, wanted: Any, before: dict[str, Tensor]
) -> Iterator[tuple[str, str]]:
    """(check, answer), each guarded: what it raises is its answer."""
    steps: dict[str, Callable[[], str]] = {
        "base unchanged": lambda: _same(
            all(torch.equal(before[k], v) for k, v in base.state_dict().items() if k in before)
        ),
        "parameters": lambda: _parameters(base, elastic),
        "multiply-adds": lambda: f"{macs(elastic, example) / max(1, macs(base, example)):.3f}",
        "blend 0": lambda: _blend_zero(case, base, elastic, example, wanted),
        "backward": lambda: _gradients(base, elastic, example),
        "optimize": lambda: _optimized(case, elastic, example),
        "optimize the base": lambda: _optimized(case, base, example),
        "state dict": lambda: _state(case, elastic, example),
        "restore": lambda: _close(case, _run(elastic_cnn.restore(elastic), example), wanted, base, example),
        "policy": lambda: _policy(elastic, example),
        "odd size": lambda: _odd(case, base, elastic),
        "export": lambda: _exported(case, base, elastic, example),
    }
    for name, step in steps.items():
        if name in case.skip:
            yield name, case.skip[name]
            continue
        try:
            yield name, step()
        except ValueError as reason:
            yield name, f"refused: {_line(reason)}"
        except Exception as error:
            yield name, f"WRONG {type(error).__name__}: {_line(error)}"


@torch.no_grad()
def _run(network: nn.Module, example: Example) -> Any:
    return run(network, example)


def _same(fits: bool) -> str:
    return "ok" if fits else "WRONG, changed"


def _close(case: Case, got: Any, wanted: Any, network: nn.Module, example: Example) -> str:
    """How far an answer is from the wanted one, which `network` gave. More than the tolerance is allowed up to a few
    times what its own answer is uncertain by (norms over four pixels amplify rounding, detectors choose by rank)."""
    found = difference(got, wanted)
    if found <= TOLERANCE[case.dtype]:
        return f"{found:.0e}"
    if case.dtype is torch.float32:
        own = _uncertainty(network, example, wanted)
        if found <= 4 * own < float("inf"):
            return f"{found:.0e} (its own answer is uncertain by {own:.0e})"
    return f"WRONG by {found:.1e}"


def _uncertainty(network: nn.Module, example: Example, answer: Any) -> float:
    """How far a float32 answer is from the same network's in float64, or for an input moved by 1e-6 of itself."""

    def floats(change: Callable[[Tensor], Tensor]) -> Any:
        return tree_map(lambda t: change(t) if isinstance(t, Tensor) and t.is_floating_point() else t, example)

    found = [0.0]
    for net, inputs in (
        (lambda: copy.deepcopy(network).double(), floats(Tensor.double)),
        (lambda: network, floats(lambda t: t * (1 + 1e-6 * torch.randn_like(t)))),
    ):
        try:
            found.append(difference(answer, _run(net(), inputs)))
        except Exception:  # third-party code that is bound to float32
            continue
    return max(found)


def _parameters(base: nn.Module, elastic: nn.Module) -> str:
    counts = [
        (sum(p.numel() for p in net.parameters()), sum(p.numel() for p in net.parameters() if p.requires_grad))
        for net in (base, elastic)
    ]
    return "ok" if counts[0] == counts[1] else f"WRONG, {counts[0]} became {counts[1]}"


def _blend_zero(case: Case, base: nn.Module, elastic: nn.Module, example: Example, wanted: Any) -> str:
    elastic_cnn.set_blend(elastic, 0.0)
    try:
        return _close(case, _run(elastic, example), wanted, base, example)
    finally:
        elastic_cnn.set_blend(elastic, 1.0)


def _gradients(base: nn.Module, elastic: nn.Module, example: Example) -> str:
    mine, theirs = trainable(elastic, example), trainable(base, example)
    if isinstance(theirs, str):
        return f"the base: {theirs}"
    if isinstance(mine, str):
        return f"WRONG, {mine}"
    reachable = {name for name, p in base.named_parameters() if p.requires_grad}
    missed = {name for name, p in elastic.named_parameters() if p.requires_grad} - mine
    return "ok" if not missed or theirs != reachable else f"WRONG, no gradient reaches {sorted(missed)[:3]}"


def _optimized(case: Case, network: nn.Module, example: Example) -> str:
    fast = elastic_cnn.optimize_for_inference(network, example=example)
    found = _close(case, _run(fast, example), _run(network, example), network, example)
    if not found.startswith("WRONG") and case.odd and "odd size" not in case.skip:
        odd = case.input(case.odd)
        try:
            wanted = _run(network, odd)
        except Exception:  # the network cannot run at this size; that is no matter of its fast form
            return found
        return _close(case, _run(fast, odd), wanted, network, odd)
    return found


def _state(case: Case, elastic: nn.Module, example: Example) -> str:
    """A second network, made and converted alike, takes the weights and gives the same answers."""
    other = case.build().eval()
    other = elastic_cnn.elasticize(other, example=example)
    other.load_state_dict(elastic.state_dict())
    return _close(case, _run(other, example), _run(elastic, example), elastic, example)


def _policy(elastic: nn.Module, example: Example) -> str:
    if not isinstance(example, Tensor):
        return "several inputs"
    scores = elastic_cnn.scale_policy(elastic, example)
    return str(tuple(scores.shape)) if bool(scores.isfinite().any()) else "WRONG, no score"


def _odd(case: Case, base: nn.Module, elastic: nn.Module) -> str:
    if case.odd is None:
        return "takes one size"
    odd = case.input(case.odd)
    try:
        wanted = _run(base, odd)
    except Exception:  # whatever it is, the base cannot run there
        return "the base cannot"
    got = _run(elastic, odd)
    if [t.shape for t in tensors(got)] != [t.shape for t in tensors(wanted)]:
        return "WRONG shapes"
    return _blend_zero(case, base, elastic, odd, wanted)


def _exported(case: Case, base: nn.Module, elastic: nn.Module, example: Example) -> str:
    args, kwargs = (
        ((), example) if isinstance(example, dict) else (example if isinstance(example, tuple) else (example,), {})
    )
    try:
        torch.export.export(copy.deepcopy(base), args, kwargs)
    except Exception:  # third-party code of many kinds
        return "the base cannot"
    program = torch.export.export(elastic, args, kwargs)
    fresh = tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, example)
    return _close(case, _run(program.module(), fresh), _run(elastic, example), elastic, example)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:220]
