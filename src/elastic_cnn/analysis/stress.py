"""The scale stress test (paper, section 4.2, Figure 7): a network trained at one resolution, tested at others.

The network does not change: its global pooling takes a map of any size. Photos are prepared as the checkpoint says (for
COCO squashed to a square), at each resolution in turn.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from elastic_cnn.files import refuse_to_overwrite, write_json, write_text
from elastic_cnn.policy.figures.style import BLUE, GREY, ORANGE, new_figure, plain, save, style
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.spec import task_names, task_spec
from elastic_cnn.tasks.training import evaluate
from elastic_cnn.zoo.checkpoint import NetworkCard, read_card

SIZES = (112, 224, 336, 448)


@dataclass(frozen=True)
class StressedNetwork:
    """One network's results. label: its name in tables. trained_size: side of its training input, in pixels.

    results: {side in pixels: {name: number}}, fractions.
    """

    label: str
    checkpoint: str
    trained_size: int
    results: dict[int, dict[str, float]]


@dataclass(frozen=True)
class StressTest:
    """networks: the base first, where there is one. images: how many were counted."""

    task: str
    data: str
    split: str
    sizes: tuple[int, ...]
    images: int
    networks: tuple[StressedNetwork, ...]


def stress_test(
    checkpoint: str | Path,
    data: str | Path,
    sizes: Sequence[int] = SIZES,
    *,
    against: str | Path | None = None,
    split: str = "val",
    batch_size: int = 64,
    settings: Settings | None = None,
    progress: Callable[[str], object] = lambda line: None,
    places: Mapping[str, Any] = MappingProxyType({}),
) -> StressTest:
    """Test a checkpoint, and the one to compare it `against`, with inputs of each of `sizes`: sides in pixels, or
    heights where the network was trained on inputs that are no squares.

    progress: called with a line after each test. places: `annotations` and `images` of `TestOptions`.
    Raises `ValueError` for sizes that are not positive or repeated, more than one process, segmentation checkpoints,
    two checkpoints of different tasks or classes, and data that do not fit.
    """
    sizes, settings = check_sizes(sizes), settings or Settings()
    if settings.devices * settings.nodes > 1:
        raise ValueError("the stress test runs in one process: set devices=1")
    paths = [str(path) for path in (against, checkpoint) if path is not None]
    cards = [read_card(path) for path in paths]
    task = cards[0].task
    scores = task_spec(task).scores
    if not scores:
        tested = " and ".join(task_names(lambda spec: bool(spec.scores)))
        raise ValueError(f"{paths[0]} is for {task}; the stress test takes checkpoints for {tested}")
    if (cards[0].task, set(cards[0].classes)) != (cards[-1].task, set(cards[-1].classes)):
        raise ValueError(f"{paths[1]} and {paths[0]} cannot be compared: their tasks or classes differ")
    networks, counted = [], set()
    for label, path, card in zip(_labels(cards, paths), paths, cards, strict=True):
        results = {}
        for size in sizes:
            options = TestOptions(sides_at(size, card), batch_size, **places)
            found = evaluate(path, data, split, options, settings)
            counted.add(found["images"])
            skipped = ("images", "unreadable", "classes", "images_per_s", "seconds")
            results[size] = {k: v for k, v in found.items() if isinstance(v, int | float) and k not in skipped}
            shown = ", ".join(f"{title} {100 * found[key]:.2f}%" for key, title in scores[:2])
            progress(f"{label} at {size} px: {shown} ({found['seconds']:.0f} s)")
        networks.append(StressedNetwork(label, path, card.input.size[0], results))
    return StressTest(task, str(data), split, sizes, counted.pop(), tuple(networks))


def sides_at(size: int, card: NetworkCard) -> tuple[int, int]:
    """Height and width of the input of height `size`, in the shape that the network was trained with."""
    height, width = card.input.size
    return size, max(1, round(size * width / height))


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """`sizes`, ascending. `ValueError` where there is none, one is not positive or given twice."""
    if not sizes or any(size < 1 for size in sizes) or len(set(sizes)) != len(sizes):
        raise ValueError(f"sizes must be different positive numbers of pixels, got {list(sizes)}")
    return tuple(sorted(sizes))


def _labels(cards: Sequence[NetworkCard], paths: Sequence[str]) -> list[str]:
    """Names of the networks; with the checkpoint's where two are the same."""
    names = [card.network + ("+elastic" if card.elastic is not None else "") for card in cards]
    if len(set(names)) < len(names):
        names = [f"{name} ({path})" for name, path in zip(names, paths, strict=True)]
    return names


