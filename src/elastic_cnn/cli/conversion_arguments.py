"""What `elastic elasticize` needs besides for a conversion on photos: its arguments, its run, its table and picture."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from elastic_cnn.tasks.spec import task_spec

if TYPE_CHECKING:
    from elastic_cnn.data.image_folder import ImageFolder

AIMS = ("budget", "time", "tolerance")


def add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("conversion that keeps what a trained network learnt")
    group.add_argument("--photos", metavar="DIR", help="photos to calibrate on, without labels")
    aims = group.add_mutually_exclusive_group()
    aims.add_argument("--budget", type=_part, metavar="R", help="multiply-adds over the network's: 0.8, or 80%%")
    aims.add_argument("--time", type=_part, metavar="R", help="measured time over the network's, in the form --form")
    aims.add_argument("--tolerance", type=_part, metavar="R", help="part of the answers that may change: 1%%")
    group.add_argument(
        "--form", default="native", choices=("native", "bf16", "openvino"), help="how it will run (default: native)"
    )
    group.add_argument("--count", type=int, default=256, metavar="N", help="photos to calibrate on (default: 256)")
    group.add_argument("--seed", type=int, default=0, help="which photos are drawn (default: 0)")
    group.add_argument("--no-order", action="store_true", help="leave the channels in the order that they have")
    group.add_argument("--no-refit", action="store_true", help="leave the weights as they are")
    group.add_argument(
        "--keep", metavar="DIR", help="keep finished blocks there until the end: the same command goes on from them"
    )
    group.add_argument("--test", metavar="DATA", help="also test both on the split val of labelled photos")
    group.add_argument("--no-timing", action="store_true", help="do not time the networks")


def _part(text: str) -> float:
    """0.8 or 80%."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number such as 0.8 or 80%") from error


def check_arguments(args: argparse.Namespace) -> None:
    """`ValueError` for what belongs to a conversion where no photos are given, and for what cannot be."""
    given = [f"--{name}" for name in (*AIMS, "test", "keep") if getattr(args, name) is not None]
    given += [f"--{name.replace('_', '-')}" for name in ("no_order", "no_refit") if getattr(args, name)]
    if args.photos is None and given:
        raise ValueError(f"{given[0]} needs --photos, which the conversion learns from")
    if args.photos is not None and args.match:
        raise ValueError("--match adds untrained layers: it does not go with --photos")
    if args.photos is not None and args.count < 1:
        raise ValueError(f"--count must be at least 1, got {args.count}")


def convert_on_photos(
    args: argparse.Namespace, network: nn.Module, card: Any, spec: Any, where: Any
) -> tuple[Any, Any]:
    """The converted network and its card; prints what became of it."""
    import torch

    from elastic_cnn.conversion import Calibration, Refit, convert
    from elastic_cnn.conversion.outcome import compare_networks
    from elastic_cnn.conversion.photos import batches, collect
    from elastic_cnn.files import naming, refuse_unwritable_folder

    network.eval()
    test = None if args.test is None else _open_test(card, args.test)
    transform = card.transform()
    count = args.count * (2 if args.tolerance is None else 3)  # as many others are held out
    photos = collect(args.photos, count, transform, network, args.seed)
    own = args.count * (1 if args.tolerance is None else 2)
    if args.keep is not None:
        refuse_unwritable_folder(args.keep)
    calibration = Calibration(
        args.count,
        not args.no_order,
        None if args.no_refit else Refit(),
        seed=args.seed,
        task=card.task,
        keep=args.keep,
    )
    with naming(args.network):
        elastic: Any = convert(
            network,
            photos[:own],
            spec,
            where,
            stages=args.stages,
            convolutions=args.convolutions,
            everywhere=args.everywhere,
            **{name: getattr(args, name) for name in AIMS},
            form=args.form,
            calibration=calibration,
            progress=Bar(),
        )
    print(elastic.conversion_report)
    others = batches(photos[own:]) if len(photos) > own else []
    image = photos[:1].contiguous(memory_format=torch.channels_last)
    outcome = compare_networks(network, elastic, others, image, None if args.no_timing else args.form, card.task)
    if test is not None:
        outcome = replace(outcome, top1=_test(network, elastic, test))
    print(outcome.table())
    steps = {**elastic.conversion_report.to_dict(), "aim": {name: getattr(args, name) for name in AIMS}}
    return elastic, replace(card, info={**card.info, "conversion": steps})


def written_files(args: argparse.Namespace) -> list[str]:
    """The checkpoint that `--out` names, and of a conversion on photos the picture beside it."""
    if not args.out:
        return []
    return [args.out] if args.photos is None else [args.out, f"{args.out.removesuffix('.safetensors')}.png"]


def draw(elastic: Any, out: str) -> list[Path]:
    """The picture beside the checkpoint; none, with a word on standard error, where matplotlib is not installed."""
    from elastic_cnn.conversion.outcome import draw_blocks
    from elastic_cnn.extras import MissingExtra

    try:
        return draw_blocks(elastic.conversion_report, out.removesuffix(".safetensors"))
    except MissingExtra as error:
        print(f"elastic: no picture: {error}", file=sys.stderr)
        return []


def _open_test(card: Any, data: str) -> ImageFolder:
    """The photos of `--test`, opened before anything is computed; says what was found. `ValueError`: not to be used."""
    from elastic_cnn.data.left_out import warn
    from elastic_cnn.export.photos import open_split

    if not task_spec(card.task).top1 or not card.classes:
        raise ValueError("--test needs a checkpoint of a classifier that knows its classes")
    folder = open_split(data, "val", card.classes, card.input)
    print(f"to test on, {folder.found_line}")
    for notice in folder.notices:
        warn(notice)
    return folder


def _test(network: nn.Module, elastic: nn.Module, folder: ImageFolder) -> tuple[float, float]:
    import torch

    from elastic_cnn.data.left_out import LeftOut
    from elastic_cnn.export.photos import top1

    with torch.no_grad():
        before, after = top1([network, elastic], folder, len(folder), LeftOut())
    return before, after


class Bar:
    """Steps of a conversion on standard error, with the time that is left, where somebody is looking."""

    def __init__(self) -> None:
        self.what = ""
        self.bar: Any = None

    def __call__(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        if what != self.what or self.bar is None:
            self._close()
            self.what, self.bar = what, tqdm(total=total, desc=what, disable=None, leave=False)
        self.bar.update(done - self.bar.n)
        if done >= total:
            self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None
