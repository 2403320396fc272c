"""`elastic policy CHECKPOINT --data DIR`: collect the scale policy of every photo, and draw it."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from elastic_cnn.cli.data_arguments import add_data_arguments, data_or_own
from elastic_cnn.cli.next_step import next_line
from elastic_cnn.extras import require

if TYPE_CHECKING:
    from elastic_cnn.tasks.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of an elastic network: a file or a run folder")
    add_data_arguments(parser, "the data, as for training, or a folder of photos (of a run: its own, by default)")
    parser.add_argument("--split", default="val", help="train, val, test or a folder's name (default: val)")
    parser.add_argument("-o", "--out", metavar="OUT", help="folder to write (default: policy, beside the checkpoint)")
    parser.add_argument("--against", metavar="BASE", help="the base network's checkpoint: its answers stand beside")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    parser.add_argument("--part-size", type=int, default=512, metavar="N", help="images a part file (default: 512)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read images (default: 2)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    parser.add_argument("--precision", default="32", choices=("32", "bf16", "16"), help="of activations (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="of the t-SNE (default: 0)")
    parser.add_argument("--no-figures", action="store_true", help="only the table")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument("--strict", action="store_true", help="an unreadable image is an error, not left out")
    parser.add_argument("--overwrite", action="store_true", help="collect anew where OUT holds a table or parts of one")
    parser.epilog = (
        "An interrupted collection goes on where it stopped when the command is repeated. "
        "Several GPUs or processes: torchrun --nproc-per-node N -m elastic_cnn policy ..."
    )


def run(args: argparse.Namespace) -> None:
    require("pyarrow", "figures")
    import torch

    from elastic_cnn.analysis.photo_answers import collect_with_bar
    from elastic_cnn.policy.collect import Settings
    from elastic_cnn.policy.processes import Processes
    from elastic_cnn.policy.run import load_subject
    from elastic_cnn.tasks.console import Console

    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no usable CUDA device here; choose --device cpu")
    data, places = data_or_own(args, args.checkpoint)
    settings = Settings(args.batch_size, args.part_size, args.workers, device, args.precision, args.strict)
    subject = load_subject(args.checkpoint)
    against = load_subject(args.against) if args.against else None
    out = Path(args.out) if args.out else subject.checkpoint.parent / "policy"
    processes = Processes.join(device)
    console = Console(False if args.no_progress else None)
    console.shown = processes.is_first
    done = collect_with_bar(
        console, "policy", subject, data, out, processes.count, split=args.split, against=against,
        places=places, settings=settings, overwrite=args.overwrite,
    )  # fmt: skip
    if not processes.is_first:
        return
    fresh = done.rows - done.resumed
    console.line(
        f"{done.path}: {done.rows} images, {len(done.info.blocks)} elastic blocks; {fresh} done now in "
        f"{done.seconds:.1f} s ({fresh / max(done.seconds, 1e-9):.1f} images/s)"
        + (f", {done.resumed} before" if done.resumed else "")
        + (f", {len(done.unreadable)} unreadable left out" if done.unreadable else "")
    )
    if not args.no_figures:
        _draw(args, data, places, done.path, console)
    console.line(next_line("explore", out, "--open"))


def _draw(args: argparse.Namespace, data: str, places: Mapping[str, str], table_path: Path, console: "Console") -> None:
    from elastic_cnn.policy.figures import draw_all
    from elastic_cnn.policy.photos import open_or_none, open_photos
    from elastic_cnn.policy.table import read_policy

    table = read_policy(table_path)
    photos = open_photos(data, args.split, table.info.task, table.info.classes, table.info.input, places)
    opener = open_or_none(photos, table.column("id"))
    for path in draw_all(table, table_path.parent / "figures", opener, seed=args.seed, note=console.line):
        if path.suffix == ".png":
            console.line(str(path))
