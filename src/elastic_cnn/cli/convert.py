"""`elastic convert FILE OUT.safetensors`: a released checkpoint as one of this package."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the paper's released checkpoint (.pth.tar)")
    parser.add_argument("out", metavar="OUT", help="the checkpoint to write (.safetensors)")
    parser.add_argument("--network", metavar="NAME", help="which network it is, where the tensors leave a choice")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")


def run(args: argparse.Namespace) -> None:
    from elastic_cnn.zoo.released import convert

    print(convert(args.file, args.out, args.network, args.overwrite))
    print(f"written to {args.out}")
