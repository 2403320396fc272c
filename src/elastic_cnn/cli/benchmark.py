"""`elastic benchmark NETWORK [--against BASE]`: how long a network takes, beside its base, in every form."""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from elastic_cnn.analysis.benchmark.forms import INFERENCE

    forms = "; ".join(f"{name}: {line}" for name, line in INFERENCE.items())
    parser.epilog = f"Forms: {forms}. Networks by name have random weights. Let nothing else run meanwhile."
    parser.add_argument("network", metavar="NETWORK", help="a network's name, a checkpoint or a run folder")
    parser.add_argument("--against", metavar="BASE", help="the network to compare with, run in turns with it")
    parser.add_argument("--forms", type=_names, default=tuple(INFERENCE), metavar="FORM,...", help="default: all")
    parser.add_argument(
        "--batch-sizes", type=_numbers, default=(1, 8), metavar="N,...", help="default: 1,8; 0 for none"
    )
    parser.add_argument(
        "--train-batch-sizes", type=_numbers, default=(), metavar="N,...", help="also time training steps"
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="height and width of the input (default: those that NETWORK was trained for, where it is a checkpoint "
        "or a run, else 224)",
    )
    parser.add_argument("--dtypes", type=_names, default=("float32",), metavar="DTYPE,...", help="default: float32")
    parser.add_argument("--threads", type=_numbers, metavar="N,...", help="default: torch's number")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument("--memory", action="store_true", help="also the most memory that a call holds")
    parser.add_argument(
        "--roofline", action="store_true", help="also the processor's peaks and the part of them reached"
    )
    parser.add_argument("--breakdown", action="store_true", help="also where the time goes in the eager form")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="most rounds (default: 15)")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="most time for a table (default: 60)")
    parser.add_argument("-o", "--out", metavar="FILE", help="also write the results there (.json)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 1,8") from error
    return () if numbers == (0,) else numbers


def _size_of(network: str) -> tuple[int, str]:
    """The side of the square that `network` is timed at, and why in words: its own input's, of a rectangle that of as
    many pixels."""
    from elastic_cnn.zoo.checkpoint import means_checkpoint, read_card

    if not means_checkpoint(network):
        return 224, ""
    height, width = read_card(network).input.size
    side = height if height == width else 32 * max(1, round((height * width) ** 0.5 / 32))
    meant = f"meant for photos of {height} x {width}" + ("" if height == width else ", about as many pixels")
    return side, f"timed at {side} x {side}: {network} is {meant}; --size PX takes another"


def run(args: argparse.Namespace) -> None:
    import torch

    from elastic_cnn.analysis.benchmark import Request, benchmark, break_down, format_table
    from elastic_cnn.files import refuse_output, write_json

    if args.out:
        refuse_output(args.out, args.overwrite)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here: leave out --device")
    size, why = _size_of(args.network) if args.size is None else (args.size, "")
    request = Request(
        args.network,
        args.against,
        args.forms,
        args.batch_sizes,
        args.train_batch_sizes,
        size,
        args.dtypes,
        (torch.get_num_threads(),) if args.threads is None else args.threads,
        args.device,
        args.memory,
        args.roofline,
        args.rounds,
        args.seconds,
    )
    told = [why] if why else []  # before the first line of progress, when the networks have been looked at

    def tell(line: str) -> None:
        print(*told, line, sep="\n", file=sys.stderr, flush=True)
        told.clear()

    results = benchmark(request, tell)
    if not any(cell["rows"] for cell in results["cells"]):
        reasons = [entry["reason"] for cell in results["cells"] for entry in cell["unavailable"]]
        raise ValueError(f"nothing could be measured: {reasons[0] if reasons else 'none of the forms trains'}")
    if args.breakdown:
        results["breakdown"] = break_down(request)
    print(format_table(results))
    if args.out:
        write_json(args.out, results)
        print(f"wrote {args.out}")
