"""Another person's folder of photos, drawn: flowers by kind, not divided, and some files as files become."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PETALS = {"daisy": ((244, 240, 230), 12), "poppy": ((206, 44, 38), 5), "tulip": ((218, 90, 150), 3)}
COUNTS = {"daisy": 40, "poppy": 24, "tulip": 8}  # skewed, as collected photos are
ORIENTATION = 0x0112
HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def flower(kind: str, number: int) -> Image.Image:
    """A photo of 96 x 72 pixels; every kind has its colour and its number of petals, on a meadow that varies."""
    rng = np.random.default_rng([number, *kind.encode()])
    meadow = rng.normal((70, 120, 60), 12, (9, 12, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(meadow).resize((96, 72), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    colour, petals = PETALS[kind]
    (x, y), radius = rng.uniform((25, 25), (70, 48)), rng.uniform(9, 24)
    colour = tuple(int(value) for value in (colour + rng.normal(0, 22, 3)).clip(0, 255))
    for angle in 2 * np.pi * (np.arange(petals) + rng.random()) / petals:
        centre_x, centre_y, half = x + 0.6 * radius * np.cos(angle), y + 0.6 * radius * np.sin(angle), 0.42 * radius
        draw.ellipse((centre_x - half, centre_y - half, centre_x + half, centre_y + half), fill=colour)
    draw.ellipse((x - 0.3 * radius, y - 0.3 * radius, x + 0.3 * radius, y + 0.3 * radius), fill=(236, 190, 40))
    return picture


def make_photos(place: Path) -> None:
    """`place/photos`: a folder a kind, photos of cameras and telephones, and what else collects there;
    `place/holiday`: photos that nobody named, the last of them broken."""
    root = place / "photos"
    for kind, count in COUNTS.items():
        (root / kind).mkdir(parents=True)
        for number in range(count):
            flower(kind, number).save(root / kind / f"IMG_{number:04}.jpg", quality=92)
    turned = flower("daisy", 2).transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[ORIENTATION] = 6  # to be shown turned to the right
    turned.save(root / "daisy" / "IMG_0002.jpg", exif=exif)
    flower("poppy", 3).convert("CMYK").save(root / "poppy" / "IMG_0003.jpg")
    flower("tulip", 4).convert("P").save(root / "tulip" / "scan.png")
    whole = BytesIO()
    flower("daisy", 5).save(whole, "JPEG")
    (root / "daisy" / "IMG_0005.jpg").write_bytes(whole.getvalue()[:900])  # the card was full
    (root / "poppy" / "IMG_0006.jpg").write_bytes(b"")
    (root / "poppy" / "IMG_0007.jpg").write_bytes(b"<!DOCTYPE html><title>404 Not Found</title>")
    (root / "tulip" / "IMG_0900.heic").write_bytes(HEIC_HEAD + bytes(64))
    (root / "daisy" / ".DS_Store").write_bytes(b"Bud1")
    (root / "poppy" / "from Anna.txt").write_text("the red ones are from the railway")
    (place / "holiday").mkdir()
    for number, kind in enumerate(PETALS):
        flower(kind, 100 + number).save(place / "holiday" / f"{number + 1}.jpg")
    (place / "holiday" / "4.jpg").write_bytes(whole.getvalue()[:300])
