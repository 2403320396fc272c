"""COCO's photos as multi-label samples with object sizes; `coco_annotations.py` reads what is in them.

`coco_files.py` finds the files, in the layouts of COCO and of tools.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from elastic_cnn.data.coco_annotations import AREA_BOUNDS, SIZE_NAMES, CocoAnnotations, read_annotations
from elastic_cnn.data.coco_files import CocoPlaces, find_photos, find_split
from elastic_cnn.data.left_out import warn
from elastic_cnn.data.transforms import prepare

__all__ = ["AREA_BOUNDS", "SIZE_NAMES", "CocoAnnotations", "CocoImages", "CocoPlaces", "find_split", "read_annotations"]

ANYWHERE = CocoPlaces()


class CocoImages(Dataset):
    """One split: samples `{"image": (3, H, W), "targets": (C,) float32, "size_targets": (3, C) bool}`, by image id.

    root, split, places: see `find_split`. transform: PIL image -> tensor (3, H, W). options: of `read_annotations`.

    Raises `ValueError` as `read_annotations`, `find_split` and `find_photos` do. A broken image raises
    `UnreadableSample` when it is read.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        transform: Callable[[Image.Image], Tensor],
        places: CocoPlaces = ANYWHERE,
        **options: Any,
    ) -> None:
        self.root = Path(root)
        self.transform = transform
        path, folders = find_split(root, split, places)
        self.annotations = read_annotations(path, **options)
        self.classes = self.annotations.classes
        self.files = find_photos(self.annotations.file_names, self.annotations.image_ids.tolist(), folders, path)
        for notice in self.annotations.notices:
            warn(notice)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": prepare(self.transform, self.files[index]),
            "targets": torch.from_numpy(self.annotations.targets[index]).float(),
            "size_targets": torch.from_numpy(self.annotations.size_targets[index]),
        }

    def path(self, index: int) -> str:
        """With `/`, relative to `root` where it lies below."""
        file = self.files[index]
        return (file.relative_to(self.root) if file.is_relative_to(self.root) else file).as_posix()

    def label(self, index: int) -> list[str]:
        """The names of the classes in the image, in the classes' order."""
        return [self.classes[c] for c in np.flatnonzero(self.annotations.targets[index])]

    def object_sizes(self, index: int) -> list[float]:
        """The square root of the area of each object in the image, in pixels of the native photo."""
        return np.sqrt(self.annotations.areas[self.annotations.objects(index)]).tolist()
