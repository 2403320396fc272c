"""`elastic predict CHECKPOINT IMAGE...`: what photos show, and at which scale each block of the network looked."""

import argparse
import json
import sys
from typing import Any

from elastic_cnn.policy.predict import Prediction, predict_photos, render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file or a run folder")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="photos")
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
    answers: list[dict[str, Any]] = []
    broken = []
    for answer in predict_photos(subject, args.images, top=args.top, threshold=args.threshold):
        if isinstance(answer, Prediction):
            answers.append(answer.to_dict())
            if not args.json:
                print(render(answer, fancy=_can_draw()), flush=True)
        else:
            broken.append(answer)
            answers.append({"path": answer.path, "error": answer.reason})
            if not args.json:
                print(f"elastic: error: {answer}", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(answers, indent=2, ensure_ascii=False))
    if broken:
        names = ", ".join(error.path for error in broken)
        raise ValueError(f"{len(broken)} of {len(args.images)} images cannot be read: {names}")


def _can_draw() -> bool:
    """Whether standard output can show block characters."""
    try:
        "█▌│".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
