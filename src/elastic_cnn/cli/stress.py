"""`elastic stress CHECKPOINT [--against BASE] --data DIR`: the scale stress test, Figure 7."""

import argparse
import sys

from elastic_cnn.cli.data_arguments import add_data_arguments, data_of, places_of
from elastic_cnn.extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run folder (its best)")
    parser.add_argument("--against", metavar="BASE", help="the checkpoint to compare with, of the base network")
    add_data_arguments(parser, "the data, as for training")
    parser.add_argument("--split", default="val", help="the split to test on (default: val)")
    parser.add_argument(
        "--sizes", type=_sizes, default=None, metavar="PX,...", help="sides of the input (default: 112,224,336,448)"
    )
    parser.add_argument("-o", "--out", metavar="DIR", help="write stress.csv, .json, .png and .svg there")
    parser.add_argument("--overwrite", action="store_true", help="write into DIR though it holds something")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    parser.add_argument(
        "--accelerator", default="auto", choices=("auto", "cpu", "gpu", "mps"), help="what to compute on"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read images")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 112,224") from error


def run(args: argparse.Namespace) -> None:
    require("lightning", "train")
    from elastic_cnn.analysis import stress
    from elastic_cnn.files import refuse_to_overwrite
    from elastic_cnn.tasks.settings import Settings, default_workers

    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {args.batch_size}")
    if args.out:
        require("matplotlib", "figures")
        if not args.overwrite:
            refuse_to_overwrite(args.out)
    workers = default_workers() if args.workers is None else args.workers
    test = stress.stress_test(
        args.checkpoint,
        data_of(args),
        stress.SIZES if args.sizes is None else args.sizes,
        against=args.against,
        split=args.split,
        batch_size=args.batch_size,
        settings=Settings(args.accelerator, workers=workers, progress=False if args.no_progress else None),
        progress=lambda line: print(line, file=sys.stderr),
        places=places_of(args),
    )
    print(stress.format_table(test))
    if args.out:
        print("\n".join(map(str, stress.write_stress_test(test, args.out, args.overwrite))))
