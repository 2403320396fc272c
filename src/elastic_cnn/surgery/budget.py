"""Match the budget: depths at which an elastic network costs what its base costs (paper, section 3.2 and Table 2).

Making a network elastic lowers its multiply-adds at the same parameters. The paper spends what was saved on depth, by
hand: ResNeXt50's 3, 4, 6, 3 blocks a stage become 6, 8, 5, 3. Here the depths are searched.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import timm
from timm.models import DenseNet, ResNet
from torch import nn

from elastic_cnn.nn.complexity import Complexity, count
from elastic_cnn.nn.trial import run_trial

Depths = tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """Depths of an elastic network and its cost over the base's, parameters and multiply-adds.

    arguments: what `create_model` needs to build the network at these depths.
    """

    base_depths: Depths
    depths: Depths
    arguments: dict[str, Any]
    parameters_ratio: float
    macs_ratio: float


def match_budget(
    base: nn.Module, make_elastic: Callable[[nn.Module], nn.Module], tolerance: float = 0.02
) -> tuple[nn.Module, Match]:
    """An elastic network of other depths with the base's parameters and multiply-adds, both within `tolerance`.

    base: a network of timm's ResNet or DenseNet family that knows its own name. make_elastic: applied to every network
    tried. Layers that stand in both keep the base's weights; added ones are freshly initialised.

    Raises `ValueError` for other families and where no depths fit.
    """
    build, keyword, base_depths = _family(base)
    size, _ = run_trial(base)
    target = count(base, size)
    costs: dict[Depths, Complexity] = {}

    def cost(depths: Depths) -> tuple[float, float]:
        if depths not in costs:
            costs[depths] = count(make_elastic(build(depths, "meta")), size)
        return costs[depths].parameters / target.parameters, costs[depths].macs / target.macs

    depths = _search(cost, base_depths, tolerance)
    network = build(depths, "cpu")
    _copy_weights(base, network)
    return make_elastic(network), Match(base_depths, depths, {keyword: list(depths)}, *cost(depths))


def _family(base: Any) -> tuple[Callable[[Depths, str], nn.Module], str, Depths]:
    """How to build the base's family at other depths, the argument that sets them, and the base's own."""
    config = getattr(base, "pretrained_cfg", None) or {}
    name = config.get("architecture") if isinstance(config, dict) else None
    depths: Depths
    if isinstance(base, ResNet):
        keyword, depths = "layers", tuple(len(getattr(base, f"layer{i}")) for i in range(1, 5))
    elif isinstance(base, DenseNet):
        blocks = [module for key, module in base.features.named_children() if key.startswith("denseblock")]
        keyword, depths = "block_config", tuple(len(list(block.children())) for block in blocks)
    else:
        raise ValueError(
            f"depths can be matched for timm's ResNet and DenseNet families, not for {type(base).__name__}"
        )
    if name is None or not timm.is_model(name):
        raise ValueError(
            "depths can be matched only for networks that timm.create_model made: the name is unknown here"
        )

    channels = next(module.in_channels for module in base.modules() if isinstance(module, nn.Conv2d))

    def build(new: Depths, device: str) -> nn.Module:
        arguments: dict[str, Any] = {keyword: new, "device": device, "num_classes": base.num_classes}
        if channels != 3:
            arguments["in_chans"] = channels
        return timm.create_model(name, **arguments)

    return build, keyword, depths


def _search(cost: Callable[[Depths], tuple[float, float]], base: Depths, tolerance: float) -> Depths:
    """Follow the costs' local slopes: exact for ResNets, whose costs are linear in the depths, and a few steps of a
    Newton search for DenseNets. Among depths that fit, those whose logarithm moved least from the base's."""
    center, tried = base, set[Depths]()
    for _ in range(8):
        at = cost(center)
        slopes = [
            tuple(b - a for a, b in zip(at, cost((*center[:i], center[i] + 1, *center[i + 1 :])), strict=True))
            for i in range(len(center))
        ]

        def predicted(
            depths: Depths, at: tuple[float, float] = at, slopes: list[tuple[float, ...]] = slopes, c: Depths = center
        ) -> float:
            costs = (at[k] + sum(s[k] * (d - d0) for s, d, d0 in zip(slopes, depths, c, strict=True)) for k in (0, 1))
            return max(abs(value - 1) for value in costs)

        ranges = [sorted({max(1, round(d * f)) for f in _FACTORS} | {d - 1 or 1, d, d + 1}) for d in center]
        ranges[-1] = [base[-1]] if len(slopes) == 4 and slopes[-1][1] < 1e-9 else ranges[-1]
        options = [depths for depths in itertools.product(*ranges) if depths not in tried]
        near = [depths for depths in options if predicted(depths) <= tolerance / 2]
        best = min(near, key=lambda depths: _moved(depths, base)) if near else min(options, key=predicted)
        tried.add(best)
        if max(abs(value - 1) for value in cost(best)) <= tolerance:
            return best
        center = best
    raise ValueError(f"no depths near {list(base)} match the budget within {tolerance:.0%}")


_FACTORS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.65, 1.8, 2, 2.2, 2.5, 3, 3.5, 4)


def _moved(depths: Sequence[int], base: Sequence[int]) -> float:
    return sum(math.log(depth / before) ** 2 for depth, before in zip(depths, base, strict=True))


def _copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give `target` the tensors that `source` holds under the same name and shape."""
    trained = source.state_dict()
    state = target.state_dict()
    shared = {key: trained[key] for key, value in state.items() if key in trained and trained[key].shape == value.shape}
    target.load_state_dict({**state, **shared})
