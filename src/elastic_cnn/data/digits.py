"""Real handwritten digits at known sizes in clutter: the embedded data set, nothing to download.

scikit-learn packages 1,797 scans of 8 x 8 pixels (UCI, "Optical Recognition of Handwritten Digits"). Each image here
shows one whole scan, enlarged to a height drawn log-uniformly and pasted into generated clutter: gradients, gratings,
strokes, and pieces of other digits at sizes from the same range, all darker than the digit. So the objects are real and
the true scale of the one to recognise is known. The scans are divided before anything is drawn: a scan in `val` never
shows up in `train`, not even as a piece of clutter.

Every image is a function of (seed, split, index) alone, whatever the number of images asked for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import Dataset

from elastic_cnn.extras import require
from elastic_cnn.files import atomic_write, refuse_to_overwrite, refuse_unwritable_folder, write_csv

SPLITS = ("train", "val")
CLASSES = tuple("0123456789")
CELLS = 8  # a scan has 8 x 8 cells, and its ink always reaches from the first row to the last
VAL_SHARE = 0.2
BRIGHTEST_CLUTTER = 0.62  # of 1; the digit's ink is 0.8 or more


@dataclass(frozen=True)
class DigitsSpec:
    """What the images look like. `sizes`: least and greatest height of the digit's ink in pixels, drawn log-uniformly.

    clutter: False leaves out gratings, strokes and pieces: the same digits, in the same places, over gradients alone.

    Raises `ValueError` where the largest digit does not fit the image or a size is below the scan's own 8 pixels.
    """

    image_size: int = 64
    sizes: tuple[float, float] = (8.0, 48.0)
    seed: int = 0
    clutter: bool = True

    def __post_init__(self) -> None:
        smallest, largest = self.sizes
        if not CELLS <= smallest <= largest:
            raise ValueError(f"sizes must be {CELLS} or more, the smaller first, got {self.sizes}")
        if largest > self.image_size:
            raise ValueError(f"digits of {largest:g} pixels do not fit an image of {self.image_size}")
        if self.seed < 0:
            raise ValueError(f"the seed must not be negative, got {self.seed}")


@dataclass(frozen=True)
class Scene:
    """One image (H, W, 3) uint8; the digit's ink as `mask` (H, W) in 0..1, its class, height in pixels and scan."""

    image: np.ndarray
    mask: np.ndarray
    label: int
    size: float
    scan: int


@dataclass(frozen=True)
class DigitImages(Dataset):
    """`images` (N, 3, H, W) uint8, `labels` (N,) int64, `sizes` (N,) float32 in pixels, `scans` (N,) int64."""

    images: Tensor
    labels: Tensor
    sizes: Tensor
    scans: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def first(self, count: int) -> "DigitImages":
        """The first `count` images; all where there are fewer."""
        return DigitImages(self.images[:count], self.labels[:count], self.sizes[:count], self.scans[:count])


def make_digits(
    split: str, count: int, spec: DigitsSpec | None = None, progress: Callable[[int], object] | None = None
) -> DigitImages:
    """`count` images of `split` in memory. `progress` is called with the number of images since its last call.

    Raises `ValueError` for an unknown split or a count below one.
    """
    if count < 1:
        raise ValueError(f"at least one image is needed, got a count of {count}")
    spec = spec or DigitsSpec()
    side = spec.image_size
    images = torch.empty(count, 3, side, side, dtype=torch.uint8)
    labels = torch.empty(count, dtype=torch.int64)
    sizes = torch.empty(count, dtype=torch.float32)
    scans = torch.empty(count, dtype=torch.int64)
    for index, scene in enumerate(_scenes(split, count, spec)):
        images[index] = torch.from_numpy(scene.image).permute(2, 0, 1)
        labels[index], sizes[index], scans[index] = scene.label, scene.size, scene.scan
        if progress is not None:
            progress(1)
    return DigitImages(images, labels, sizes, scans)


def write_digits(root: str | Path, counts: dict[str, int], spec: DigitsSpec | None = None) -> Path:
    """The images as an image folder: `root/SPLIT/CLASS/INDEX.png`, and `root/sizes.csv` with every digit's true height.

    `counts` is the number of images of each split. Raises `ValueError` where `root` holds files already.
    """
    root = refuse_unwritable_folder(refuse_to_overwrite(root, "choose another folder"))
    spec = spec or DigitsSpec()
    rows = []
    for split, count in counts.items():
        for index, scene in enumerate(_scenes(split, count, spec)):
            path = Path(split, CLASSES[scene.label], f"{index:06d}.png")
            with atomic_write(root / path) as temporary:
                Image.fromarray(scene.image).save(temporary)
            rows.append([path.as_posix(), CLASSES[scene.label], f"{scene.size:.3f}", scene.scan])
    write_csv(root / "sizes.csv", ["path", "label", "size", "scan"], rows)
    return root


