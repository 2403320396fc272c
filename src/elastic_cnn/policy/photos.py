"""Opening the photos whose policy is asked for: image folders, tar files and shards, Hugging Face data sets, COCO."""

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from elastic_cnn.data.coco import ANYWHERE, CocoImages, CocoPlaces
from elastic_cnn.data.folders import same_name
from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.listings import is_listing
from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.remote import is_url
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.tasks.spec import task_names, task_spec
from elastic_cnn.text import file_name, listed


class FolderPhotos:
    """Photos of one class each, or of none: `ImageFolder` with labels in words, relative paths and object sizes.

    data: a folder with the split in it, or of class folders, or of photos alone; `wds/FOLDER`, `hfds/NAME`.
    classes: the network's; the photos may have others.
    Object sizes are read from `sizes.csv` (columns `path` and `size`) in the folder, where there is one.
    """

    def __init__(self, data: str, split: str, transform: Callable[[Any], Any], classes: Sequence[str] = ()) -> None:
        self.root = data
        if data.startswith(("wds/", "hfds/")):
            self.root = data.split("/", 1)[1]
        self.images = ImageFolder(data, split, transform, labels="optional", known=classes)
        if is_listing(data):
            self.root = self.images.reader.root
        known = {same_name(name): name for name in classes}
        self._names = [known.get(same_name(name), name) for name in self.images.classes]
        self.found_line, self.notices = self.images.found_line, self.images.notices
        if strange := [name for name in self._names if name and known and name not in classes]:
            self.notices += (f"{split} holds {listed(strange)}, which the network does not know: never right",)
        self._sizes = {} if is_url(self.root) else read_sizes(Path(self.root))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.images[index]

    def prefetch(self, indices: Sequence[int]) -> None:
        self.images.prefetch(indices)

    def path(self, index: int) -> str:
        """Relative to the data's root, with `/`; `SHARD:MEMBER` in shards."""
        return below(self.images.path(index), self.root)

    def label(self, index: int, target: int | None = None) -> str | None:
        """The class's name; None for photos that lie in no class folder."""
        return (self._names[target] or None) if target is not None else None

    def object_sizes(self, index: int) -> list[float] | None:
        size = self._sizes.get(self.path(index)) if self._sizes else None
        return None if size is None else [size]

    def photo(self, index: int) -> Image.Image:
        """The picture as it is stored, upright. `UnreadableSample` where it is broken."""
        return read_rgb(self.images.source(index), self.path(index))


class CocoPhotos:
    """COCO's photos with the classes that the network knows; sizes of objects as the square root of their area."""

    def __init__(
        self,
        data: str,
        split: str,
        classes: Sequence[str],
        transform: Callable[[Image.Image], Any],
        places: CocoPlaces = ANYWHERE,
    ) -> None:
        self.images = CocoImages(data, split, transform, places, zero_area="keep", classes=classes, others="drop")
        self.root = data

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.images[index]

    def path(self, index: int) -> str:
        return self.images.path(index)

    def label(self, index: int, target: int | None = None) -> list[str]:
        return self.images.label(index)

    def object_sizes(self, index: int) -> list[float]:
        return [size for size in self.images.object_sizes(index) if size > 0]

    def photo(self, index: int) -> Image.Image:
        """The picture as it is stored, upright. `UnreadableSample` where it is broken."""
        return read_rgb(self.images.files[index])


def open_photos(
    data: str,
    split: str,
    task: str,
    classes: Sequence[str],
    preparation: Mapping[str, Any],
    places: Mapping[str, str] = MappingProxyType({}),
) -> FolderPhotos | CocoPhotos:
    """The photos of a split, prepared as `preparation` says (the fields of a checkpoint's `InputSpec`).

    places: `annotations` and `images` of data in COCO's format (see `CocoPlaces`).
    Raises `ValueError` where the data is missing, empty or of another layout, or the task has no policy table.
    """
    spec = task_spec(task)
    if spec.photos is None:
        known = " and ".join(task_names(lambda spec: spec.photos is not None))
        raise ValueError(f"policies are collected for {known} checkpoints; this one is for {task}")
    if places and not spec.places:
        raise ValueError(f"--annotations and --images are for multi-label data; this checkpoint is for {task}")
    opened: FolderPhotos | CocoPhotos = spec.code("photos")(data, split, classes, eval_transform(**preparation), places)
    return opened


def folder_photos(
    data: str, split: str, classes: Sequence[str], transform: Callable[[Any], Any], places: Mapping[str, str]
) -> FolderPhotos:
    """Photos of one class each, or of none."""
    return FolderPhotos(data, split, transform, classes)


def coco_photos(
    data: str, split: str, classes: Sequence[str], transform: Callable[[Any], Any], places: Mapping[str, str]
) -> CocoPhotos:
    """COCO's photos, whose file and folder `places` may name."""
    return CocoPhotos(data, split, classes, transform, CocoPlaces(**places))


def open_or_none(photos: FolderPhotos | CocoPhotos, ids: Sequence[int]) -> Callable[[int], Image.Image | None]:
    """`row -> photo` for the figures, where row number i shows photo `ids[i]`; None where it cannot be read."""

    def open_photo(row: int) -> Image.Image | None:
        try:
            return photos.photo(ids[row])
        except UnreadableSample:
            return None

    return open_photo


def below(path: str, root: str) -> str:
    """`path` relative to `root`, where it lies below."""
    if is_url(root):
        return path.removeprefix(root.rstrip("/") + "/")
    for start in (root, os.path.abspath(root), os.path.realpath(root)):
        if path.startswith(start.rstrip(os.sep) + os.sep):
            return Path(path[len(start.rstrip(os.sep)) + 1 :]).as_posix()
    return Path(path).as_posix()


def read_sizes(root: Path) -> dict[str, float]:
    """{path: size} of `sizes.csv`, empty where there is none. `ValueError` where it is broken."""
    path = root / "sizes.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not {"path", "size"} <= set(rows.fieldnames or ()):
                raise ValueError(f"its first line is {','.join(rows.fieldnames or ())!r:.60}")
            return {row["path"]: float(row["size"]) for row in rows}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} is no table with the columns path and size ({error!r}): mend or remove it") from error


def open_path_or_none(root: str | Path, paths: Sequence[str]) -> Callable[[int], Image.Image | None]:
    """`row -> photo` from the paths of a table's rows below `root`; None where there is none, or it is broken.

    Tables hold names that are not UTF-8 with their bytes as \\xNN. Paths that lead out of `root` are not
    followed; links in it that the user made are.
    """
    top = Path(os.path.abspath(root))

    def open_photo(row: int) -> Image.Image | None:
        for name in (paths[row], file_name(paths[row])):
            path = Path(os.path.normpath(top / name))
            if path.is_relative_to(top) and path.is_file():
                try:
                    return read_rgb(path)
                except UnreadableSample:
                    return None
        return None

    return open_photo
