"""Policy tables with known scores and drawn photos, hostile names among them."""

import dataclasses
import time
from pathlib import Path

import numpy as np
from PIL import Image

from elastic_cnn.policy.explorer import ExplorerOptions, build_explorer
from elastic_cnn.policy.explorer.sprites import PictureOptions
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.policy.table import PolicyInfo, PolicyTable, read_policy, write_part

HOSTILE = "<img src=x onerror=window.owned=1>"
CLASSES = ("ant", "bee_hive", HOSTILE, "</script><script>window.owned=1</script>")
BLOCKS = tuple(
    BlockInfo(f"layer{1 + i // 3}.{i % 3}", (1, 2), 1 + i // 3, 32 >> i // 3, 32 >> i // 3) for i in range(6)
)


@dataclasses.dataclass(frozen=True)
class Explorer:
    """A built explorer and the table that it shows."""

    index: Path
    table: PolicyTable

    @property
    def url(self) -> str:
        return self.index.as_uri()


def write_table(
    folder: Path,
    rows: int = 60,
    *,
    multilabel: bool = False,
    labels: bool = True,
    base: bool = True,
    plain: bool = False,
    top: bool = True,
) -> Path:
    """plain: of a network without elastic blocks, whose features tell the photos of a class from the others.

    `folder/policy.parquet` and its photos below `folder/photos`: the photo of row i is of the colour `color(i)`."""
    rng, entries = np.random.default_rng(0), []
    for row in range(rows):
        name = CLASSES[row % len(CLASSES)]
        # class names become folders only where a file system takes them
        path = f"{name.replace('/', '_')}/{'<img src=x onerror=window.owned=1>' if row % 7 == 2 else 'photo'}_{row}.png"
        file = folder / "photos" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 40), color(row)).save(file)
        right, base_right = row % 3 != 0, row % 2 == 0
        guess = name if right else CLASSES[(row + 1) % len(CLASSES)]
        base_guess = name if base_right else CLASSES[(row + 2) % len(CLASSES)]
        more = [CLASSES[(row + 1) % len(CLASSES)]] if row % 2 else []
        entry = {
            "id": 3 * row,
            "path": path,
            "label": ([name, *more] if multilabel else name) if labels else None,
            "prediction": [guess] if multilabel else guess,
            "confidence": float(rng.uniform(0.2, 1)),
            "correct": right if labels else None,
            "base_prediction": [base_guess] if multilabel else base_guess,
            "base_confidence": float(rng.uniform(0.2, 1)),
            "base_correct": base_right if labels else None,
            "object_sizes": [float(row), 2.0] if row % 5 == 0 else None,
            "scores": rng.normal(size=0 if plain else len(BLOCKS)).astype(np.float32),
        }
        if top:
            others = [other for other in CLASSES if other != guess]
            entry["top_classes"] = [guess, *others]
            entry["top_probabilities"] = [entry["confidence"], *sorted(rng.uniform(0, 0.2, len(others)))[::-1]]
        if plain:
            entry["features"] = rng.normal(scale=0.1, size=8) + 3 * np.eye(8)[row % len(CLASSES)]
        entries.append(entry)
    task = "multilabel" if multilabel else "classification"
    root = str(folder / "photos")
    info = PolicyInfo(
        task, CLASSES, () if plain else BLOCKS, "tiny" if plain else "tiny_elastic", data_root=root,
        against="base" if base else None, features=8 if plain else 0, top=top,
    )  # fmt: skip
    write_part(folder / "policy.parquet", entries, info)
    return folder / "policy.parquet"


def color(row: int) -> tuple[int, int, int]:
    return (40 * (row % 6) + 20, 25 * (row // 6 % 10), 90)


def build(folder: Path, *, picture: int = 128, thumbnail: int = 64, **kwargs) -> Explorer:
    path = write_table(folder, **kwargs)
    options = ExplorerOptions(map="pca", pictures=PictureOptions(thumbnail=thumbnail, picture=picture))
    report = build_explorer(path, folder / "explorer", options)
    return Explorer(report.index, read_policy(path))


def wait_until(page, expression: str) -> None:
    """Until the expression holds in the page. (Playwright's own waiting is forbidden by its policy.)"""
    end = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never came: {expression}"
        page.wait_for_timeout(20)
