"""Files of weights as people have them: what holds the tensors, and what was put before their names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elastic_cnn.zoo.checkpoint import check_finite, checkpoint_file, read_weights
from elastic_cnn.zoo.released.reading import read_released

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")  # of timm, DINO and others: better than the last
HOLDERS = ("state_dict", "model_state_dict", "model", "network", "net", "module", "weights", "params")
WRAPPERS = ("module.", "model.", "network.", "net.", "backbone.")  # what wraps a network: processes, Lightning, a class
COMPILED = "_orig_mod."  # torch.compile's, at any place of a name


@dataclass(frozen=True)
class StateDict:
    """Named tensors of a file. source: the file, and what was taken of it where there was a choice."""

    source: str
    tensors: dict[str, torch.Tensor]


def read_state_dict(source: str | Path) -> StateDict:
    """The tensors of a checkpoint, a run folder or a file of weights, on the CPU, without running code.

    Averaged weights are taken where the file has them as well. Names lose `_orig_mod.` and every wrapper (`module.`,
    `model.`, ...) that all of them begin with. `ValueError` names the file and what is wrong, or what to save instead.
    """
    path = Path(source)
    if "://" in str(source):
        raise ValueError(f"{source} is an address: download the file, and give its path")
    if not path.exists():
        raise ValueError(
            f"no checkpoint at {path}: give a run folder, a .safetensors file or another file of weights (.pth, .pt, "
            ".bin, ...)"
        )
    if path.is_dir() or path.suffix == ".safetensors":
        path = checkpoint_file(path)
        content: Any = read_weights(path)
    else:
        content = read_released(path)
    if {"task", "progress", "optimizer"} <= set(content):
        raise ValueError(f"{path} is the state of a run: give the run's folder, {path.parent}")
    keys, state = _find_tensors(content)
    if not state:
        held = ", ".join(f"{name} ({type(value).__name__})" for name, value in list(content.items())[:6])
        raise ValueError(
            f"{path} does not hold named tensors, nor a dict of them under {', '.join(HOLDERS[:3])} or the like; "
            f"it holds {held or 'nothing'}"
        )
    check_finite(state, path)
    said = "".join(f"[{key!r}]" for key in keys if key in AVERAGED)
    return StateDict(f"{path}{said}", unwrapped({name.replace(COMPILED, ""): t for name, t in state.items()}))


def _find_tensors(content: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, torch.Tensor]]:
    """The dict of tensors within, and the keys that lead to it; empty where there is none."""
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    others = [name for name in content if name not in tensors and not str(name).endswith("_extra_state")]
    if tensors and not others:
        return (), tensors
    for key in (*AVERAGED, *HOLDERS):
        inner = content.get(key)
        if isinstance(inner, Mapping):
            keys, found = _find_tensors(inner)
            if found:
                return (key, *keys), found
    return (), {}


def unwrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the wrappers that all names begin with, in any nesting."""
    while wrapper := next((w for w in WRAPPERS if state and all(name.startswith(w) for name in state)), None):
        state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    return state


def wrappings(names: Iterable[str]) -> set[str]:
    """The strings of wrappers that any name begins with, "" among them: what may have to go for the names to fit."""
    found = {""}
    for name in names:
        start = 0
        while wrapper := next((w for w in WRAPPERS if name.startswith(w, start)), None):
            start += len(wrapper)
            found.add(name[:start])
    return found
