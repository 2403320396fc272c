"""`elastic demo`: the whole idea in a few minutes, nothing to download."""

import argparse
import shlex
import sys

from elastic_cnn.extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Trains a small base network and its Elastic partner of the same cost on handwritten digits of known size, "
        "under as many seeds as the machine can in the time, converts the trained base, and writes report.html, an "
        "explorer of its images, results.json and the runs into DIR."
    )
    parser.add_argument("-o", "--out", default="elastic-demo", metavar="DIR", help="(default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the data, and the first run's (default: 0)"
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="runs of each network (default: 3 to 8, as fit the time)"
    )
    parser.add_argument("--minutes", type=float, default=8, metavar="M", help="to take about, at most (default: 8)")
    parser.add_argument(
        "--quick", action="store_true", help="a minute or two: fewer images, networks that learn little"
    )
    parser.add_argument("--data", metavar="PHOTOS", help="a folder of photos with train/CLASS and val/CLASS instead")
    parser.add_argument("--epochs", type=int, metavar="N", help="(default: as many as 16,000 images make)")
    parser.add_argument("--images", type=int, metavar="N", help="images to train on (default: 4000, at most)")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="runs at a time (default: one a processor; 0: in one)"
    )
    parser.add_argument(
        "--write-digits", metavar="FOLDER", help="only write the digits as photos by class, with sizes.csv, and stop"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo in DIR")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> None:
    if args.write_digits is not None:
        _write_digits(args)
        return
    require("lightning", "train")
    require("matplotlib", "figures")
    from elastic_cnn.demo.run import Choices, run_demo
    from elastic_cnn.tasks.training import Interrupted

    if args.processes is not None and args.processes < 0:
        raise ValueError(f"--processes must be 0 or more, got {args.processes}")
    choices = Choices(
        args.seed, args.seeds, args.quick, args.data, args.epochs, args.images, args.minutes, args.processes
    )
    try:
        run_demo(
            args.out,
            choices,
            overwrite=args.overwrite,
            progress=False if args.no_progress else None,
            command=shlex.join(["elastic", "demo", *_given(args)]),
        )
    except Interrupted as interrupted:
        print(f"elastic: interrupted; begin again with --overwrite ({args.out} is not complete)", file=sys.stderr)
        raise SystemExit(interrupted.code) from interrupted
    print(f"\nreport: {args.out}/report.html")


def _write_digits(args: argparse.Namespace) -> None:
    from elastic_cnn.data.digits import DigitsSpec, write_digits

    count = 12_000 if args.images is None else args.images
    if count < 1:
        raise ValueError(f"--images must be at least 1, got {count}")
    spec = DigitsSpec(seed=args.seed)
    root = write_digits(args.write_digits, {"train": count, "val": max(1, count // 3)}, spec)
    print(f"digits: {root} (for other commands: --data {root})")


def _given(args: argparse.Namespace) -> list[str]:
    """The arguments that make a difference to the results, as they would be typed."""
    given = ["--seed", str(args.seed)]
    for name in ("seeds", "data", "epochs", "images"):
        if getattr(args, name) is not None:
            given += [f"--{name}", str(getattr(args, name))]
    return given + ["--quick"] * args.quick
