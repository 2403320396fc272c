"""The pictures of masks in docs/explorer.md: a small segmentation network trained on drawn shapes, in the explorer.

    python benchmarks/explorer_masks.py --out runs/explorer_masks --image docs/images/explorer-masks.png

A minute of training, then Chromium shows one photo on a light desktop, a dark one, and on a phone.
"""

import argparse
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from elastic_cnn.cli import main as elastic

CLASSES, VOID = ("ground", "square", "disc", "bar"), 9
PALETTE = ((70, 80, 96), (236, 154, 41), (15, 139, 141), (168, 32, 90))
RECIPE = """\
task: segmentation
network: smp_fpn
network_kwargs: {backbone: resnet10t, encoder_depth: 4, decoder_pyramid_channels: 32, decoder_segmentation_channels: 32}
elastic: true
image_size: 96
epochs: 10
val_every: 5
batch_size: 8
val_batch_size: 1
optimizer: {name: adamw, lr: 0.005}
options: {scale: [0.75, 1.25]}
"""
VIEWS = (((1280, 800), "light"), ((1280, 800), "dark"), ((390, 800), "light"))


def scene(rng: np.random.Generator, side: tuple[int, int] = (192, 144)) -> tuple[Image.Image, Image.Image]:
    """A photo of noisy shapes, and its mask; borders of shapes are void."""
    ground = Image.fromarray(rng.integers(60, 160, (6, 8, 3), dtype=np.uint8)).resize(side, Image.Resampling.BICUBIC)
    mask = Image.new("L", side, 0)
    for _ in range(rng.integers(2, 6)):
        kind, size = int(rng.integers(1, 4)), float(rng.uniform(14, 44))
        x, y = rng.uniform(0, side)
        half = size / 4 if kind == 3 else size
        box = (x - size, y - half, x + size, y + half)
        colour = tuple(int(value) for value in np.clip(np.array(PALETTE[kind]) + rng.normal(0, 15, 3), 0, 255))
        for picture, fill, line in ((ground, colour, colour), (mask, kind, VOID)):
            pen = ImageDraw.Draw(picture)
            (pen.ellipse if kind == 2 else pen.rectangle)(box, fill=fill, outline=line)
    noisy = np.asarray(ground) + rng.normal(0, 14, (side[1], side[0], 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), mask


def make_data(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 12)):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for number in range(count):
            photo, mask = scene(rng)
            photo.save(root / split / f"{number:02}.png")
            mask.save(root / f"{split}annot" / f"{number:02}.png")
    labels = {"classes": CLASSES, "void": VOID, "palette": PALETTE}
    (root / "labels.json").write_text(json.dumps(labels))


def run(*words: object) -> None:
    if elastic(list(map(str, words))):
        sys.exit(f"failed: elastic {' '.join(map(str, words))}")


def shots(index: Path) -> list[Image.Image]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    pictures = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for (width, height), scheme in VIEWS:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"{index.resolve().as_uri()}#sort=iou&photo=3")
            page.wait_for_selector("html[data-ready='1']")
            if scheme == "dark":
                page.click("#overlay-errors")
            page.wait_for_timeout(500)
            pictures.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/explorer_masks", type=Path)
    parser.add_argument("--image", required=True, type=Path)
    parser.add_argument("--keep", action="store_true", help="show the explorer that lies there")
    args = parser.parse_args()
    index = args.out / "explorer" / "index.html"
    if not args.keep:
        make_data(args.out / "data")
        (args.out / "recipe.yaml").write_text(RECIPE)
        run("train", args.out / "recipe.yaml", "--data", args.out / "data", "-o", args.out / "run", "--workers", "0")
        run("explore", args.out / "run", "-o", args.out / "explorer")
    pictures = shots(index)
    sheet = Image.new("RGB", (sum(p.width for p in pictures) + 20, max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + 10
    sheet.quantize(128, dither=Image.Dither.NONE).save(args.image, optimize=True)


if __name__ == "__main__":
    main()
