"""`elastic explore POLICY -o DIR`: scale policies in a browser; `elastic explore CKPT --data DIR`: what any network
says of photos; `--checkpoint CKPT --serve`: photos of your own."""

import argparse
import os
import sys
import tempfile
import webbrowser
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from elastic_cnn.cli.data_arguments import add_data_arguments, data_or_own
from elastic_cnn.cli.next_step import next_line
from elastic_cnn.extras import require
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.text import printable

if TYPE_CHECKING:
    from elastic_cnn.policy.explorer.predict import Predictor


METHODS = ("auto", "tsne", "umap", "pca")  # of `policy.explorer.layout`, which is slow to import


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "policy",
        nargs="?",
        metavar="POLICY",
        help="a policy table or its folder; a run folder, to ask about its own photos; with --data a checkpoint",
    )
    add_data_arguments(parser, "photos to ask the checkpoint POLICY about first: any classifier's, elastic or not")
    parser.add_argument("--split", default="val", help="of --data: train, val, test or a folder's name (default: val)")
    parser.add_argument("--against", metavar="BASE", help="with --data: a checkpoint whose answers stand beside")
    parser.add_argument("-o", "--out", metavar="DIR", help="folder to write (default: explorer, beside POLICY)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.add_argument("--photos", metavar="DIR", help="folder of the photos (default: the one that the table names)")
    parser.add_argument("--map", default="auto", choices=METHODS, help="of the photos (default: auto)")
    parser.add_argument(
        "--map-of",
        default="auto",
        choices=("auto", "policy", "features"),
        help="(default: auto, the policy first)",
    )
    parser.add_argument(
        "--most", type=int, default=500_000, metavar="N", help="photos shown; a random sample of more (default: 500000)"
    )
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
    asked = bool(args.data or args.annotations or args.images or (args.policy and is_checkpoint(args.policy)))
    if (args.against or asked) and not (asked and args.policy):
        raise ValueError("--data DIR asks the checkpoint that is named first: elastic explore CHECKPOINT --data DIR")
    if args.checkpoint and not args.serve:
        raise ValueError("--checkpoint is for photos that are dropped on the page: add --serve")
    if not args.policy and not args.serve:
        raise ValueError("name a policy table (from `elastic policy`), or try photos by --checkpoint CKPT --serve")
    if not args.policy and not args.checkpoint:
        raise ValueError("--serve without a policy table needs a network to try photos on: add --checkpoint CKPT")
    if asked:
        args.policy = _collect(args)
    predictor = _predictor(args.checkpoint) if args.checkpoint else None
    index = _build(args) if args.policy else None
    if args.serve:
        _serve(args, index.parent if index else None, predictor)
    elif index is not None:
        if not args.open:
            print(f"open {index} in a browser (or repeat with --open)")
        elif not webbrowser.open(index.resolve().as_uri()):
            print(f"no browser could be started: open {index} yourself")
        if (checkpoint := checkpoint_of(args.policy)) is not None:
            print(next_line("export", checkpoint, "--format", "onnx"))


def is_checkpoint(path: str) -> bool:
    """Whether a name means a network and not a policy table: a .safetensors file, or a run folder with one."""
    place = Path(path)
    run = (place / "best.safetensors").is_file() and not (place / "policy.parquet").is_file()
    return run or place.suffix == ".safetensors"


def checkpoint_of(policy: str | Path) -> Path | None:
    """The network that a table is of: its run folder where it is the best of one; None where it is gone."""
    from elastic_cnn.policy.table import policy_file, read_info

    file = Path(read_info(policy_file(policy)).checkpoint)
    if not file.is_file():
        return None
    return file.parent if file.name == "best.safetensors" else file


def _collect(args: argparse.Namespace) -> Path:
    """The table of the checkpoint's answers, collected unless it is there already."""
    require("pyarrow", "figures")
    from elastic_cnn.analysis.photo_answers import collect_answers
    from elastic_cnn.policy.collect import Settings
    from elastic_cnn.policy.run import load_subject
    from elastic_cnn.tasks.console import Console

    if args.out:
        _free(Path(args.out), args)
    subject = load_subject(args.policy)
    against = load_subject(args.against) if args.against else None
    out = subject.checkpoint.parent / "policy"
    data, places = data_or_own(args, args.policy)
    console = Console(False if args.no_progress else None)
    done = collect_answers(
        console, subject, data, out, split=args.split, against=against, places=places,
        settings=Settings(workers=min(2, args.workers)), overwrite=args.overwrite, reuse=not args.overwrite,
    )  # fmt: skip
    what = "masks of" if task_spec(subject.task).per_pixel else "answers about"
    console.line(f"{done.path}: the {what} {done.rows} photos")
    return done.path


def _free(out: Path, args: argparse.Namespace) -> None:
    """`ValueError` where no explorer may be written; with --serve one that lies there is shown, or built anew."""
    from elastic_cnn.policy.explorer.build import MARKER, check_out

    if not (args.serve and (out / MARKER).is_file()):
        check_out(out, args.overwrite)


def _build(args: argparse.Namespace) -> Path:
    require("pyarrow", "figures")
    from elastic_cnn.policy.explorer import ExplorerOptions, build_explorer
    from elastic_cnn.policy.explorer.build import MARKER
    from elastic_cnn.policy.explorer.sprites import PictureOptions
    from elastic_cnn.policy.table import policy_file

    table = policy_file(args.policy)
    out = Path(args.out) if args.out else table.parent / "explorer"
    overwrite = args.overwrite
    if args.serve and not overwrite and (out / MARKER).is_file():
        overwrite = table.stat().st_mtime > (out / MARKER).stat().st_mtime  # the table is newer: what lies there is old
        if not overwrite:
            print(f"{out}: shown as it is (--overwrite builds it anew)")
            return out / "index.html"
    pictures = PictureOptions(args.thumbnail, args.picture, args.workers)
    options = ExplorerOptions(args.photos, args.map, args.map_of, args.most, pictures)
    done = 0

    def progress(rows: int) -> None:
        nonlocal done
        done += rows
        if not args.no_progress and sys.stderr.isatty():
            print(f"\r{done} photos", end="", file=sys.stderr)

    report = build_explorer(table, out, options, overwrite=overwrite, progress=progress, say=print)
    if not args.no_progress and sys.stderr.isatty():
        print(file=sys.stderr)
    for reason, count in report.missing.items():
        print(f"warning: {count} of {report.rows} photos cannot be shown: {printable(reason)}", file=sys.stderr)
    of = f" of {report.sampled_of}" if report.sampled_of else ""
    print(f"{report.index}: {report.rows}{of} photos, map by {report.map}, pictures {report.bytes / 2**20:.1f} MB")
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
