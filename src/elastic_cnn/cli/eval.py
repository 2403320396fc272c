"""`elastic eval CHECKPOINT --data DIR`: test a checkpoint."""

import argparse
from pathlib import Path
from typing import Any

from elastic_cnn.cli.data_arguments import add_data_arguments, data_or_own
from elastic_cnn.cli.next_step import how_to_test, next_line
from elastic_cnn.cli.train import add_machine_arguments, machine_settings
from elastic_cnn.extras import require
from elastic_cnn.files import refuse_output, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "With -o a folder is written: index.html (one page: classes with intervals, confusions, calibration, worst "
        "mistakes), report.json, classes.csv, confusion.csv, predictions.csv and the pictures."
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run folder (its best)")
    add_data_arguments(parser, "the data, as for training (of a run folder: its own, by default)")
    parser.add_argument("--split", default="val", help="train, val, test or a folder's name (default: val)")
    parser.add_argument(
        "--image-size", metavar="PX", help="side of the input, or HEIGHTxWIDTH, in place of the checkpoint's"
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    parser.add_argument(
        "--tta", nargs="?", const="flip", default="", metavar="VIEWS",
        help="average over views: flip (alone by default), factors on the input's side (0.8,1.25), or both",
    )  # fmt: skip
    parser.add_argument("-o", "--out", metavar="DIR", help="also write a report there")
    parser.add_argument("--against", metavar="OTHER", help="with -o: a checkpoint to compare with, photo by photo")
    parser.add_argument("--json", metavar="OUT", help="also write the results there")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT or the report where it exists")
    parser.add_argument("--strict", action="store_true", help="an unreadable image is an error, not left out")
    add_machine_arguments(parser)


def run(args: argparse.Namespace) -> None:
    require("lightning", "train")
    from elastic_cnn.tasks import training
    from elastic_cnn.tasks.console import Console
    from elastic_cnn.tasks.run_folder import data_of_unlabelled

    if args.against and not args.out:
        raise ValueError("--against goes with -o: the comparison stands in the report")
    if args.json:
        refuse_output(args.json, args.overwrite)
    if args.out:
        require("matplotlib", "figures")
        from elastic_cnn.evaluation.report import refuse_taken

        refuse_taken(args.out, args.overwrite)
    data, places = data_or_own(args, args.checkpoint)
    if data_of_unlabelled(args.checkpoint) == data:
        raise ValueError(
            f"{args.checkpoint} was trained on photos without labels, which do not say what is right: give "
            "labelled ones by --data DIR"
        )
    options = training.TestOptions(args.image_size, args.batch_size, args.strict, **places, tta=args.tta)
    settings = machine_settings(args)
    console = Console(settings.progress)
    if args.out:
        results = report(args, data, options, settings, console)
    else:
        results = training.evaluate(args.checkpoint, data, args.split, options, settings, console)
        console.line("\n".join(describe(results)))
        console.line(how_to_test(results["task"], args.checkpoint))
    if args.json and console.shown:
        write_json(Path(args.json), {"checkpoint": str(args.checkpoint), "data": data, "split": args.split, **results})


def report(args: argparse.Namespace, data: str, options: Any, settings: Any, console: Any) -> dict[str, Any]:
    """Test, write the report and print it; returns the results."""
    from elastic_cnn.functions import evaluate

    found: Any = evaluate(
        args.checkpoint, data, args.split, options, settings, console, report=args.out, against=args.against,
        overwrite=args.overwrite,
    )  # fmt: skip
    console.line(str(found))
    console.line(next_line("predict", args.checkpoint, "PHOTOS", "-o", "answers.csv"))
    return dict(found.found["results"])


def describe(results: dict) -> list[str]:
    """The results as lines: as training prints them, then what that line leaves out: fractions in per cent, `-` for
    what does not occur in the data."""
    head = ("network", "task", "classes", "images", "unreadable", "images_per_s", "seconds")
    lines = [
        f"{results['network']} ({results['task']}, {results['classes']} classes): {results['images']} images in "
        f"{results['seconds']} s ({results['images_per_s']} images/s)"
        + (f", {results['unreadable']} unreadable left out" if results["unreadable"] else "")
    ]
    lines.append(f"  {results['headline']}")
    if (other := results["trained_in"]) != results["precision"]:
        lines.append(f"  in {results['precision']}; validated in {other} while it trained, so last digits may differ")
    for name, value in results.items():
        if name in (*head, *results["told"]):
            continue
        if value is None:
            lines.append(f"  {name}: -")
        elif isinstance(value, int | float):
            lines.append(
                f"  {name}: {100 * value:.2f}%" if 0 <= value <= 1 and name != "loss" else f"  {name}: {value:.4g}"
            )
    return lines
