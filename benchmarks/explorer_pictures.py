"""The pictures of digits in docs/explorer.md: base and Elastic of studies/budget.yaml, asked about generated digits.

    python benchmarks/explorer_pictures.py --images docs/images

Some minutes of training (32,000 views, seed 0), then Chromium shows the explorers of both on desktops and phones.
Twelve of the 500 digits are saved a second time at three quarters of their size, so that there are copies to see.
Networks that lie in the folder `--out` are not trained again.
"""

import argparse
import io
import shutil
import sys
from pathlib import Path

import yaml
from PIL import Image

from elastic_cnn.cli import main as elastic
from elastic_cnn.data.digits import DigitsSpec, write_digits
from elastic_cnn.policy.table import read_policy

STUDY = Path(__file__).parents[1] / "studies" / "budget.yaml"
RECIPE, PHOTOS, COPIES, SIDE = "views_32000", 500, 12, 48
OPENED = "000377.png"
WIDE, DESKTOP, PHONE = (1440, 900), (1280, 860), (390, 844)
VIEWS = {  # picture: [(explorer, colour scheme, window, address)], side by side
    "explorer": [("elastic", "light", WIDE, "sort=confidence&down=1&low=40")],
    "explorer-detail": [("elastic", "light", DESKTOP, "sort=category&photo={opened}")],
    "explorer-phone": [("elastic", "light", PHONE, "sort=category&low=40"), ("base", "dark", PHONE, "sort=category")],
    "explorer-compare": [("elastic", "dark", DESKTOP, "sort=category&classes=1_8")],
}


def run(*words: object) -> None:
    if elastic(list(map(str, words))):
        sys.exit(f"failed: elastic {' '.join(map(str, words))}")


def train(out: Path) -> dict[str, Path]:
    """{network: checkpoint} of one recipe and seed of the study."""
    study = yaml.safe_load(STUDY.read_text())
    study |= {"recipes": {RECIPE: study["recipes"][RECIPE]}, "seeds": [0]}
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    run("study", out / "study.yaml", "--results", out / "results", "--work", out / "work", "--threads", 1)
    return {name: next(out.glob(f"work/*/{name}-*/last.safetensors")) for name in study["networks"]}


def make_photos(root: Path) -> None:
    """Digits that no training saw, and some of them again."""
    if root.exists():
        return
    write_digits(root, {"val": PHOTOS}, DigitsSpec(SIDE, (8, 40)))
    for path in sorted(root.glob("val/*/*.png"))[:: PHOTOS // COPIES][:COPIES]:
        with Image.open(path) as photo:
            photo.resize((SIDE * 3 // 4,) * 2, Image.Resampling.LANCZOS).save(path.with_stem(f"{path.stem}_small"))


def explore(out: Path, checkpoints: dict[str, Path]) -> dict[str, Path]:
    """{network: its explorer's page}; that of `elastic` knows the base's answers."""
    pages = {}
    for name, checkpoint in checkpoints.items():
        folder = out / "explorer" / name
        against = ("--against", checkpoints["base"]) if name == "elastic" else ()
        run("explore", checkpoint, "--data", out / "photos", *against, "--thumbnail", 96, "-o", folder, "--overwrite")
        pages[name] = folder / "index.html"
    return pages


def shots(pages: dict[str, Path], opened: int) -> dict[str, list[Image.Image]]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    pictures: dict[str, list[Image.Image]] = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for picture, views in VIEWS.items():
            for name, scheme, (width, height), address in views:
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                page = context.new_page()
                page.goto(f"{pages[name].resolve().as_uri()}#{address.format(opened=opened)}")
                page.wait_for_selector("html[data-ready='1']")
                if picture != "explorer-phone":  # that shows what a new visitor sees
                    page.evaluate("document.getElementById('intro-close').click()")
                    page.evaluate("document.querySelector('dialog[open]') || document.activeElement.blur()")
                if scheme == "dark" and picture == "explorer-phone":
                    page.click("#toggle-map")
                page.wait_for_timeout(1500)
                pictures.setdefault(picture, []).append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
                context.close()
        browser.close()
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/explorer_pictures", type=Path)
    parser.add_argument("--images", required=True, type=Path, help="the folder that the pictures are written to")
    args = parser.parse_args()
    checkpoints = train(args.out)
    make_photos(args.out / "photos")
    pages = explore(args.out, checkpoints)
    paths = read_policy(checkpoints["elastic"].parent / "policy").column("path")
    opened = next(row for row, path in enumerate(paths) if path.endswith(OPENED))
    for name, pictures in shots(pages, opened).items():
        sheet = Image.new("RGB", (sum(p.width + 20 for p in pictures) - 20, max(p.height for p in pictures)), "white")
        left = 0
        for picture in pictures:
            sheet.paste(picture, (left, 0))
            left += picture.width + 20
        sheet.quantize(256, dither=Image.Dither.NONE).save(args.images / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
