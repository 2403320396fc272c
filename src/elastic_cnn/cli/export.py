"""`elastic export CHECKPOINT --format NAME`: a trained network as a file for another runtime."""

import argparse

from elastic_cnn.cli.next_step import next_line
from elastic_cnn.export.formats import FORMATS, TARGETS
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.text import alternatives

COUNT, METHOD = 128, "minmax"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The file takes any batch and size unless --fixed-size is given, holds the network's optimized form, class "
        "names and input normalisation, and is left only if it computes what the network does."
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run folder (its best)")
    parser.add_argument("--format", metavar="NAME", help=f"{alternatives(FORMATS)}; default: after the ending of FILE")
    endings = [one.suffix + (f" (and {one.beside} beside it)" if one.beside else "") for one in FORMATS.values()]
    parser.add_argument("-o", "--out", metavar="FILE", help=f"{alternatives(endings)}; default: beside the checkpoint")
    parser.add_argument(
        "--fixed-size", nargs="?", const="", metavar="PX", help="one size alone (PX, or HEIGHTxWIDTH; default: its own)"
    )
    parser.add_argument(
        "--target",
        default="any",
        metavar="NAME",
        help="; ".join(f"{name}: {what}" for name, what in TARGETS.items()) + " (%(default)s)",
    )
    parser.add_argument("--int8", action="store_true", help="8-bit integers, calibrated on the photos of --images")
    parser.add_argument("--images", metavar="FOLDER", help="for --int8: photos such as the network will see")
    parser.add_argument("--count", type=int, default=COUNT, metavar="N", help="photos to calibrate on (%(default)s)")
    parser.add_argument(
        "--calibration", default=METHOD, metavar="METHOD", help="minmax, entropy or percentile (%(default)s)"
    )
    parser.add_argument("--test", metavar="DATA", help="also measure top-1 before and after on DATA's split")
    parser.add_argument("--split", default="val", help="the split of DATA (default: val)")
    parser.add_argument("--limit", type=int, metavar="N", help="test on N photos drawn at random (default: all)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")
    parser.add_argument("--strict", action="store_true", help="an unreadable image is an error, not left out")


def run(args: argparse.Namespace) -> None:
    from elastic_cnn.export import job
    from elastic_cnn.tasks.geometry import both_sides, parse_size
    from elastic_cnn.zoo.checkpoint import read_card

    if args.int8 != bool(args.images):
        raise ValueError("--int8 and --images FOLDER go together")
    if not args.int8 and (args.count, args.calibration) != (COUNT, METHOD):
        raise ValueError("--count and --calibration go with --int8")
    if args.limit is not None and not args.test:
        raise ValueError("--limit goes with --test DATA")
    fixed = None
    if args.fixed_size is not None:
        fixed = read_card(args.checkpoint).input.size
        if args.fixed_size:
            fixed = both_sides(parse_size(args.fixed_size, "--fixed-size"))
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit must be at least 1, got {args.limit}")
    int8 = job.Int8(args.images, args.count, args.calibration) if args.int8 else None
    test = job.Test(args.test, args.split, args.limit or 10**9) if args.test else None
    exported = job.export_checkpoint(
        args.checkpoint, args.out, args.format, fixed_size=fixed, target=args.target, int8=int8, test=test,
        overwrite=args.overwrite, strict=args.strict,
    )  # fmt: skip
    print("\n".join(describe(exported)))
    if not task_spec(read_card(args.checkpoint).task).per_pixel:
        print(next_line("serve", args.checkpoint))


def describe(exported) -> list[str]:
    """What was written and how it was checked, as lines."""
    from elastic_cnn.export.check import TOLERANCE

    lines = [f"wrote {exported.path} ({exported.bytes / 1e6:.1f} MB): any batch; {exported.sizes}"]
    if exported.joined is not None:
        lines.append(
            f"  the branches of {exported.joined} blocks joined before their last convolution"
            if exported.joined
            else "  no block of this network has branches to join: the file is that of --target any"
        )
    for check in exported.checks:
        shape = "x".join(map(str, check.shape))
        lines.append(
            f"  equals the network at {shape}: {check.error:.1e} of the largest logit (allowed {TOLERANCE:.0e})"
        )
    if exported.agreement is not None:
        lines.append(
            f"  8 bits, calibrated on {exported.calibrated} photos: answers as the network does in "
            f"{100 * exported.agreement:.2f}% on {exported.compared} photos"
        )
    if exported.top1 is not None:
        before, after = exported.top1
        lines.append(f"  top-1: network {100 * before:.2f}%, file {100 * after:.2f}%")
    if exported.unreadable:
        lines.append(f"  {exported.unreadable} unreadable photos left out")
    return lines
