"""What a network says about one photo, at several sizes of it: the answer behind "drop a photo here"."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from elastic_cnn.data.picture_kinds import RGB, BadSize, NoPicture, Reading, picture_formats
from elastic_cnn.data.pixels import opened, read_picture
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.transforms import Picture, eval_transform
from elastic_cnn.policy.answers import interpret
from elastic_cnn.policy.scores import record_if_elastic
from elastic_cnn.tasks.spec import task_spec

MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "BMP": "image/bmp"}
NEWER_TYPES = {"AVIF": "image/avif", "HEIF": "image/heic"}  # where Pillow reads them here
NAMES = {"WEBP": "WebP", "HEIF": "HEIC"}
FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)  # of the size that the network was trained for
GRAIN = 32  # sizes are multiples of it
MOST_PIXELS = 50_000_000


def photo_types() -> dict[str, str]:
    """{Pillow's name of a format: media type} of the photos that are taken on this machine."""
    known = picture_formats()
    return MEDIA_TYPES | {name: kind for name, kind in NEWER_TYPES.items() if name in known}


def photo_types_in_words() -> str:
    """`JPEG, PNG, WebP or BMP`."""
    *first, last = (NAMES.get(name, name) for name in photo_types())
    return f"{', '.join(first)} or {last}"


class Refused(ValueError):
    """A photo that is not looked at; the message says why, in words of ours alone."""


@dataclass(frozen=True)
class Predictor:
    """A network that is asked about photos. preparation: the fields of its checkpoint's `InputSpec`."""

    network: nn.Module
    name: str
    task: str
    classes: Sequence[str]
    preparation: Mapping[str, Any]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        if task_spec(self.task).photos is None:
            raise ValueError(f"the explorer takes networks that name what is in a photo, not for {self.task}")
        if not self.classes:
            raise ValueError("the checkpoint does not name its classes, so its answers cannot be told")
        self.network.eval()

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Heights and widths at which a photo is shown to the network, ascending."""
        height, width = self.preparation["size"]
        scaled = {(_grain(height * factor), _grain(width * factor)) for factor in FACTORS}
        return sorted(scaled | {(height, width)})

    def answer(self, data: bytes) -> dict[str, Any]:
        """Predictions and policies (JSON values) of the photo in `data`. `Refused` where it is no photo we take.

        One photo at a time: recording a policy hooks the network.
        """
        photo = read_photo(data, eval_transform(**self.preparation).reading)
        height, width = photo.shape[-2:] if isinstance(photo, torch.Tensor) else photo.size[::-1]
        blocks: list[dict[str, Any]] = []
        sizes = []
        for size in self.sizes:
            images = eval_transform(**{**self.preparation, "size": size})(photo).unsqueeze(0)  # (1, C, H, W)
            with self._lock, record_if_elastic(self.network) as policy, torch.no_grad():
                answer = interpret(self.network(images), self.task, self.classes, whose=self.name)[0]
                scores = [] if policy is None else policy.scores()[0].tolist()  # (blocks,)
                if policy is not None and list(size) == list(self.preparation["size"]):
                    blocks = [block.to_dict() for block in policy.blocks]
            sizes.append(
                {
                    "height": size[0],
                    "width": size[1],
                    "trained": list(size) == list(self.preparation["size"]),
                    "predictions": [{"name": name, "confidence": value} for name, value in answer.ranked],
                    "scores": scores,
                }
            )
        return {"width": width, "height": height, "blocks": blocks, "sizes": sizes}


def read_photo(data: bytes, reading: Reading = RGB) -> Picture:
    """The photo in `data`, upright, RGB or as `reading` says. `Refused` where it is of another type, broken, too large
    or far too long for its width."""
    limit = MOST_PIXELS // 1_000_000
    try:
        with opened(data, "photo", tuple(photo_types())) as image:
            pixels = image.width * image.height
        if pixels > MOST_PIXELS:
            raise Refused(f"This photo has {pixels / 1e6:.0f} megapixels; the limit is {limit}.")
        return read_picture(data, "photo", reading)
    except NoPicture as error:
        raise Refused(f"This is no {photo_types_in_words()} picture.") from error
    except BadSize as error:
        raise Refused(f"This photo is too large or far too long; the limit is {limit} megapixels.") from error
    except UnreadableSample as error:
        if "the network takes" in error.reason:
            raise Refused(f"This picture does not fit: {error.reason}.") from error
        raise Refused("This picture is broken or cut short.") from error


def _grain(length: float) -> int:
    return max(GRAIN, round(length / GRAIN) * GRAIN)
