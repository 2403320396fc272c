"""Calibration photos in whatever form they come: prepared tensors, loaders of them, functions, folders of files."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_data_config
from torch import Tensor, nn

from elastic_cnn.data.folders import find_pictures
from elastic_cnn.data.left_out import LeftOut
from elastic_cnn.data.photo_files import draw
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.transforms import Transform, eval_transform, prepare

Photos = Tensor | Iterable[Any] | Callable[[], Iterable[Any]] | str | Path
PIXELS = 32 * 160 * 160  # of the photos that are run at a time


def collect(photos: Photos, limit: int, transform: Transform | None, network: nn.Module, seed: int) -> Tensor:
    """At most `limit` photos, (N, C, H, W).

    photos: a tensor (N, C, H, W); an iterable (a data loader, a data set) of images (C, H, W), batches of them, or
        tuples and dicts (key `image`) that hold one first; a function that returns such an iterable; or a folder, of
        which photos are drawn at random under `seed` and prepared by `transform`, by default as timm's configuration of
        the network says.

    Raises `ValueError` where there is none, where their sizes differ, or values are not finite.
    """
    if isinstance(photos, str | Path):
        found = _read_folder(photos, limit, transform or _transform_of(network), seed)
    else:
        source: Any = photos() if callable(photos) and not isinstance(photos, Tensor) else photos
        found = _take(source, limit)
    if not found:
        raise ValueError("there are no photos to calibrate on")
    shapes = {tuple(image.shape) for image in found}
    if len(shapes) > 1:
        some = " and ".join(map(str, sorted(shapes)[:2]))
        raise ValueError(f"the photos to calibrate on are of different sizes, {some}: bring them to one")
    images = torch.stack(found).float()
    if not bool(images.isfinite().all()):
        raise ValueError("the photos to calibrate on hold values that are not finite")
    return images


def batches(images: Tensor) -> list[Tensor]:
    """(N, C, H, W) -> parts of it, (n, C, H, W), that are small enough to run at once."""
    size = max(1, PIXELS // (images.shape[-1] * images.shape[-2]))
    return [batch.contiguous(memory_format=torch.channels_last) for batch in images.split(size)]


def _take(source: Any, limit: int) -> list[Tensor]:
    """The first `limit` images of a tensor or iterable."""
    images: list[Tensor] = []
    for item in [source] if isinstance(source, Tensor) else source:
        value: Any = item
        while not isinstance(value, Tensor):
            if isinstance(value, Mapping) and "image" in value:
                value = value["image"]
            elif isinstance(value, tuple | list) and value:
                value = value[0]
            else:
                raise ValueError(f"photos must be tensors, or hold them first or as 'image', got {type(item).__name__}")
        if value.dim() not in (3, 4):
            raise ValueError(f"photos must be (C, H, W) or (N, C, H, W), got {tuple(value.shape)}")
        images += [value] if value.dim() == 3 else list(value)
        if len(images) >= limit:
            break
    return images[:limit]


def _transform_of(network: nn.Module) -> Transform:
    config = resolve_data_config(model=network) if hasattr(network, "pretrained_cfg") else resolve_data_config({})
    mode = config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bilinear"
    return eval_transform(config["input_size"][1:], config["mean"], config["std"], mode, config["crop_pct"])


def _read_folder(folder: str | Path, limit: int, transform: Transform, seed: int) -> list[Tensor]:
    left_out = LeftOut()
    images = []
    for path in draw(find_pictures(folder), limit, seed)[0]:
        try:
            images.append(prepare(transform, path))
        except UnreadableSample as error:
            left_out.note(error.path, error.reason)
    if not images:
        raise ValueError(f"no photo of {folder} can be read, the last being {left_out.last}")
    return images
