"""What travels in an exported file beside the graph: class names, how a photo becomes the input, the sizes it takes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elastic_cnn.files import naming
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.zoo.checkpoint import NetworkCard

CARD_KEY = "elastic_cnn"


@dataclass(frozen=True)
class Sizes:
    """Heights and widths that a captured graph takes.

    minimum: the smallest height and width. multiple: they must be multiples of it. fixed: the only (height, width), or
    None. The batch may always vary.
    """

    minimum: int = 1
    multiple: int = 1
    fixed: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.fixed:
            return f"{self.fixed[0]}x{self.fixed[1]} alone"
        if self.multiple > 1:
            return f"any height and width that are multiples of {self.multiple}, from {self.minimum} up"
        return f"any height and width from {self.minimum} up"

    def takes(self, height: int, width: int) -> bool:
        """Whether the size is among them."""
        if self.fixed:
            return (height, width) == self.fixed
        return min(height, width) >= self.minimum and height % self.multiple == width % self.multiple == 0

    def near(self, height: int, width: int, odd: bool = False) -> tuple[int, int]:
        """The nearest (height, width) that is taken; odd ones where asked for and possible."""
        if self.fixed:
            return self.fixed
        sides = []
        for side in (height, width):
            side = max(round(side / self.multiple) * self.multiple, self.minimum)
            sides.append(side + 1 - side % 2 if odd and self.multiple == 1 else side)
        return sides[0], sides[1]


def metadata(card: NetworkCard, sizes: Sizes, **extra: Any) -> dict[str, str]:
    """Keys and texts to store in a file; lists and tuples as JSON. `elastic_cnn` holds the whole card."""
    values: dict[str, Any] = {
        "network": card.network,
        "task": card.task,
        "classes": list(card.classes),
        "input": "float32 RGB images (batch, channels, height, width): (pixel / 255 - mean) / std",
        "output": f"logits; {task_spec(card.task).activation} gives probabilities",
        "input_size": list(card.input.size),
        "mean": list(card.input.mean),
        "std": list(card.input.std),
        "interpolation": card.input.interpolation,
        "crop_pct": card.input.crop_pct,
        "crop_mode": card.input.crop_mode,
        "sizes": str(sizes),
        CARD_KEY: card.to_json(),
        **extra,
    }
    return {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in values.items()}


def card_from(values: Mapping[str, str], path: object) -> NetworkCard:
    """The card in a file's metadata. `ValueError` names the file that has none, or a broken one."""
    if CARD_KEY not in values:
        raise ValueError(f"{path} does not say how to use it: it was not written by `elastic export`")
    with naming(path):
        return NetworkCard.from_json(values[CARD_KEY])
