"""The network of a recipe: created by name, initialised, and given what fits of other weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_data_config
from torch import nn

from elastic_cnn.surgery import elasticize
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, check_finite, checkpoint_file, read_weights
from elastic_cnn.zoo.factory import create_model


@dataclass(frozen=True)
class WeightsReport:
    """What `load_weights` did, as names of tensors: loaded, new in the network, reshaped, unused in the file."""

    source: str
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"weights from {self.source}: {len(self.loaded)} tensors loaded"]
        for label, names in (("new", self.new), ("of another shape, so new", self.reshaped), ("unused", self.unused)):
            if names:
                shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
                parts.append(f"{label}: {shown}")
        return "; ".join(parts)


def load_weights(network: nn.Module, source: str | Path) -> WeightsReport:
    """Load what fits by name and shape from a checkpoint, a run folder or a file of weights (.safetensors, .pth).

    A network whose backbone is a part of it (`backbone.conv1.weight`) takes a plain classifier's weights there.
    Raises `ValueError` where the file is not readable, holds code, or fits in less than half of the network's backbone.
    """
    state = read_state_dict(source)
    own = network.state_dict()
    prefix = _backbone_prefix(own, state)
    state = {prefix + name: tensor for name, tensor in state.items()}
    loaded = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    network.load_state_dict({**own, **loaded})
    report = WeightsReport(
        source=str(source),
        loaded=tuple(loaded),
        new=tuple(name for name in own if name not in state),
        reshaped=tuple(name for name in state if name in own and name not in loaded),
        unused=tuple(name for name in state if name not in own),
    )
    if len(loaded) < len(own if not prefix else [name for name in own if name.startswith(prefix)]) / 2:
        raise ValueError(f"the weights do not fit this network. {report}")
    return report


def _backbone_prefix(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> str:
    """The prefix under which most names of `state` are found in the network."""
    prefixes = {""} | {f"{name.split('.')[0]}." for name in own} | {".".join(name.split(".")[:2]) + "." for name in own}
    return max(sorted(prefixes, key=len), key=lambda prefix: sum(prefix + name in own for name in state))


def read_state_dict(source: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, on the CPU, without running code. `ValueError` names what is wrong."""
    path = Path(source)
    if path.is_dir() or path.suffix == ".safetensors" or not path.exists():
        path = checkpoint_file(path)
        state: Any = read_weights(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path} is not a file of weights, or holds code, which is never run: {reason}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError(f"{path} does not hold named tensors")
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    check_finite(state, path)
    return state


def he_fan_in(network: nn.Module) -> None:
    """He's initialisation: normal, deviation sqrt(2 / fan-in), for all convolutions (paper and released code)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


def make_network(recipe: Recipe, classes: tuple[str, ...], **input_changes: Any) -> tuple[nn.Module, NetworkCard]:
    """The recipe's network for `classes`, initialised under the recipe's seed, and its card.

    input_changes: fields of the card's `InputSpec` to set (crop_pct, crop_mode). Prints what was not loaded.
    Raises `ValueError` where no network is named, it is unknown or its arguments do not fit.
    """
    if recipe.network is None:
        raise ValueError("the recipe names no network: give --network NAME (`resnext_small_elastic`, ...)")
    arguments = {**recipe.network_kwargs, "num_classes": len(classes)}
    published = recipe.weights == "timm"
    if published and recipe.init == "he_fan_in":
        raise ValueError("init=he_fan_in would overwrite weights=timm: leave one of them out")
    torch.manual_seed(recipe.seed)
    try:
        network = create_model(recipe.network, **arguments, **({"pretrained": True} if published else {}))
    except TypeError as error:
        raise ValueError(f"{recipe.network} cannot be built with {arguments}: {error}") from error
    if recipe.init == "he_fan_in":
        he_fan_in(network)
    if recipe.weights is not None and not published:
        print(load_weights(network, recipe.weights))
    if recipe.elastic:
        network = elasticize(network, inplace=True)
        print(network.elastic_report)
    card = NetworkCard(
        recipe.network, arguments, recipe.task, classes, make_input_spec(recipe, network, **input_changes)
    )
    return network, card


def make_input_spec(recipe: Recipe, network: nn.Module | None = None, **changes: Any) -> InputSpec:
    """Square input of the recipe's size; mean, deviation and interpolation as the network's configuration has them.

    changes: fields to set besides (crop_pct, crop_mode).
    """
    config = resolve_data_config(model=network) if hasattr(network, "pretrained_cfg") else {}
    known = {key: config[key] for key in ("mean", "std") if key in config}
    if config.get("interpolation") in ("bilinear", "bicubic"):
        known["interpolation"] = config["interpolation"]
    return InputSpec(size=(recipe.image_size, recipe.image_size), **{**known, **changes})
