"""`elastic predict CHECKPOINT IMAGE...`: what photos show, and at which scale each block of the network looked."""

import argparse
import glob
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from elastic_cnn.cli.data_arguments import has_own_data
from elastic_cnn.cli.next_step import next_line
from elastic_cnn.data.folders import find_pictures
from elastic_cnn.data.remote import is_url
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.files import refuse_output
from elastic_cnn.policy.predict import Prediction, predict_photos, render
from elastic_cnn.policy.predictions_file import check_kind, write_predictions
from elastic_cnn.policy.video import frames, is_video
from elastic_cnn.text import listed, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "`find . -name '*.jpg' | elastic predict RUN - -o answers.csv` takes the photos from another program."
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file or a run folder")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="photos, folders, patterns, films, or - for a list on standard input"
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to show (default: 5)")
    parser.add_argument(
        "--threshold", type=float, metavar="P",
        help="multi-label: what a class must exceed (default: as training tuned it, else 0.5)",
    )  # fmt: skip
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="S", help="films: seconds from frame to frame (default: 1)"
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="write .csv, .json or .parquet, a row a photo")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")
    parser.add_argument("--json", action="store_true", help="a JSON list on standard output instead of text")


def run(args: argparse.Namespace) -> None:
    from elastic_cnn.policy.run import load_subject

    if args.top < 1:
        raise ValueError(f"--top must be at least 1, got {args.top}")
    if args.threshold is not None and not 0 <= args.threshold < 1:
        raise ValueError(f"--threshold must be a probability below 1, got {args.threshold}")
    if not 0 < args.every < math.inf:
        raise ValueError(f"--every must be a positive number of seconds, got {args.every}")
    if args.out is not None:
        check_kind(refuse_output(args.out, args.overwrite))
    subject = load_subject(args.checkpoint)
    photos = named_photos(args.images)
    answers: list[dict[str, Any]] = []
    broken = []
    quiet = args.json or args.out is not None
    for answer in _answers(subject, photos, args):
        if isinstance(answer, Prediction):
            answers.append(answer.to_dict())
            if not quiet:
                print(render(answer, fancy=_can_write("█▌│")), flush=True)
        else:
            broken.append(answer)
            answers.append({"path": answer.path, "error": answer.reason})
            if not args.json:
                print(f"elastic: error: {printable(str(answer))}", file=sys.stderr, flush=True)
    if args.out is not None:
        print(f"{len(answers)} answers written to {write_predictions(args.out, answers)}", file=sys.stderr)
        own = () if has_own_data(args.checkpoint) else ("--data", "DIR")
        print(next_line("explore", args.checkpoint, *own, "--open"), file=sys.stderr)
    if args.json:
        print(json.dumps(answers, indent=2, ensure_ascii=not _can_write("\N{GRINNING FACE}")))
    if broken:
        names = listed([error.path for error in broken], most=20)
        raise ValueError(f"{len(broken)} of {len(answers)} images cannot be read: {names}")


def _answers(subject: Any, photos: list[str], args: argparse.Namespace) -> Iterator[Prediction | UnreadableSample]:
    """The answers for photos and for the frames of films, in order."""
    for photo in photos:
        some: Any = frames(photo, args.every) if is_video(photo) else [photo]
        try:
            yield from predict_photos(subject, some, top=args.top, threshold=args.threshold)
        except UnreadableSample as error:  # a film that cannot be read, or not further
            yield error


def named_photos(words: Sequence[str]) -> list[str]:
    """The photos that words of a command line mean: files, all pictures below folders, patterns that no shell expanded.

    `-` stands for a list on standard input, a path a line. `ValueError` for no photo at all, an address, a folder
    without pictures and a pattern that matches nothing.
    """
    photos: list[str] = []
    for word in words:
        if word == "-":
            photos += [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
        elif is_url(word):
            raise ValueError(f"{word} is an address: download the photo, and give its file")
        elif os.path.isdir(word):
            photos += map(str, find_pictures(word))
        elif not os.path.lexists(word) and glob.has_magic(word):
            found = sorted(path for path in glob.glob(word, recursive=True) if not os.path.isdir(path))
            if not found:
                raise ValueError(f"no file matches {printable(word)}")
            photos += found
        else:
            photos.append(word)
    if not photos:
        raise ValueError("standard input names no photos: give a path a line")
    return photos


def _can_write(text: str) -> bool:
    """Whether standard output can show these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
