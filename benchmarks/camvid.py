"""Base and Elastic on CamVid under one recipe and budget: DLA-Up from scratch, DeepLabv3 from ImageNet weights.

    python benchmarks/camvid.py --data CAMVID --weights resnet50.safetensors --out runs/camvid [KEY=VALUE ...]

Trains four networks, tests each on the test split and writes OUT/table.md after each. Goes on where it was interrupted.
`--weights` takes a ResNet-50 of 2015 (`resnet50_v1`); without it the DeepLabv3 pair is left out. KEY=VALUE overrides
keys of both recipes, as in `elastic train`.
"""

import argparse
import json
from pathlib import Path

from elastic_cnn.files import write_json, write_text
from elastic_cnn.measure.tables import markdown_table
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.training import evaluate, load_recipe, train

SMALL = ("pole", "sign", "pedestrian", "bicyclist")


def runs(weights: str | None) -> dict[str, tuple[str, list[str]]]:
    """{name: (recipe, overrides)}"""
    chosen = {
        "DLA-X60/2 + DLA-Up": ("camvid_dla", ["network=dla60x_seg"]),
        "DLA-X60/2 + DLA-Up, Elastic": ("camvid_dla", ["network=dla60x_elastic_seg"]),
    }
    if weights:
        chosen["ResNet-50 + DeepLabv3"] = ("camvid_deeplabv3", [f"weights={weights}", "elastic=false"])
        chosen["ResNet-50 + DeepLabv3, Elastic"] = ("camvid_deeplabv3", [f"weights={weights}", "elastic=true"])
    return chosen


def run(name: str, recipe: str, overrides: list[str], args: argparse.Namespace) -> dict:
    """The test results of one network with its parameters and seconds of training; trained where not done yet."""
    folder = args.out / name.lower().replace(" + ", "_").replace(", ", "_").replace("/", "_")
    done = folder / "test.json"
    if done.is_file():
        return json.loads(done.read_text())
    settings = Settings(accelerator=args.accelerator, workers=args.workers, resume=True, progress=False)
    if not (folder / "summary.json").is_file():
        train(load_recipe(recipe, [*overrides, *args.overrides]), args.data, folder, settings)
    summary = json.loads((folder / "summary.json").read_text())
    results = evaluate(folder, args.data, "test", TestOptions(batch_size=4), settings)
    results |= {"parameters": summary["parameters"], "train_seconds": summary["seconds"]}
    write_json(done, results)
    return results


def table(results: dict[str, dict]) -> str:
    """Markdown, per cent: mIoU, pixel accuracy, the small classes, and all classes below."""
    classes = [key.removeprefix("iou_") for key in next(iter(results.values())) if key.startswith("iou_")]
    head = ["network", "parameters", "training", "mIoU", "pixel accuracy", *SMALL]
    others = [entry for entry in classes if entry not in SMALL]
    rows, rest = [], []
    for name, row in results.items():
        scores = [row["miou"], row["pixel_accuracy"], *(row[f"iou_{entry}"] for entry in SMALL)]
        cost = [f"{row['parameters'] / 1e6:.1f}M", f"{row['train_seconds']:.0f} s"]
        rows.append([name, *cost, *map(_per_cent, scores)])
        rest.append([name, *(_per_cent(row[f"iou_{entry}"]) for entry in others)])
    return f"{markdown_table(head, rows)}\n\n{markdown_table(['network', *others], rest)}\n"


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    results: dict[str, dict] = {}
    for name, (recipe, overrides) in runs(args.weights).items():
        results[name] = run(name, recipe, overrides, args)
        write_text(args.out / "table.md", table(results))
    print(table(results))


if __name__ == "__main__":
    main()
