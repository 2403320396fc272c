"""Images kept in memory as small pictures, decoded once, and the random views of them that training takes.

A sample is no picture but a place in one (an affine map, drawn under the sample's own seed); the batch's pictures are
cut out at once where the network is. On a GPU the pictures lie in its memory, so nothing but numbers travels there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from elastic_cnn.data.fast_pixels import normalise
from elastic_cnn.data.mask_transforms import IGNORE
from elastic_cnn.data.masks import Labels


@dataclass
class Store:
    """images (N, 3, H, W) uint8; targets: tensors (N, ...) by the names under which a task looks for them; masks
    (N, H, W) uint8 of segmentation; sizes (N,) of digits in pixels, plain (N, 3, H, W) uint8 the same digits without
    clutter. `classes`: names, or `Labels` of masks. kind: of the data, as `study.kinds` names them."""

    name: str
    images: Tensor
    targets: dict[str, Tensor]
    classes: tuple[str, ...]
    masks: Tensor | None = None
    sizes: np.ndarray | None = None
    plain: Tensor | None = None
    labels: Labels | None = None
    kind: str = "photos"
    _there: dict[str, tuple[Tensor, Tensor | None]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Images and masks on a device, taken there once."""
        key = str(device)
        if key not in self._there:
            masks = None if self.masks is None else self.masks.to(device)
            self._there[key] = (self.images.to(device), masks)
        return self._there[key]


View = Callable[[], Tensor]  # -> (2, 3), the map from a view's coordinates to the picture's, both -1..1


class Views:
    """`Samples` of the training engine: number `i` is a view of the picture `i % len(store)`.

    view: draws a view from torch's global generator, None for whole pictures. length: the number of samples.
    """

    def __init__(self, store: Store, view: View | None = None, length: int | None = None) -> None:
        self.store, self.view = store, view
        self.length = length or len(store)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = index % len(self.store)
        view = torch.eye(2, 3) if self.view is None else self.view()
        targets = {name: values[picture] for name, values in self.store.targets.items()}
        return {"image": view[None], "picture": picture, **targets}  # (1, 2, 3): batches are 4-dimensional

    def path(self, index: int) -> str:
        return f"{self.store.name}, image {index % len(self.store)}"


class Photos:
    """`Samples` of whole pictures, as `transform` makes a network's input of an RGB picture: (3, H, W)."""

    def __init__(self, store: Store, transform: Any = None) -> None:
        self.store, self.transform = store, transform

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = Image.fromarray(self.store.images[index].permute(1, 2, 0).numpy())
        return {"image": self.transform(picture)}

    def path(self, index: int) -> str:
        return f"{self.store.name}, image {index}"


def box_view(top: float, left: float, height: float, width: float, flip: bool) -> Tensor:
    """The view (2, 3) of a box, in parts of the picture's height and width; it may reach over the edge."""
    x = -width if flip else width
    return torch.tensor([[x, 0.0, 2 * left + width - 1], [0.0, height, 2 * top + height - 1]])


def random_crop(min_scale: float, ratio: float = 4 / 3, hflip: float = 0.5) -> View:
    """Random resized crop and flip: a part of `min_scale` to 1 of the area, sides' ratio within 1/ratio..ratio.

    hflip: probability of the flip.
    """

    def draw() -> Tensor:
        part, stretch, top, left, flip = torch.rand(5).tolist()
        area, shape = min_scale + part * (1 - min_scale), math.exp((2 * stretch - 1) * math.log(ratio))
        height, width = min(1.0, math.sqrt(area / shape)), min(1.0, math.sqrt(area * shape))
        return box_view(top * (1 - height), left * (1 - width), height, width, flip < hflip)

    return draw


def random_scale(picture: Sequence[int], crop: int, scales: Sequence[float]) -> View:
    """A square crop of `crop` pixels of the picture (height, width) enlarged by a random factor, and flip."""

    def draw() -> Tensor:
        part, top, left, flip = torch.rand(4).tolist()
        scale = scales[0] + part * (scales[1] - scales[0])
        height, width = crop / (scale * picture[0]), crop / (scale * picture[1])
        return box_view(top * (1 - height), left * (1 - width), height, width, flip < 0.5)

    return draw


def cut_out(pictures: Tensor, views: Tensor, size: int, nearest: bool = False) -> Tensor:
    """Views (N, 2, 3) of pictures (N, C, H, W) floats -> (N, C, size, size); zeros beyond the edge."""
    grid = functional.affine_grid(views.float(), [len(views), 1, size, size], align_corners=False)
    mode = "nearest" if nearest else "bilinear"
    return functional.grid_sample(pictures, grid, mode=mode, padding_mode="zeros", align_corners=False)


class StoreBatches:
    """Mixin before a task: cuts the batch's pictures out of the stores before each step. `equip` first."""

    stores: dict[bool, Store]

    def equip(self, train: Store, val: Store, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        """The stores to train and validate on, the side of training views, and the normalisation."""
        object.__setattr__(self, "stores", {True: train, False: val})
        self.view_size, self.mean, self.std = size, tuple(mean), tuple(std)

    def fill(self, batch: dict[str, Any], training: bool) -> dict[str, Any]:
        """`image` (N, 1, 2, 3) becomes (N, 3, H, W), normalised; with masks, `target` (N, H, W)."""
        views = batch["image"][:, 0]
        pictures, masks = self.stores[training].on(views.device)
        images = normalise(pictures[batch["picture"]], self.mean, self.std)
        filled = dict(batch)
        whole = not training or torch.equal(views, torch.eye(2, 3, device=views.device).expand_as(views))
        if masks is not None:
            target = masks[batch["picture"]]
            if not whole:  # counted from 1, so that what lies beyond the edge is 0, then void
                found = cut_out(target[:, None].float() + 1, views, self.view_size, nearest=True)[:, 0]
                target = torch.where(found == 0, IGNORE + 1, found) - 1
            filled["target"] = target.long()
        if not whole:
            images = cut_out(images, views, self.view_size)
        filled["image"] = images.contiguous(memory_format=torch.channels_last)
        return filled

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return super().training_step(self.fill(batch, True), batch_idx)  # type: ignore[misc]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        super().validation_step(self.fill(batch, False), batch_idx)  # type: ignore[misc]
