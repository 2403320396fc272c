"""Checkpoints: one safetensors file that says which network it holds, so that it loads by itself, without pickles.

The file's metadata carries a `NetworkCard` as JSON under the key `elastic_cnn`.
"""

import json
import os
import weakref
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from elastic_cnn.files import atomic_write, naming
from elastic_cnn.surgery import apply_surgery, describe_surgery
from elastic_cnn.tasks.spec import loaded, task_spec
from elastic_cnn.text import distinct_keys
from elastic_cnn.zoo.card_rules import check_arguments, check_classes, no_larger_than
from elastic_cnn.zoo.factory import create_model, is_known

VERSION = 1
METADATA_KEY = "elastic_cnn"
LARGEST_SIDE = 16_384  # of an input, in pixels
LARGEST_VALUE = 1e6  # of a mean or deviation, and one over it the least: float32 divides by it
LARGEST_WHITE = 1e18  # of pictures of more than 8 bits, which may hold floats
LEAST_CROP = 0.1  # photos are resized to the size over it: a bound of the memory that this takes
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROP_MODES = ("center", "border", "squash")
CARD_TYPES: dict[str, Any] = {  # of the card's fields in JSON
    "network": str, "kwargs": dict, "task": str, "classes": list, "input": dict, "elastic": dict | None, "info": dict
}  # fmt: skip


@dataclass(frozen=True)
class InputSpec:
    """How a photo becomes the network's input.

    size: height and width in pixels. mean, std: of each channel, in 0..1. crop_pct: the centre crop's part of the
    resized short side. crop_mode: `center` (resize the short side, crop the centre), `border` (resize the long side,
    fill up with the mean colour) or `squash` (resize to the size). max_value: what is white in pictures of more than 8
    bits; None for the largest value of their type. background: of transparent pictures, red, green, blue in 0..255.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    max_value: float | None = None
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std", "background"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.size) != 2 or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in self.size):
            raise ValueError(f"the input's size must be two whole numbers from 1 to {LARGEST_SIDE}, not {self.size}")
        numbers = (*self.mean, *self.std)
        if not all(isinstance(value, int | float) and abs(value) <= LARGEST_VALUE for value in numbers):  # NaN neither
            raise ValueError(f"the input's mean and std must be numbers, not {self.mean} and {self.std}")
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) < 1 / LARGEST_VALUE:
            raise ValueError(
                f"the input's mean and std must be one number a channel, std positive, not {self.mean} and {self.std}"
            )
        if not isinstance(self.crop_pct, int | float) or not LEAST_CROP <= self.crop_pct <= 2:
            raise ValueError(
                f"the input's crop_pct must be a part of the picture from {LEAST_CROP} on, not {self.crop_pct!r}"
            )
        for name, known in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"the input's {name} must be one of {', '.join(known)}, not {getattr(self, name)!r:.60}"
                )
        largest = self.max_value
        if largest is not None and not (isinstance(largest, int | float) and 0 < largest <= LARGEST_WHITE):
            raise ValueError(f"the input's max_value must be a positive number, not {self.max_value!r}")
        colour = self.background
        if len(colour) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in colour):
            raise ValueError(f"the input's background must be three whole numbers in 0..255, not {colour}")

    def of_channels(self, count: int) -> "InputSpec":
        """The same for so many channels: where there are others now, each has the mean of theirs, and of their std."""
        if count == len(self.mean):
            return self
        mean, std = ((sum(values) / len(values),) * count for values in (self.mean, self.std))
        return replace(self, mean=mean, std=std)


@dataclass(frozen=True)
class NetworkCard:
    """Everything but the weights that a network needs to be built and used again.

    network: a name for `create_model`; kwargs: its arguments, `num_classes` among them.
    elastic: what `elasticize` did to the built network, from `describe_surgery`; None where nothing.
    info: what else is worth keeping (recipe, metrics); JSON values.
    """

    network: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    task: str = "classification"
    classes: tuple[str, ...] = ()
    input: InputSpec = field(default_factory=InputSpec)
    elastic: dict[str, Any] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        task_spec(self.task)

    def transform(self) -> Any:
        """What makes a photo this network's input: `card.transform().read("photo.jpg")` -> (C, H, W), or called with an
        RGB picture of Pillow's (`data.transforms.Preparation`)."""
        return loaded("elastic_cnn.data.transforms:eval_transform")(**asdict(self.input))

    def build(self) -> nn.Module:
        """The network with fresh weights. `ValueError` where the name is unknown, the arguments do not fit, or they
        would load anything from elsewhere."""
        check_arguments(self.network, self.kwargs)
        if not is_known(self.network):
            create_model(self.network)  # says which names are near
        try:
            network = create_model(self.network, **self.kwargs)
            return network if self.elastic is None else apply_surgery(network, self.elastic)
        except Exception as error:  # a network's code fails in its own ways on arguments that make no sense
            reason = f"{'' if isinstance(error, ValueError | TypeError) else type(error).__name__ + ': '}{error}"
            raise ValueError(f"{self.network} cannot be built with {self.kwargs!r:.300}: {reason:.300}") from error

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "NetworkCard":
        """The inverse of `to_json`. `ValueError` says what is wrong with the card."""
        try:
            values = json.loads(text, object_pairs_hook=distinct_keys)
            version = values.pop("version")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ValueError(f"not a network card ({error!r:.200})") from error
        if type(version) is not int or version > VERSION:
            raise ValueError(
                f"its card has version {version!r}, this package reads up to {VERSION}: update elastic-cnn"
            )
        unknown = sorted(set(values) - {entry.name for entry in fields(cls)})
        if unknown:
            raise ValueError(f"its card has unknown fields: {', '.join(unknown)}")
        for name, kind in CARD_TYPES.items():
            if name in values and not isinstance(values[name], kind):
                raise ValueError(f"its card's {name} is of another type: {values[name]!r:.60}")
        if not all(isinstance(name, str) for name in values.get("classes", ())):
            raise ValueError("its card's classes are not all texts")
        try:
            card = cls(**{**values, "input": InputSpec(**values.get("input", {}))})
            check_classes(card.kwargs, card.classes)
            return card
        except (TypeError, AttributeError) as error:
            raise ValueError(f"its card does not fit: {error}") from error


