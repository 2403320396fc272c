"""`elastic explore POLICY -o DIR`: scale policies in a browser; `--checkpoint CKPT --serve`: photos of your own."""

import argparse
import os
import sys
import tempfile
import webbrowser
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from elastic_cnn.extras import require

if TYPE_CHECKING:
    from elastic_cnn.policy.explorer.predict import Predictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", nargs="?", metavar="POLICY", help="a policy table, or the folder it lies in")
    parser.add_argument("-o", "--out", metavar="DIR", help="folder to write (default: explorer, beside POLICY)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.add_argument("--photos", metavar="DIR", help="folder of the photos (default: the one that the table names)")
    parser.add_argument("--map", default="auto", choices=("auto", "tsne", "pca"), help="of the photos (default: auto)")
    parser.add_argument("--thumbnail", type=int, default=112, metavar="PX", help="side of thumbnails (default: 112)")
    parser.add_argument("--picture", type=int, default=640, metavar="PX", help="of pictures, 0: none (default: 640)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="threads (default: all)")
    parser.add_argument("--overwrite", action="store_true", help="replace an explorer in DIR")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--serve", action="store_true", help="show it by a server on this machine")
    parser.add_argument("--checkpoint", metavar="CKPT", help="with --serve: a network that photos can be dropped on")
    parser.add_argument("--host", default="127.0.0.1", help="with --serve: address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="with --serve (default: 8000; 0: any free one)")
    parser.epilog = "The folder opens by a double click on its index.html: no server, nothing from elsewhere."


def run(args: argparse.Namespace) -> None:
    if args.checkpoint and not args.serve:
        raise ValueError("--checkpoint is for photos that are dropped on the page: add --serve")
    if not args.policy and not args.serve:
        raise ValueError("name a policy table (from `elastic policy`), or try photos by --checkpoint CKPT --serve")
    if not args.policy and not args.checkpoint:
        raise ValueError("--serve without a policy table needs a network to try photos on: add --checkpoint CKPT")
    predictor = _predictor(args.checkpoint) if args.checkpoint else None
    index = _build(args) if args.policy else None
    if args.serve:
        _serve(args, index.parent if index else None, predictor)
    elif args.open and index is not None and not webbrowser.open(index.resolve().as_uri()):
        print(f"no browser could be started: open {index} yourself")


def _build(args: argparse.Namespace) -> Path:
    require("pyarrow", "figures")
    from elastic_cnn.policy.explorer import ExplorerOptions, build_explorer
    from elastic_cnn.policy.explorer.build import MARKER
    from elastic_cnn.policy.explorer.sprites import PictureOptions
    from elastic_cnn.policy.table import policy_file

    table = policy_file(args.policy)
    out = Path(args.out) if args.out else table.parent / "explorer"
    if args.serve and not args.overwrite and (out / MARKER).is_file():
        print(f"{out}: shown as it is (--overwrite builds it anew)")
        return out / "index.html"
    pictures = PictureOptions(args.thumbnail, args.picture, args.workers)
    options = ExplorerOptions(args.photos, args.map, pictures)
    done = 0

    def progress(rows: int) -> None:
        nonlocal done
        done += rows
        if not args.no_progress and sys.stderr.isatty():
            print(f"\r{done} photos", end="", file=sys.stderr)

    report = build_explorer(table, out, options, overwrite=args.overwrite, progress=progress, say=print)
    if not args.no_progress and sys.stderr.isatty():
        print(file=sys.stderr)
    for reason, count in report.missing.items():
        print(f"warning: {count} of {report.rows} photos cannot be shown: {reason}", file=sys.stderr)
    print(f"{report.index}: {report.rows} photos, map by {report.map}, pictures {report.bytes / 2**20:.1f} MB")
    return report.index


def _predictor(checkpoint: str) -> "Predictor":
    from elastic_cnn.policy.explorer.predict import Predictor
    from elastic_cnn.zoo.checkpoint import load_checkpoint

    network, card = load_checkpoint(checkpoint)
    try:
        return Predictor(network, card.network, card.task, card.classes, asdict(card.input))
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error


def _serve(args: argparse.Namespace, folder: Path | None, predictor: "Predictor | None") -> None:
    from elastic_cnn.policy.explorer.build import live_folder
    from elastic_cnn.policy.explorer.serve import LOOPBACK, ExplorerServer

    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port is 0 to 65535, not {args.port}")
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(str(folder)) as place:
        if folder is None:
            live_folder(Path(place))
        log = lambda line: print(line, file=sys.stderr)  # noqa: E731
        with ExplorerServer(place, predictor, host=args.host, port=args.port, log=log) as server:
            if args.host not in LOOPBACK:
                print(f"warning: others on your network can reach this server at {server.url}", file=sys.stderr)
            print(f"{server.url} (Ctrl+C ends it)", flush=True)
            if args.open:
                webbrowser.open(server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("ended")