def split_scans(split: str, seed: int = 0) -> np.ndarray:
    """Numbers of the scans of `split`, shuffled; `val` holds a fifth of each class. `ValueError`: unknown split."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    _, targets = _load_scans()
    rng = np.random.default_rng([seed, 1797])
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for label in range(len(CLASSES)):
        members = rng.permutation(np.flatnonzero(targets == label))
        held_out = round(len(members) * VAL_SHARE)
        parts["val"].append(members[:held_out])
        parts["train"].append(members[held_out:])
    return rng.permutation(np.concatenate(parts[split]))


def make_scene(split: str, index: int, spec: DigitsSpec, scans: np.ndarray | None = None) -> Scene:
    """Image number `index` of `split`. `scans`: `split_scans(split, spec.seed)`, where the caller has it already."""
    if scans is None:
        scans = split_scans(split, spec.seed)
    pictures, targets = _load_scans()
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), index])
    scan = int(scans[index % len(scans)])
    size = float(_log_uniform(rng, *spec.sizes))
    side = spec.image_size
    canvas = _background(rng, side, spec.clutter)
    plain = canvas.copy()
    _add_strokes(rng, canvas)  # drawn even where it is left out, so that the same numbers follow
    for _ in range(int(rng.integers(1, 5))):
        piece = _piece(rng, pictures[int(rng.choice(scans))])
        height = float(_log_uniform(rng, *spec.sizes))
        top, left = rng.uniform(-height / 2, side - height / 2, 2)
        _add_clutter(rng, canvas, _enlarge(piece, height, top, left, side))
    canvas = canvas if spec.clutter else plain
    top, left = rng.uniform(0, side - size, 2)
    mask = _enlarge(pictures[scan], size, top, left, side)
    _blend(canvas, mask, rng.uniform(0.8, 1, 3))
    canvas += rng.uniform(0.005, 0.04) * rng.standard_normal(canvas.shape, dtype=np.float32)
    image = (canvas.clip(0, 1) * 255).round().astype(np.uint8)
    return Scene(image, mask, int(targets[scan]), size, scan)


def _scenes(split: str, count: int, spec: DigitsSpec) -> Iterator[Scene]:
    scans = split_scans(split, spec.seed)
    return (make_scene(split, index, spec, scans) for index in range(count))


@cache
def _load_scans() -> tuple[np.ndarray, np.ndarray]:
    """Ink (1797, 8, 8) in 0..1 and classes (1797,)."""
    digits = require("sklearn.datasets", "figures").load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _enlarge(scan: np.ndarray, size: float, top: float, left: float, side: int) -> np.ndarray:
    """The scan as a soft mask (side, side), bicubic, `size` pixels high, its corner at (top, left), both in pixels."""
    cell = size / CELLS
    margin = 2  # empty cells around the scan, for the bicubic kernel
    source = Image.fromarray(np.pad(scan, margin))
    shift = (margin - left / cell, margin - top / cell)
    affine = (1 / cell, 0, shift[0], 0, 1 / cell, shift[1])
    mask = np.asarray(source.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC))
    gain = np.clip(cell, 1.5, 4)  # the edge of a stroke is about one pixel wide at every size, as in a photograph
    return (0.5 + gain * (mask - 0.35)).clip(0, 1)


def _piece(rng: np.random.Generator, scan: np.ndarray) -> np.ndarray:
    """Half of a scan: top, bottom, left or right."""
    piece = scan.copy()
    half = CELLS // 2
    side = int(rng.integers(4))
    start = 0 if side % 2 else half
    piece[(slice(start, start + half), slice(None)) if side < 2 else (slice(None), slice(start, start + half))] = 0
    return piece


def _background(rng: np.random.Generator, side: int, grating: bool) -> np.ndarray:
    """Two colours mixed by smooth noise of several octaves, and a grating; (side, side, 3) float32 in 0..1."""
    mix = np.zeros((side, side), np.float32)
    for cells in (2, 4, 8, 16):
        noise = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
        mix += rng.uniform(0, 1) * np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))
    mix = 0.5 + 0.35 * mix
    base = rng.uniform(0.1, 0.4)
    colours = (base + rng.normal(0, 0.12, (2, 3))).astype(np.float32)
    canvas = colours[0] + mix[..., None] * (colours[1] - colours[0])
    angle, period = rng.uniform(0, np.pi), _log_uniform(rng, 3, side)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    phase = (rows * np.sin(angle) + columns * np.cos(angle)) * (2 * np.pi / period) + rng.uniform(0, 2 * np.pi)
    strength = rng.uniform(0, 0.1) * grating
    canvas = canvas + (strength * np.sin(phase)).astype(np.float32)[..., None]
    return canvas.clip(0, BRIGHTEST_CLUTTER)


def _add_strokes(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A few straight and curved strokes of any width, in place."""
    side = len(canvas)
    for _ in range(int(rng.integers(1, 5))):
        sheet = Image.new("L", (2 * side, 2 * side))  # drawn at twice the size, then halved: smooth edges
        draw = ImageDraw.Draw(sheet)
        width = max(1, round(2 * _log_uniform(rng, 1, side / 10)))
        if rng.random() < 0.5:
            draw.line([tuple(point) for point in rng.uniform(0, 2 * side, (2, 2))], fill=255, width=width)
        else:
            left, top = rng.uniform(-side, 1.5 * side, 2)
            across = rng.uniform(side / 4, 2 * side, 2)
            start, length = rng.uniform(0, 360), rng.uniform(60, 270)
            draw.arc((left, top, left + across[0], top + across[1]), start, start + length, fill=255, width=width)
        _add_clutter(rng, canvas, np.asarray(sheet.reduce(2), dtype=np.float32) / 255)


def _add_clutter(rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray) -> None:
    """Blend a colour over `canvas` (H, W, 3) by `mask` (H, W): brighter or darker than what it covers, in place."""
    weight = mask.sum()
    if weight == 0:  # it lies outside the image
        return
    covered = float(np.einsum("hw,hwc->", mask, canvas) / (3 * weight))
    step = rng.uniform(0.1, 0.35) * (1 if rng.random() < 0.6 else -1)
    _blend(canvas, mask, (covered + step + rng.normal(0, 0.06, 3)).clip(0, BRIGHTEST_CLUTTER))


def _blend(canvas: np.ndarray, mask: np.ndarray, ink: np.ndarray) -> None:
    canvas += mask[..., None] * (ink.astype(np.float32) - canvas)