def save_checkpoint(path: str | Path, network: nn.Module, card: NetworkCard) -> Path:
    """Write weights and card atomically; replaces a file at `path` (callers refuse where they must not).

    What `elasticize` did to the network is taken from the network where the card does not say. `ValueError` where the
    card does not describe the network, so that it would not load again: another name or other arguments, tensors of
    other names or shapes, another number of classes, values that are not finite, or a network that
    `optimize_for_inference` made.
    """
    path = Path(path)
    if getattr(network, "optimization_report", None) is not None:
        raise ValueError(f"{path}: a network optimized for inference cannot be saved; save the one it was made from")
    try:
        check_arguments(card.network, card.kwargs)
        if card.elastic is None and _is_made_elastic(network, card):
            card = replace(card, elastic=describe_surgery(network))
        check_describes(card, network)
    except ValueError as error:
        raise ValueError(f"{path} is not written: {error}") from error
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    check_finite(state, f"{path} is not written")
    shared: dict[int, str] = {}
    for name, tensor in state.items():  # safetensors refuses tensors that share memory
        if tensor.numel() and tensor.data_ptr() in shared:
            state[name] = tensor.clone()
        shared[tensor.data_ptr()] = name
    data = save(state, metadata={METADATA_KEY: card.to_json()})  # one key: equal networks, equal bytes
    with atomic_write(path) as temporary:  # not `save_file`, which has a temporary file of its own: a kill leaves it
        temporary.write_bytes(data)
    return path


_DESCRIBED: "weakref.WeakKeyDictionary[nn.Module, tuple[Any, ...]]" = weakref.WeakKeyDictionary()


