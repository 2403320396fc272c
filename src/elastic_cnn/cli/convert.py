"""`elastic convert FILE OUT.safetensors`: a released checkpoint as one of this package."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the paper's released checkpoint (.pth.tar)")
    parser.add_argument("out", metavar="OUT", nargs="?", help="the checkpoint to write (.safetensors)")
    parser.add_argument("-o", "--out", dest="option", metavar="OUT", help="the same, as other commands have it")
    parser.add_argument("--network", metavar="NAME", help="which network it is, where the tensors leave a choice")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")


def run(args: argparse.Namespace) -> None:
    from elastic_cnn.zoo.released import convert

    if (args.out is None) == (args.option is None):
        raise ValueError(f"{args.file}: name one file to write: `elastic convert FILE OUT.safetensors`, or -o OUT")
    out = args.option if args.out is None else args.out
    print(convert(args.file, out, args.network, args.overwrite))
    print(f"written to {out}")
