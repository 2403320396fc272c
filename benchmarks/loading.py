"""How fast photos become training input: images a second and core, beside torchvision's and timm's own pipelines.

    python -m benchmarks.loading PHOTOS [--size 128] [--images 300] [--mosaic 4x3]

PHOTOS: a folder of photos, in folders or not. `--mosaic 4x3` joins twelve photos to one file, JPEG quality 90: for
photos that come shrunk, something of the size and detail of ImageNet's own files. Each pipeline reads the same files in
the same order in this one process, on one thread, in turns; printed are the median and the span of the rounds.
"""

import argparse
import io
import random
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from timm.data import create_dataset, create_transform
from timm.data.loader import fast_collate
from torch.utils.data import default_collate
from torchvision import datasets, transforms

from elastic_cnn.data.image_folder import ImageFolder, train_transform
from elastic_cnn.data.sampler import SeededSamples, collate
from elastic_cnn.measure.tables import markdown_table
from elastic_cnn.measure.turns import in_turns, timer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 32
ENDINGS = (".jpg", ".jpeg")


def prepare(photos: Path, folder: Path, count: int, mosaic: tuple[int, int] | None, rng: random.Random) -> None:
    """`count` files in `folder/train/photos`: the photos themselves, or mosaics of them."""
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise SystemExit(f"{photos} holds no JPEG photos")
    (folder / "train" / "photos").mkdir(parents=True)
    for number in range(count):
        path = folder / "train" / "photos" / f"{number:05d}.jpg"
        if mosaic is None:
            path.write_bytes(rng.choice(files).read_bytes())
            continue
        tiles = [Image.open(rng.choice(files)).convert("RGB") for _ in range(mosaic[0] * mosaic[1])]
        width, height = min(tile.width for tile in tiles), min(tile.height for tile in tiles)
        whole = Image.new("RGB", (width * mosaic[0], height * mosaic[1]))
        for place, tile in enumerate(tiles):
            whole.paste(tile, (place % mosaic[0] * width, place // mosaic[0] * height))
        whole.save(path, quality=90)


def pipelines(folder: Path, size: int) -> dict[str, Callable[[list[int]], object]]:
    """Name -> a function from the numbers of a batch's photos to the batch, as each library makes it on the host."""
    usual = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    plain = datasets.ImageFolder(str(folder / "train"), usual)
    timms = create_dataset("", root=str(folder / "train"), split="train", search_split=False)
    timms.transform = create_transform(
        size, is_training=True, color_jitter=0.0, interpolation="bilinear", use_prefetcher=True
    )
    ours = {
        loading: SeededSamples(ImageFolder(folder, "train", train_transform(size, MEAN, STD, loading=loading)), seed=0)
        for loading in ("exact", "fast")
    }
    return {
        "torchvision ImageFolder, PIL": lambda batch: default_collate([plain[index] for index in batch]),
        "timm, uint8 for its prefetcher": lambda batch: fast_collate([timms[index] for index in batch]),
        "ours, loading=exact": lambda batch: collate([ours["exact"][0, index] for index in batch]),
        "ours, loading=fast": lambda batch: collate([ours["fast"][0, index] for index in batch]),
    }


def read_all(function: Callable[[list[int]], object], count: int) -> None:
    """All files once, in batches."""
    for start in range(0, count, BATCH):
        function(list(range(start, min(start + BATCH, count))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--size", type=int, default=224, help="side of the input (default: 224)")
    parser.add_argument("--images", type=int, default=256, help="files (default: 256)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mosaic", help="COLUMNSxROWS photos in a file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    mosaic = tuple(map(int, args.mosaic.split("x"))) if args.mosaic else None
    with tempfile.TemporaryDirectory() as name:
        prepare(args.photos, Path(name), args.images, mosaic, random.Random(0))
        files = list(Path(name).rglob("*.jpg"))
        with Image.open(io.BytesIO(files[0].read_bytes())) as first:
            shape = f"{first.width}x{first.height}"
        kilobytes = sum(file.stat().st_size for file in files) / len(files) / 1000
        functions = pipelines(Path(name), args.size)
        timers = [timer(partial(read_all, function, args.images)) for function in functions.values()]
        times = in_turns(timers, args.rounds)
    rates = [[args.images / seconds for seconds in one] for one in times]
    base = statistics.median(rates[0])
    rows = [
        [
            label,
            f"{statistics.median(one):.0f}",
            f"{min(one):.0f} to {max(one):.0f}",
            f"{statistics.median(one) / base:.2f}",
        ]
        for label, one in zip(functions, rates, strict=True)
    ]
    print(f"{args.images} files such as {shape}, {kilobytes:.0f} kB each, to {args.size} pixels; {args.rounds} rounds")
    print(markdown_table(["pipeline", "images/s and core", "span", "times torchvision"], rows))


if __name__ == "__main__":
    main()
