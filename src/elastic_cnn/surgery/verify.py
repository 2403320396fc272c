"""After surgery the result is run: at blend 0 it must compute what the original did. Blocks that do not are put back.

The original is kept as a copy of its structure that shares its parameters, so nothing is held twice. A network that
takes small images is compared on one: two quick passes. Only where the outputs differ, blocks are looked at in turn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from elastic_cnn.nn import Branch
from elastic_cnn.nn.compare import Comparison, compare, output_tensors
from elastic_cnn.nn.example import SMALL_SIDE, Example, make_tensor, placement
from elastic_cnn.nn.trial import CannotRun, call, copy_structure, run_trial
from elastic_cnn.surgery.replace import Holders
from elastic_cnn.surgery.report import SurgeryReport

if TYPE_CHECKING:
    from elastic_cnn.surgery.candidates import Candidates


NEXT_TO_ZERO = 1e-3  # scales below hide what they scale
_NOT_REACHED = "put back: code that surgery cannot see (a closure, a bound method) calls it, not what stands there now"


class Verification:
    """The comparison of one network after surgery with what it was before; made before anything is changed."""

    def __init__(self, network: nn.Module):
        self.network = network
        self.on_meta = placement(network)[0].type == "meta"
        self.base = None if self.on_meta else copy_structure(network)
        self._originals: dict[str, nn.Module] = {}
        self._expected: Any = None  # the original's outputs
        self._shown: list[tuple[str, nn.Parameter, nn.Parameter]] = []

    def keep(self, name: str, block: nn.Module) -> None:
        """A block as it was, to be put back should it differ."""
        self._originals[name] = block

    def check(self, report: SurgeryReport, candidates: "Candidates") -> None:
        """Compare; put back what differs, with the reason in the report; say in the report what was compared."""
        if self.base is None:
            report.note = "not compared with the original: it is on the meta device, where nothing is computed"
            return
        example = self._example(candidates)
        if isinstance(example, str):
            report.note = f"not compared with the original: {example}"
            return
        names = list(report.conversions)
        self._shown = _show_hidden(self.base, self._twin())
        reached = _watch(self.base, names)
        self._expected = call(self.base, example)
        found, after = self._compare(example, names)
        silent = {name: _NOT_REACHED for name in names if name in reached and name not in after and found}
        if silent or not found:
            found = self._put_back(report, names, silent, example)
        if not any(bool(tensor.isfinite().any()) for tensor in output_tensors(self._expected)):
            report.note = (
                f"it runs, but was not compared with the original, which puts out no finite number on {example}"
            )
            return
        report.verified = found.error
        report.note = f"at blend 0 it computes what the original does (relative error {found.error:.0e} on {example})"

    def _example(self, candidates: "Candidates") -> Example | str:
        """A small image where the network takes one, else what it was measured on; why there is none, as a text."""
        assert self.base is not None
        known = candidates.given
        try:
            if known is None:
                known, _ = run_trial(self.base)
                image = known.args[0]
                small = Example((make_tensor((1, image.shape[1], SMALL_SIDE, SMALL_SIDE)),))
                if max(image.shape[-2:]) > SMALL_SIDE and _runs(self.base, small):
                    return small
        except CannotRun as error:
            return str(error)
        return known

    def _twin(self) -> nn.Module:
        """The elastic network as it stands, for a trial at blend 0 of what this surgery converted."""
        twin = copy_structure(self.network)
        for name in self._originals:
            for module in twin.get_submodule(name).modules():
                if isinstance(module, Branch):
                    module.blend = 0.0
        for name, parameter, shown in self._shown:
            _exchange(twin, name, parameter, shown)
        return twin

    def _compare(self, example: Example, names: Sequence[str] = ()) -> tuple[Comparison, set[str]]:
        """The elastic network as it stands against the original, and which of the named blocks were reached."""
        assert self.base is not None
        twin = self._twin()
        reached = _watch(twin, names)
        return compare(twin, self.base, example, self._expected), reached

    def _put_back(
        self, report: SurgeryReport, names: list[str], silent: dict[str, str], example: Example
    ) -> Comparison:
        """Take out the blocks by which the network differs, until it does not; the comparison of what is left.

        `ValueError` where it differs with no block converted at all: then it cannot be compared, and is not returned.
        """
        elastic = {name: self.network.get_submodule(name) for name in names}
        holders = Holders(elastic.values(), self.network, *self._originals.values())

        def exchange(some: Sequence[str], back: bool) -> None:
            for name in some:
                old, new = elastic[name], self._originals[name]
                holders.replace(*((old, new) if back else (new, old)))

        exchange(names, back=True)
        bad = dict(silent)
        none, _ = self._compare(example)
        if not none:
            raise ValueError(
                f"{type(self.network).__name__} does not give the same outputs twice ({none.problem}): they cannot be "
                "compared after surgery; pass verify=False to convert it without"
            )
        good: list[str] = []

        def search(some: list[str]) -> None:
            """Add the blocks of `some` that keep the outputs, given the good ones so far; halves of halves."""
            if not some:
                return
            exchange(some, back=False)
            result, _ = self._compare(example)
            if result:
                good.extend(some)
                return
            exchange(some, back=True)
            if len(some) == 1:
                bad[some[0]] = _reason(result)
                return
            search(some[: len(some) // 2])
            search(some[len(some) // 2 :])

        search([name for name in names if name not in bad])
        for name in bad:
            del report.conversions[name]
        report.blocks = [replace(b, reason=bad[b.name]) if b.name in bad else b for b in report.blocks]
        return self._compare(example)[0] if good else none


def _reason(found: Comparison) -> str:
    if math.isfinite(found.error) or found.problem.startswith("outputs of"):
        return f"put back: divided, it changed the network's outputs ({found.problem})"
    return f"put back: divided, the network does not run ({found.problem})"


def _runs(network: nn.Module, example: Example) -> bool:
    try:
        call(network, example)
    except Exception:  # of any network whatsoever
        return False
    return True


def _show_hidden(base: nn.Module, twin: nn.Module) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
    """Give the scales of `base` that are next to zero other values, so that no block hides behind them (fresh networks
    start the last norm of a block at zero, layer scales at 1e-6); in place. (name, what it was, what it is), of those
    that `twin`, an elastic network of the same parameters, holds as a whole."""
    shown = []
    for name, parameter in list(base.named_parameters()):
        vector = parameter.is_floating_point() and parameter.numel() == max(parameter.shape, default=1)
        if not vector or name.endswith("bias") or float(parameter.detach().abs().max()) > NEXT_TO_ZERO:
            continue
        values = make_tensor(parameter.shape).abs().to(parameter.device, parameter.dtype) / 2 + 0.25
        new = nn.Parameter(values, requires_grad=False)
        if _exchange(twin, name, parameter, new):
            _exchange(base, name, parameter, new)
            shown.append((name, parameter, new))
    return shown


def _exchange(network: nn.Module, name: str, old: nn.Parameter, new: nn.Parameter) -> bool:
    """Put `new` wherever `old` stands, or what has its name and shape; whether there was any."""
    found = False
    for prefix, module in network.named_modules():
        for key, parameter in module._parameters.items():
            own = f"{prefix}.{key}".lstrip(".")
            if parameter is old or (parameter is not None and own == name and parameter.shape == old.shape):
                module._parameters[key] = new
                found = True
    return found


def _watch(network: nn.Module, names: Sequence[str]) -> set[str]:
    """A set that fills, as `network` runs, with those of the named modules that are called or hold one that is."""
    ran: set[str] = set()

    def observe(name: str) -> Callable[..., None]:
        return lambda *_: ran.add(name)

    for name in names:
        for module in network.get_submodule(name).modules():
            module.register_forward_hook(observe(name))
    return ran
