"""`elastic eval CHECKPOINT --data DIR`: test a checkpoint."""

import argparse
from pathlib import Path

from elastic_cnn.cli.data_arguments import add_data_arguments, data_of, places_of
from elastic_cnn.cli.train import add_machine_arguments, machine_settings
from elastic_cnn.extras import require
from elastic_cnn.files import refuse_to_overwrite, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run folder (its best)")
    add_data_arguments(parser, "the data, as for training")
    parser.add_argument("--split", default="val", help="train, val, test or a folder's name (default: val)")
    parser.add_argument(
        "--image-size", metavar="PX", help="side of the input, or HEIGHTxWIDTH, in place of the checkpoint's"
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    parser.add_argument("--json", metavar="OUT", help="also write the results there")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    parser.add_argument("--strict", action="store_true", help="an unreadable image is an error, not left out")
    add_machine_arguments(parser)


def run(args: argparse.Namespace) -> None:
    require("lightning", "train")
    from elastic_cnn.tasks import training
    from elastic_cnn.tasks.console import Console

    if args.json and not args.overwrite:
        refuse_to_overwrite(args.json)
    data = data_of(args)
    options = training.TestOptions(args.image_size, args.batch_size, args.strict, **places_of(args))
    settings = machine_settings(args)
    console = Console(settings.progress)
    results = training.evaluate(args.checkpoint, data, args.split, options, settings, console)
    console.line("\n".join(describe(results)))
    if args.json and console.shown:
        write_json(Path(args.json), {"checkpoint": str(args.checkpoint), "data": data, "split": args.split, **results})


def describe(results: dict) -> list[str]:
    """The results as lines: as training prints them, then what that line leaves out: fractions in per cent, `-` for
    what does not occur in the data."""
    head = ("network", "task", "classes", "images", "unreadable", "images_per_s", "seconds")
    told = ("loss", "top1", "top5", "top1_error", "top5_error") if results["task"] == "classification" else ()
    lines = [
        f"{results['network']} ({results['task']}, {results['classes']} classes): {results['images']} images in "
        f"{results['seconds']} s ({results['images_per_s']} images/s)"
        + (f", {results['unreadable']} unreadable left out" if results["unreadable"] else "")
    ]
    lines.append(f"  {results['headline']}")
    if (other := results["trained_in"]) != results["precision"]:
        lines.append(f"  in {results['precision']}; validated in {other} while it trained, so last digits may differ")
    for name, value in results.items():
        if name in (*head, *told):
            continue
        if value is None:
            lines.append(f"  {name}: -")
        elif isinstance(value, int | float):
            lines.append(
                f"  {name}: {100 * value:.2f}%" if 0 <= value <= 1 and name != "loss" else f"  {name}: {value:.4g}"
            )
    return lines
