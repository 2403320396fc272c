"""`elastic segment CHECKPOINT IMAGE... -o DIR`: coloured masks of photos of any size."""

import argparse
import re
import sys

import torch

from elastic_cnn.analysis.segment_files import SegmentedPhoto, segment_files
from elastic_cnn.text import printable

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "For each photo, DIR/NAME_mask.png holds the class numbers (with the classes' colours as palette) and "
        "DIR/NAME_side_by_side.png the photo, the coloured mask and both laid over each other."
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file or a run folder")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="photos, or folders of photos (without the folders in them)"
    )
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--tile", type=int, metavar="PX", help="do photos in tiles of this side (default: whole)")
    parser.add_argument(
        "--max-memory",
        metavar="SIZE",
        help="the largest tiles whose computation fits in SIZE (800M, 2G), weights apart",
    )
    parser.add_argument("--strength", type=float, default=0.55, help="of the colours in the overlay, 0..1 (0.55)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, ...")
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that exist")


def run(args: argparse.Namespace) -> None:
    if not 0 <= args.strength <= 1:
        raise ValueError(f"--strength must lie in 0..1, got {args.strength}")
    done = segment_files(
        args.checkpoint,
        args.images,
        args.out,
        tile=args.tile,
        max_bytes=None if args.max_memory is None else parse_size(args.max_memory),
        strength=args.strength,
        overwrite=args.overwrite,
        device=args.device,
    )
    broken = []
    for result in done:
        if isinstance(result, SegmentedPhoto):
            print(printable(describe(result)), flush=True)
        else:
            broken.append(result)
            print(f"elastic: error: {printable(str(result))}", file=sys.stderr, flush=True)
    if broken:
        raise ValueError(f"{len(broken)} photo(s) cannot be read: {', '.join(error.path for error in broken)}")


def describe(result: SegmentedPhoto) -> str:
    """One line: the file written and the largest classes."""
    shown = [f"{name} {100 * part:.1f}%" for name, part in list(result.parts.items())[:4]]
    how = f" (tiles of {result.tile})" if result.tile else ""
    return f"{result.photo} -> {result.side_by_side}{how}: {', '.join(shown)}"


def parse_size(text: str) -> int:
    """`800M`, `1.5G`, `2GiB` or plain bytes as bytes; K, M and G are powers of 1024. `ValueError` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or float(match[1]) == 0:
        raise ValueError(f"--max-memory {text!r} is not a size: write 800M or 2G")
    return int(float(match[1]) * UNITS[match[2].upper()])
