"""The explorer of the demo's own images, one click from the report."""

from pathlib import Path

import numpy as np
from PIL import Image

from elastic_cnn.demo.data import DemoData
from elastic_cnn.demo.results import Policy
from elastic_cnn.policy.explorer import ExplorerOptions, build_explorer
from elastic_cnn.policy.explorer.sprites import PictureOptions
from elastic_cnn.policy.table import PolicyInfo, write_part

FOLDER = "explorer"
Answers = tuple[np.ndarray, np.ndarray]  # class numbers (N,), and the probability of each


def write_explorer(
    out: Path, data: DemoData, policy: Policy, elastic: Answers, base: Answers, networks: tuple[str, str]
) -> str:
    """Write OUT/policy.parquet and OUT/explorer; returns the page, relative to OUT.

    networks: names of the Elastic network and of its base, whose answers are told apart.
    """
    info = PolicyInfo(
        task="classification", classes=data.classes, blocks=tuple(policy.blocks), network=networks[0],
        checkpoint=f"{networks[0]}-first seed", data_root=data.name, against=networks[1],
    )  # fmt: skip
    names, labels = data.classes, data.labels.numpy()
    rows = [
        {
            "id": index,
            "path": f"{names[label]}/{index:05d}",
            "label": names[label],
            **_answer("", names, elastic, index, label),
            **_answer("base_", names, base, index, label),
            "object_sizes": None if data.sizes is None else [float(data.sizes[index])],
            "scores": policy.scores[index],
        }
        for index, label in enumerate(labels)
    ]
    table = out / "policy.parquet"
    write_part(table, rows, info)
    pixels = data.images.permute(0, 2, 3, 1).numpy()
    options = ExplorerOptions(pictures=PictureOptions(thumbnail=96, picture=128))

    def open_photo(row: int, side: int) -> Image.Image:
        picture = Image.fromarray(np.ascontiguousarray(pixels[row]))
        factor = max(1, side // max(picture.size))
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)

    report = build_explorer(table, out / FOLDER, options, overwrite=True, open_photo=open_photo)
    return report.index.relative_to(out).as_posix()


def _answer(prefix: str, names: tuple[str, ...], answers: Answers, index: int, label: int) -> dict[str, object]:
    guess = int(answers[0][index])
    return {
        f"{prefix}prediction": names[guess],
        f"{prefix}confidence": float(answers[1][index]),
        f"{prefix}correct": guess == int(label),
    }