def check_describes(card: NetworkCard, network: nn.Module) -> None:
    """`ValueError` where `card` would build another network than this one. Looked at once for each card."""
    check_classes(card.kwargs, card.classes)
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    key = card.network, json.dumps([card.kwargs, card.elastic], default=repr), tuple(found.items())
    if _DESCRIBED.get(network) == key:
        return
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                built = card.build()
        except ValueError:  # the code of some networks computes with numbers as it builds them
            built = card.build()
    expected = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    if expected != found:
        names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        raise ValueError(
            f"the card builds another network than this one: {len(names)} tensors differ, {names[0]} first; its kwargs "
            "must be those that the network was built with, num_classes among them"
        )
    _DESCRIBED[network] = key


def _is_made_elastic(network: nn.Module, card: NetworkCard) -> bool:
    """Whether surgery came after the network was built by name: elastic entries of the zoo bring their own."""
    if getattr(network, "elastic_report", None) is None:
        return False
    with torch.device("meta"):
        built = create_model(card.network, **card.kwargs)
    return getattr(built, "elastic_report", None) is None


def means_checkpoint(text: str) -> bool:
    """Whether a word of a command line means a checkpoint or run folder, be it there or not, and no network's name."""
    return Path(text).exists() or text.endswith(".safetensors") or (os.sep in text and ":" not in text)


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint at `path`: the file itself, or the best one of a run folder. `ValueError` where there is none."""
    path = Path(path)
    if path.is_dir():
        best = path / "best.safetensors"
        if not best.is_file():
            raise ValueError(f"{path} is a folder without best.safetensors: give a run folder or a .safetensors file")
        return best
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}: give a run folder or a .safetensors file")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} is not a .safetensors file: give the run's best.safetensors or last.safetensors, or turn a "
            "released checkpoint into one with `elastic convert`"
        )
    return path


def read_card(path: str | Path) -> NetworkCard:
    """The card of a checkpoint, without reading its weights. `ValueError` names the file and what is wrong."""
    path = checkpoint_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): it may be truncated") from error
    if METADATA_KEY not in metadata:
        raise ValueError(f"{path} holds weights but does not say of which network: it was not written by this package")
    with naming(path):
        return NetworkCard.from_json(metadata[METADATA_KEY])


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, NetworkCard]:
    """The network of a checkpoint, in eval mode on `device`, and its card.

    Raises `ValueError`, naming the file, where it is missing, truncated or of another kind, where its network is
    unknown here, and where a weight is missing, superfluous, of another shape or not finite.
    """
    path = checkpoint_file(path)
    card = read_card(path)
    state = read_weights(path)
    check_finite(state, path)
    with naming(path), no_larger_than(len(state), sum(tensor.numel() for tensor in state.values())):
        network = card.build()
    _check_kinds(state, network, path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {card.network}: {error!s:.600}") from error
    return network.to(device).eval(), card


def _check_kinds(state: dict[str, torch.Tensor], network: nn.Module, path: Path) -> None:
    """`ValueError` where a tensor's numbers cannot be the network's: whole numbers as weights, variances below 0."""
    for name, own in network.state_dict().items():
        if (tensor := state.get(name)) is None:
            continue
        if tensor.is_complex() or tensor.is_floating_point() != own.is_floating_point():
            raise ValueError(f"{path}: the tensor {name} is of {tensor.dtype}, the network's of {own.dtype}")
        if name.endswith("running_var") and (tensor.to(own.dtype) < 0).any():
            raise ValueError(f"{path}: the tensor {name} holds variances below 0; take an earlier checkpoint")


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU. `ValueError` where it is not one or is truncated."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): it may be truncated") from error


def check_finite(state: dict[str, torch.Tensor], path: str | Path) -> None:
    """`ValueError` that names the first tensor holding NaN or infinity."""
    for name, tensor in state.items():
        values = tensor.float() if tensor.element_size() == 1 else tensor  # of 8 bits no operator is at hand
        if tensor.is_floating_point() and not torch.isfinite(values).all():
            raise ValueError(f"{path}: the tensor {name} holds values that are not finite; take an earlier checkpoint")
