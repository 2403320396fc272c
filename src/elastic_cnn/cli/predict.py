"""`elastic predict CHECKPOINT IMAGE...`: what photos show, and at which scale each block of the network looked."""

import argparse
import glob
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from elastic_cnn.data.folders import find_pictures
from elastic_cnn.data.remote import is_url
from elastic_cnn.policy.predict import Prediction, predict_photos, render
from elastic_cnn.text import listed, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file or a run folder")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="photos, folders of photos, or patterns")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to show (default: 5)")
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="P", help="multi-label: show classes above it (default: 0.5)"
    )
    parser.add_argument("--json", action="store_true", help="a JSON list on standard output instead of text")


def run(args: argparse.Namespace) -> None:
    from elastic_cnn.policy.run import load_subject

    if args.top < 1:
        raise ValueError(f"--top must be at least 1, got {args.top}")
    if not 0 <= args.threshold < 1:
        raise ValueError(f"--threshold must be a probability below 1, got {args.threshold}")
    subject = load_subject(args.checkpoint)
    photos = named_photos(args.images)
    answers: list[dict[str, Any]] = []
    broken = []
    for answer in predict_photos(subject, photos, top=args.top, threshold=args.threshold):
        if isinstance(answer, Prediction):
            answers.append(answer.to_dict())
            if not args.json:
                print(render(answer, fancy=_can_write("█▌│")), flush=True)
        else:
            broken.append(answer)
            answers.append({"path": answer.path, "error": answer.reason})
            if not args.json:
                print(f"elastic: error: {printable(str(answer))}", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(answers, indent=2, ensure_ascii=not _can_write("\N{GRINNING FACE}")))
    if broken:
        names = listed([error.path for error in broken], most=20)
        raise ValueError(f"{len(broken)} of {len(photos)} images cannot be read: {names}")


def named_photos(words: Sequence[str]) -> list[str]:
    """The photos that words of a command line mean: files, all pictures below folders, patterns that no shell expanded.

    `ValueError` for an address, a folder without pictures and a pattern that matches nothing.
    """
    photos: list[str] = []
    for word in words:
        if is_url(word):
            raise ValueError(f"{word} is an address: download the photo, and give its file")
        if os.path.isdir(word):
            photos += map(str, find_pictures(word))
        elif not os.path.lexists(word) and glob.has_magic(word):
            found = sorted(path for path in glob.glob(word, recursive=True) if not os.path.isdir(path))
            if not found:
                raise ValueError(f"no file matches {printable(word)}")
            photos += found
        else:
            photos.append(word)
    return photos


def _can_write(text: str) -> bool:
    """Whether standard output can show these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
