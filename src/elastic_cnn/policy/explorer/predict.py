"""What a network says about one photo, at several sizes of it: the answer behind "drop a photo here"."""

import io
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import nn

from elastic_cnn.data.image_folder import eval_transform
from elastic_cnn.data.pixels import to_rgb
from elastic_cnn.policy.answers import interpret
from elastic_cnn.policy.scores import block_info, record_policy

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp")
FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)  # of the size that the network was trained for
GRAIN = 32  # sizes are multiples of it
MOST_PIXELS = 50_000_000


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
        if self.task not in ("classification", "multilabel"):
            raise ValueError(f"the explorer takes networks that name what is in a photo, not for {self.task}")
        if not self.classes:
            raise ValueError("the checkpoint does not name its classes, so its answers cannot be told")
        block_info(self.network)  # raises where no block is elastic

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
        photo = read_photo(data)
        blocks: list[dict[str, Any]] = []
        sizes = []
        for size in self.sizes:
            images = eval_transform(**{**self.preparation, "size": size})(photo).unsqueeze(0)  # (1, 3, H, W)
            with self._lock, record_policy(self.network) as policy, torch.no_grad():
                answer = interpret(self.network(images), self.task, self.classes)[0]
                scores = policy.scores()[0].tolist()  # (blocks,)
                if list(size) == list(self.preparation["size"]):
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
        return {"width": photo.width, "height": photo.height, "blocks": blocks, "sizes": sizes}


def read_photo(data: bytes) -> Image.Image:
    """The photo in `data`, upright, RGB. `Refused` where it is of another type, broken or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF, sizes that we bound ourselves
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                pixels = image.width * image.height
                if pixels > MOST_PIXELS:
                    raise Refused(
                        f"This photo has {pixels / 1e6:.0f} megapixels; the limit is {MOST_PIXELS // 1_000_000}."
                    )
                return to_rgb(ImageOps.exif_transpose(image))
    except Refused:
        raise
    except Image.UnidentifiedImageError as error:
        raise Refused("This is no JPEG, PNG, WebP or BMP picture.") from error
    except Image.DecompressionBombError as error:
        raise Refused(f"This photo is too large; the limit is {MOST_PIXELS // 1_000_000} megapixels.") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... for broken files
        raise Refused("This picture is broken or cut short.") from error


def _grain(length: float) -> int:
    return max(GRAIN, round(length / GRAIN) * GRAIN)