def format_table(test: StressTest) -> str:
    """A block for each score, in per cent: a line a resolution, a column a network, and what the second gains."""
    lines = [f"{test.images} images of {test.data} ({test.split}), per cent"]
    labels = [network.label for network in test.networks]
    width = max(12, *(len(label) for label in labels))
    for key, title in task_spec(test.task).scores:
        if any(key not in network.results[size] for network in test.networks for size in test.sizes):
            continue
        head = " ".join(f"{label:>{width}}" for label in labels) + ("     gain" if len(labels) > 1 else "")
        lines += ["", title, f"{'pixels':>8} {head}"]
        for size in test.sizes:
            values = [100 * network.results[size][key] for network in test.networks]
            trained = "*" if size in {network.trained_size for network in test.networks} else " "
            gain = f" {values[1] - values[0]:+8.2f}" if len(values) > 1 else ""
            lines.append(f"{size:>7}{trained} " + " ".join(f"{value:>{width}.2f}" for value in values) + gain)
    return "\n".join([*lines, "", "* the resolution of training"])


def to_csv(test: StressTest) -> str:
    """A row for each network and resolution, all scores as fractions."""
    names = list(dict.fromkeys(name for n in test.networks for scores in n.results.values() for name in scores))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["network", "checkpoint", "trained_size", "size", *names])
    for network in test.networks:
        for size, scores in network.results.items():
            row = [network.label, network.checkpoint, network.trained_size, size]
            writer.writerow([*row, *(scores.get(name, "") for name in names)])
    return text.getvalue()


def to_json(test: StressTest) -> dict[str, Any]:
    """Everything, as JSON holds it."""
    networks = [
        {
            "label": network.label,
            "checkpoint": network.checkpoint,
            "trained_size": network.trained_size,
            "results": [{"size": size, **scores} for size, scores in network.results.items()],
        }
        for network in test.networks
    ]
    return {"task": test.task, "data": test.data, "split": test.split, "images": test.images, "networks": networks}


def draw(test: StressTest) -> Any:
    """Figure 7: score against resolution, a line a network, a panel for each of the task's two main scores."""
    with style():
        shown = task_spec(test.task).scores[:2]
        figure = new_figure(7.2, 3.2)
        panels = figure.subplots(1, len(shown))
        colours = (BLUE, ORANGE) if len(test.networks) > 1 else (ORANGE,)
        for panel, (key, title) in zip(panels, shown, strict=True):
            for network, colour, marker in zip(test.networks, colours, "so", strict=False):
                values = [100 * network.results[size][key] for size in test.sizes]
                panel.plot(test.sizes, values, f"{marker}-", color=colour, label=plain(network.label))
            for size in sorted({network.trained_size for network in test.networks}):
                panel.axvline(size, color=GREY, linestyle=":", zorder=0)
                panel.annotate("trained", (size, 1), xycoords=("data", "axes fraction"), fontsize=7, color=GREY)
            panel.set_xticks(test.sizes)
            panel.set_xlabel("side of the test images (pixels)")
            panel.set_ylabel(f"{title} (%)")
            panel.grid(alpha=0.3)
        panels[0].legend(frameon=False, fontsize=8)
    return figure


def write_stress_test(test: StressTest, out: str | Path, overwrite: bool = False) -> list[Path]:
    """Write stress.csv, stress.json, stress.png and stress.svg into the folder `out`; returns the files.

    `ValueError` where the folder holds something and `overwrite` is not set.
    """
    out = Path(out)
    if not overwrite:
        refuse_to_overwrite(out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "stress.csv", to_csv(test))
    write_json(out / "stress.json", to_json(test))
    return [out / "stress.csv", out / "stress.json", *save(draw(test), out / "stress")]
