"""A small folder of COCO's layout that a network can learn from, for tests."""

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": 0, "green": 1, "blue": 2}  # class -> channel that its square lights up
IDS = {"red": 7, "green": 2, "blue": 30, "white": 1}


def write_coco(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Photos of 32 x 24 pixels with up to three coloured squares, each an object; `white` has no object at all."""
    rng = random.Random(seed)
    for split, count in counts.items():
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / "images" / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            pixels = np.full((24, 32, 3), 40, np.uint8)
            for name, channel in COLOURS.items():
                if rng.random() < 0.5:
                    side, top, left = rng.choice([6, 9, 12]), rng.randrange(12), rng.randrange(20)
                    pixels[top : top + side, left : left + side, channel] = 250
                    annotations.append(
                        {
                            "id": len(annotations),
                            "image_id": 3 * number + 5,
                            "category_id": IDS[name],
                            "area": (side * 9) ** 2,
                            "iscrowd": 0,
                        }
                    )
            Image.fromarray(pixels).save(root / "images" / split / f"{number}.png")
            images.append({"id": 3 * number + 5, "file_name": f"{number}.png"})
        categories = [{"id": number, "name": name} for name, number in IDS.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root
