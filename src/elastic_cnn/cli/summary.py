"""`elastic summary`: parameters and multiply-adds, beside the paper's figures."""

import argparse

from elastic_cnn.extras import require
from elastic_cnn.text import alternatives

FORMATS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", nargs="*", help="names of networks, or checkpoints")
    parser.add_argument("--all", action="store_true", help="the paper's tables: 1, 2 and 8 to 11")
    parser.add_argument("--size", type=int, default=None, help="input height and width (default: the network's own)")
    parser.add_argument("--table1", action="store_true", help="Table 1: cost of one layer in each multi-scale design")
    parser.add_argument("-n", type=int, default=56, help="Table 1: height and width of the map (default 56)")
    parser.add_argument("-c", type=int, default=256, help="Table 1: channels (default 256)")
    parser.add_argument("-k", type=int, default=3, help="Table 1: kernel size (default 3)")
    parser.add_argument("-r", type=int, nargs="+", default=[1, 2], help="Table 1: scale of each branch (default 1 2)")
    parser.add_argument("-q", type=int, default=None, help="Table 1: branches (default: as many as scales)")
    parser.add_argument(
        "-b", type=int, default=None, help="Table 1: levels of the feature pyramids (default: branches)"
    )
    parser.add_argument("--figure4", metavar="FILE", help="write Figure 4 (.png, .svg or .pdf), errors from the paper")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")


def run(args: argparse.Namespace) -> None:
    from elastic_cnn.analysis.complexity import table_1
    from elastic_cnn.analysis.summary import format_table_1, measure_paper_networks, paper_tables, save_figure_4
    from elastic_cnn.files import refuse_output

    if not (args.network or args.all or args.table1 or args.figure4):
        raise ValueError("name a network, or ask for --all, --table1 or --figure4 FILE")
    if args.size is not None and args.size < 1:
        raise ValueError(f"--size must be positive, got {args.size}")
    if args.figure4:
        require("matplotlib", "figures")
        if not args.figure4.endswith(FORMATS):
            raise ValueError(f"{args.figure4}: the figure's name ends in {alternatives(FORMATS)}")
        refuse_output(args.figure4, args.overwrite)
    for name in args.network:
        print(_describe(name, args.size))
    if args.table1 or args.all:
        q = len(args.r) if args.q is None else args.q
        print(f"Table 1, n={args.n} c={args.c} k={args.k} q={q} r={args.r}")
        print(format_table_1(table_1(args.n, args.c, args.k, q, args.r, args.b)), end="\n\n")
    if args.all or args.figure4:
        measured = measure_paper_networks()
        if args.all:
            print(paper_tables(measured))
        if args.figure4:
            save_figure_4(measured, args.figure4)
            print(f"wrote {args.figure4}")


def _describe(name: str, size: int | None) -> str:
    from elastic_cnn.analysis.summary import describe_network
    from elastic_cnn.zoo import create_model, load_checkpoint
    from elastic_cnn.zoo.checkpoint import means_checkpoint

    if means_checkpoint(name):
        network, card = load_checkpoint(name)
        height, width = card.input.size
        return describe_network(card.network, network, (len(card.input.mean), size or height, size or width))
    network = create_model(name)
    channels, height, width = getattr(network, "default_cfg", {}).get("input_size", (3, 224, 224))
    return describe_network(name, network, (channels, size or height, size or width))
