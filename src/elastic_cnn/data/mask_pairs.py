"""Which photo goes with which mask: folders in the layouts of data sets and tools, PASCAL VOC 2012 with SBD."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import SBDataset, VOCSegmentation

from elastic_cnn.data.folders import SPLITS, same_name, walk
from elastic_cnn.data.picture_kinds import is_picture_name, picture_endings
from elastic_cnn.extras import require
from elastic_cnn.text import utf8

SPLIT = "{split}"  # in `photos` and `masks`, the split's name
LAYOUTS = (
    ("{split}", "{split}annot"),
    ("images/{split}", "masks/{split}"),
    ("images/{split}", "labels/{split}"),
    ("images/{split}", "annotations/{split}"),
    ("{split}/images", "{split}/masks"),
    ("{split}/images", "{split}/labels"),
    ("img_dir/{split}", "ann_dir/{split}"),
    ("leftImg8bit/{split}", "gtFine/{split}"),
)


@dataclass(frozen=True)
class Pairs:
    """The photos of a split and their masks, in order."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Layout:
    """Where a folder keeps photos and masks.

    photos, masks: folders below the data folder, `{split}` for the split's name: `images/{split}`, `masks/{split}`;
    empty: found among `LAYOUTS`. photo_suffix, mask_suffix: what stands behind a name that photo and mask share
    (`_leftImg8bit`, `_gtFine_labelTrainIds`); files without it are passed over.
    """

    photos: str = ""
    masks: str = ""
    photo_suffix: str = ""
    mask_suffix: str = ""

    def __post_init__(self) -> None:
        if bool(self.photos) != bool(self.masks):
            raise ValueError(f"photos={self.photos!r} and masks={self.masks!r} belong together: give both, or none")
        if self.photos and not (SPLIT in self.photos and SPLIT in self.masks):
            raise ValueError(
                f"photos={self.photos!r} and masks={self.masks!r} must hold {SPLIT}, else all splits were the same"
            )


def folder_pairs(root: str | Path, split: str, layout: Layout = Layout()) -> Pairs:
    """Pairs of photos and masks whose paths below their folders are equal but for the ending and `layout`'s suffixes.

    `ValueError` names a folder that is missing or empty, folders in two layouts at once, and files without partner.
    """
    photo_folder, mask_folder = _folders(Path(root), split, layout)
    photos, masks = _by_name(photo_folder, layout.photo_suffix), _by_name(mask_folder, layout.mask_suffix)
    alone = [f"the photo {photos[name]} has no mask" for name in sorted(photos.keys() - masks.keys())]
    alone += [f"the mask {masks[name]} has no photo" for name in sorted(masks.keys() - photos.keys())]
    if alone:
        more = f" (and {len(alone) - 1} more files without partner)" if len(alone) > 1 else ""
        raise ValueError(f"{alone[0]}{more}: names must be equal but for the ending{_suffix_hint(photos, masks)}")
    names = sorted(photos)
    return Pairs(tuple(photos[name] for name in names), tuple(masks[name] for name in names))


def _folders(root: Path, split: str, layout: Layout) -> tuple[Path, Path]:
    """The folders of a split's photos and masks."""
    names = SPLITS.get(split, (split,))
    layouts = ((layout.photos, layout.masks),) if layout.photos else LAYOUTS
    tried = [[root / folder.replace(SPLIT, name) for folder in pair] for pair in layouts for name in names]
    found = [(photos, masks) for photos, masks in tried if photos.is_dir() and masks.is_dir()]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        (first, _), (second, masks) = found[:2]
        raise ValueError(
            f"{root} has the split {split!r} twice, in {first} and in {second} with {masks}: choose with "
            f"options.photos and options.masks (as images/{SPLIT} and masks/{SPLIT})"
        )
    missing = next((folder for pair in tried for folder in pair if not folder.is_dir()), root)
    if half := next((pair for pair in tried if any(folder.is_dir() for folder in pair)), None):
        missing = next(folder for folder in half if not folder.is_dir())
    there = ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_dir())) if root.is_dir() else ""
    raise ValueError(
        f"there is no folder {missing}: photos belong in SPLIT/ (train, val, test) and masks in SPLITannot/, or as "
        f"options.photos and options.masks say (images/{SPLIT}, masks/{SPLIT}); {root} holds {there or 'no folder'}"
    )


