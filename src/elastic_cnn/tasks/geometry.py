"""What a recipe says about the shape of pictures: their sides, and what training and testing may do to them."""

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from elastic_cnn.data.transforms import Geometry, Preparation, eval_transform, train_transform
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard

Size = int | tuple[int, int]


def parse_size(value: str | int | tuple[int, ...] | list[int], name: str = "image_size") -> Size:
    """A side of a square, or (height, width): from 64, [32, 128] or the text `32x128`. Squares become one number.

    `ValueError`, naming the key `name`, for anything else and for sides below 1.
    """
    sides: Any = value
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,6})(?:\s*[xX\N{MULTIPLICATION SIGN}]\s*(\d{1,6}))?\s*", value)
        sides = [int(side) for side in match.groups() if side] if match else []
    sides = [sides] if isinstance(sides, int) else list(sides)
    if len(sides) not in (1, 2) or any(side < 1 for side in sides):
        raise ValueError(
            f"{name}={value} must be at least 1, of six digits at most: a side in pixels, or height and width as 32x128"
        )
    return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])


def both_sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class GeometryOptions:
    """hflip, vflip: probability of mirroring left and right, top and bottom (hflip=0 where left and right matter).

    rotation: largest angle of a random rotation, in degrees. quarter_turns: random turns by 90 degrees.
    crop_mode: of training and testing. `center` keeps the shape of things and cuts off the ends of long pictures,
    `border` keeps all and fills up with the mean colour, `squash` keeps all and distorts.
    max_value: what is white in pictures of more than 8 bits (4095 for 12 bits); by default the largest value of their
    type. background: red, green, blue (0..255) that shows where a picture is transparent.
    """

    hflip: float = 0.5
    vflip: float = 0.0
    rotation: float = 0.0
    quarter_turns: bool = False
    crop_mode: Literal["center", "border", "squash"] | None = "center"
    max_value: float | None = None
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        for name in ("hflip", "vflip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"options.{name}={getattr(self, name)} is a probability: it must lie in 0..1")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"options.rotation={self.rotation} must lie in 0..180 degrees")

    def refuse_all_but(self, known: tuple[str, ...], who: str) -> None:
        """`ValueError` where a key of these is set that `who` does not heed."""
        own = {entry.name for entry in fields(GeometryOptions)}
        for entry in fields(self):
            if entry.name in own and entry.name not in known and getattr(self, entry.name) != entry.default:
                raise ValueError(f"options.{entry.name}={getattr(self, entry.name)}: {who}; leave it out")

    def geometry(self) -> Geometry:
        """What training does; without a `crop_mode` it crops freely."""
        return Geometry(self.hflip, self.vflip, self.rotation, self.quarter_turns, self.crop_mode or "center")

    def input_fields(self, crop_pct: float = 0.875, crop_mode: str = "center") -> dict[str, Any]:
        """The fields of the card's `InputSpec` that the options decide; the arguments where they leave it open."""
        mode = self.crop_mode or crop_mode
        return {
            "crop_mode": mode,
            "crop_pct": crop_pct if mode == "center" else 1.0,
            "max_value": self.max_value,
            "background": self.background,
        }


@dataclass(frozen=True)
class CropOptions(GeometryOptions):
    """min_scale: least part of the picture's area in a random crop. color_jitter: 0 for none.

    The other keys are those of `GeometryOptions`.
    """

    min_scale: float = 0.08
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"options.min_scale={self.min_scale} must lie in 0..1")
        if self.color_jitter < 0:
            raise ValueError(f"options.color_jitter={self.color_jitter} must not be negative")


def testing_transform(card: NetworkCard, size: Size | None) -> Preparation:
    """`NetworkCard.transform`, at another size than the card's where one is given."""
    return eval_transform(**asdict(card.input) | ({} if size is None else {"size": both_sides(size)}))


def training_transform(spec: InputSpec, options: CropOptions, test: Preparation, **further: Any) -> Preparation:
    """What training does to a photo before a network of this input sees it.

    options: the recipe's. test: what testing does, which reads files alike. further: arguments of `train_transform`.
    """
    return train_transform(
        spec.size,
        spec.mean,
        spec.std,
        spec.interpolation,
        options.min_scale,
        options.color_jitter,
        geometry=options.geometry(),
        reading=test.reading,
        **further,
    )
