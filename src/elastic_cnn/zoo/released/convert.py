"""Turn a released checkpoint into one of this package."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_cnn.files import naming, refuse_output
from elastic_cnn.zoo.checkpoint import NetworkCard, check_finite, save_checkpoint
from elastic_cnn.zoo.factory import create_model
from elastic_cnn.zoo.released.labels import COCO, IMAGENET, VOC
from elastic_cnn.zoo.released.reading import read_released
from elastic_cnn.zoo.released.recognise import Recognised, recognise, strip
from elastic_cnn.zoo.released.translate import translate


@dataclass(frozen=True)
class Conversion:
    """What `convert` did: the network's card, its weights' count, the released tensors that were ignored, and the
    names of other networks that have the very same tensors."""

    card: NetworkCard
    tensors: int
    ignored: tuple[str, ...]
    also: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.card.network} ({self.card.task}, {self.card.kwargs['num_classes']} classes): {self.tensors} tensors"
        ]
        if self.ignored:
            layers = dict.fromkeys(name.rpartition(".")[0] for name in self.ignored)
            lines.append(f"  ignored {len(self.ignored)} tensors that no output depends on: {', '.join(layers)}")
        if self.also:
            lines.append(
                f"  the tensors are also those of {', '.join(self.also)}: choose it by --network if it is that"
            )
        return "\n".join(lines)


def convert(source: str | Path, target: str | Path, network: str | None = None, overwrite: bool = False) -> Conversion:
    """Write the released checkpoint `source` as this package's checkpoint `target` (.safetensors).

    network: which one it is, where the tensors alone leave a choice (`resnext50` or `resnext50_selastic`). By default
        the checkpoint's own `arch` decides, else the base.

    Raises `ValueError` where the file is not readable without running code, is not a network of the paper, holds
    tensors that do not fit or are not finite, or `target` exists and is not to be overwritten.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise ValueError(f"{target} must end in .safetensors")
    refuse_output(target, overwrite)
    content = read_released(source)
    with naming(source):
        tensors = strip(content)
    check_finite(tensors, source)
    with naming(source):
        recognised = recognise(tensors)
        name = _choose(recognised, network, content.get("arch"))
        model = create_model(name, **recognised.kwargs)
        translation = translate(tensors, model)
    model.load_state_dict(translation.state)
    card = make_card(name, recognised.kwargs["num_classes"], Path(source), content)
    save_checkpoint(target, model, card)
    others = () if network else (recognised.name, *recognised.also)
    also = tuple(other for other in others if other != name)
    return Conversion(card, len(translation.state), tuple(translation.ignored), also)


def _choose(recognised: Recognised, network: str | None, arch: object) -> str:
    possible = (recognised.name, *recognised.also)
    if network is not None and network not in possible:
        raise ValueError(f"the tensors are those of {' or '.join(possible)}, not of {network!r}")
    return next((name for name in (network, arch) if name in possible), recognised.name)


def make_card(name: str, num_classes: int, source: Path, content: Mapping[str, Any]) -> NetworkCard:
    """The card of a released network: task, input and classes of the paper's three jobs, told by the head."""
    segments = name.startswith("deeplabv3") or name.endswith("_seg")
    info: dict[str, Any] = {"converted_from": source.name}
    if isinstance(content.get("epoch"), int):
        info["epochs"] = content["epoch"]
    trained_on = VOC if segments else COCO if num_classes == 80 else IMAGENET
    return NetworkCard(
        name,
        {"num_classes": num_classes},
        trained_on.task,
        trained_on.classes(num_classes),
        trained_on.input,
        info={**info, **trained_on.info},
    )