def _by_name(folder: Path, suffix: str) -> dict[str, Path]:
    """{path below the folder without suffix and ending: file}, of all pictures in it and the folders below."""
    files: dict[str, Path] = {}
    pictures = list(walk_pictures(folder))
    for path in pictures:
        name = same_name(path.relative_to(folder).with_suffix("").as_posix())
        if not name.endswith(suffix):
            continue
        name = name.removesuffix(suffix)
        if name in files:
            raise ValueError(f"{files[name]} and {path.name} have the same name: keep one of them")
        files[name] = path
    if not files:
        behind = f" whose name ends in {suffix}" if suffix and pictures else ""
        raise ValueError(f"{folder} holds no picture{behind} ({', '.join(picture_endings())})")
    return files


def walk_pictures(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and those below it, in order, without the system's own files.

    `ValueError` for a link to a folder that was met already: its pictures would count twice.
    """
    seen: set[str] = set()
    for place, _, names in walk(folder):
        real = os.path.realpath(place)
        if real in seen:
            raise ValueError(f"{utf8(place)} leads to a folder that is read already ({utf8(real)}): remove the link")
        seen.add(real)
        yield from (Path(place, name) for name in sorted(names) if is_picture_name(name))


def _suffix_hint(photos: dict[str, Path], masks: dict[str, Path]) -> str:
    """The suffixes that would give every photo its mask, as the first photo and the mask likest to it suggest them."""
    first = min(photos)
    shared = max((_shared_start(first, name) for name in sorted(masks)), key=len).rstrip("_-. ")
    likest = min(name for name in masks if name.startswith(shared))
    photo_suffix, mask_suffix = first[len(shared) :], likest[len(shared) :]
    names = [name.removesuffix(photo_suffix) for name in photos if name.endswith(photo_suffix)]
    if not shared or len(names) < len(photos) or not all(name + mask_suffix in masks for name in names):
        return ""
    given = {"photo_suffix": photo_suffix, "mask_suffix": mask_suffix}
    shown = " ".join(f"options.{key}={value}" for key, value in given.items() if value)
    return f"; {shown} would give every photo its mask"


def _shared_start(a: str, b: str) -> str:
    differs = (position for position, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return a[: next(differs, min(len(a), len(b)))]


def voc_pairs(root: str | Path, split: str) -> Pairs:
    """VOC 2012 from `root/VOCdevkit/VOC2012`: `train` (1,464), `val` (1,449), `trainval`, or `train_aug` (10,582).

    `train_aug` is VOC's train split with all of SBD but VOC's val split. It is read from VOC's own list
    `ImageSets/Segmentation/trainaug.txt` with the masks in `SegmentationClassAug` where these exist, else from SBD's
    release in `root/sbd` (img, cls, train.txt, val.txt). Photos that both have take VOC's finer masks.
    `ValueError` names what is missing.
    """
    root = Path(root)
    voc = root / "VOCdevkit" / "VOC2012"
    if not voc.is_dir():
        raise ValueError(f"there is no {voc}: unpack VOCtrainval_11-May-2012.tar in {root}")
    if split != "train_aug":
        return _voc_split(root, split)
    listed, masks = voc / "ImageSets" / "Segmentation" / "trainaug.txt", voc / "SegmentationClassAug"
    if listed.is_file() and masks.is_dir():
        names = listed.read_text(encoding="utf-8").split()
        return _existing([voc / "JPEGImages" / f"{n}.jpg" for n in names], [masks / f"{n}.png" for n in names])
    sbd = root / "sbd"
    if not sbd.is_dir():
        raise ValueError(
            f"train_aug needs SBD's masks: put its img, cls, train.txt, val.txt in {sbd}, or give {listed}"
        )
    require("scipy", "figures")
    train, held_out = _voc_split(root, "train"), {path.stem for path in _voc_split(root, "val").images}
    chosen = {image.stem: (image, mask) for image, mask in zip(train.images, train.masks, strict=True)}
    for part in ("train", "val"):
        try:
            more = SBDataset(str(sbd), image_set=part, mode="segmentation")
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{sbd} is not SBD's release: {error}") from error
        for image, mask in zip(map(Path, more.images), map(Path, more.masks), strict=True):
            if image.stem not in held_out:
                chosen.setdefault(image.stem, (image, mask))
    names = sorted(chosen)
    return _existing([chosen[name][0] for name in names], [chosen[name][1] for name in names])


def _voc_split(root: Path, split: str) -> Pairs:
    try:
        listed = VOCSegmentation(str(root), year="2012", image_set=split)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"VOC has no split {split!r} in {root} (train, val, trainval, train_aug): {error}") from error
    return _existing([Path(image) for image in listed.images], [Path(mask) for mask in listed.masks])


def _existing(images: Sequence[Path], masks: Sequence[Path]) -> Pairs:
    for path in (*images, *masks):
        if not path.is_file():
            raise ValueError(f"{path} is listed but missing: unpack the data set again")
    if not images:
        raise ValueError("the split lists no photo")
    return Pairs(tuple(images), tuple(masks))
