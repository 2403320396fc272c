"""`elastic stress CHECKPOINT [--against BASE] --data DIR`: the scale stress test, Figure 7."""

import argparse
import sys
from typing import Any

from elastic_cnn.cli.data_arguments import add_data_arguments, data_or_own
from elastic_cnn.extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run folder (its best)")
    parser.add_argument("--against", metavar="BASE", help="the checkpoint to compare with, of the base network")
    add_data_arguments(parser, "the data, as for training (of a run folder: its own, by default)")
    parser.add_argument("--split", default="val", help="the split to test on (default: val)")
    parser.add_argument(
        "--sizes", type=_sizes, default=None, metavar="PX,...", help="sides of the input (default: 112,224,336,448)"
    )
    parser.add_argument(
        "--equal-time",
        action="store_true",
        help="at the base's own size, and at the largest at which CHECKPOINT takes no longer than the base there",
    )
    parser.add_argument(
        "--form", default="native", choices=("native", "bf16", "openvino"), help="for --equal-time (default: native)"
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


def _equal_time(args: argparse.Namespace) -> tuple[tuple[int, int], Any]:
    """The base's own size and the one that its time buys the checkpoint; that with its time."""
    from elastic_cnn.conversion.times import equal_time_side
    from elastic_cnn.zoo import load_checkpoint

    (network, _), (base, card) = load_checkpoint(args.checkpoint), load_checkpoint(args.against)
    side, ratio = equal_time_side(network, base, (len(card.input.mean), *card.input.size), args.form)
    return (card.input.size[0], side), ratio


def _bought(test: Any, ratio: Any, form: str) -> list[str]:
    """What the larger input gives at the base's time: a line a score."""
    from elastic_cnn.tasks.spec import task_spec

    base, own = test.networks
    low, high = test.sizes
    lines = [
        "",
        f"at equal time ({form}): {own.label} at {high} pixels takes {ratio.median:.3f} ({ratio.low:.3f} to "
        f"{ratio.high:.3f}) of the time of {base.label} at {low}",
    ]
    for key, title in task_spec(test.task).scores:
        if key in base.results[low] and key in own.results[high]:
            before, after = 100 * base.results[low][key], 100 * own.results[high][key]
            lines.append(f"{title} {before:.2f} -> {after:.2f} ({after - before:+.2f})")
    return lines


def run(args: argparse.Namespace) -> None:
    require("lightning", "train")
    from elastic_cnn.analysis import stress
    from elastic_cnn.files import refuse_output
    from elastic_cnn.tasks.settings import Settings, default_workers

    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {args.batch_size}")
    if args.out:
        require("matplotlib", "figures")
        refuse_output(args.out, args.overwrite, folder=True)
    if args.equal_time and (args.against is None or args.sizes is not None):
        raise ValueError("--equal-time needs --against BASE, and finds the sizes itself: leave --sizes out")
    data, places = data_or_own(args, args.checkpoint)
    sizes, bought = (stress.SIZES if args.sizes is None else args.sizes), None
    if args.equal_time:
        sizes, bought = _equal_time(args)
    workers = default_workers() if args.workers is None else args.workers
    test = stress.stress_test(
        args.checkpoint,
        data,
        sizes,
        against=args.against,
        split=args.split,
        batch_size=args.batch_size,
        settings=Settings(args.accelerator, workers=workers, progress=False if args.no_progress else None),
        progress=lambda line: print(line, file=sys.stderr),
        places=places,
    )
    print(stress.format_table(test))
    if bought is not None:
        print("\n".join(_bought(test, bought, args.form)))
    if args.out:
        print("\n".join(map(str, stress.write_stress_test(test, args.out, args.overwrite))))
