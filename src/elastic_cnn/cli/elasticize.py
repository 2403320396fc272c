"""`elastic elasticize NETWORK_OR_CHECKPOINT`: make a network elastic, say what changed, and save it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from elastic_cnn.cli.conversion_arguments import (
    AIMS,
    add_conversion_arguments,
    check_arguments,
    convert_on_photos,
    draw,
    written_files,
)
from elastic_cnn.files import refuse_output
from elastic_cnn.nn import ElasticSpec
from elastic_cnn.nn.resample import DOWNSAMPLE_KINDS, UPSAMPLE_KINDS

if TYPE_CHECKING:
    from elastic_cnn.zoo import InputSpec, NetworkCard

AUTO = "auto"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network", metavar="NETWORK_OR_CHECKPOINT", help="a network's name, a checkpoint or a run folder"
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="save the elastic network there (.safetensors)")
    parser.add_argument(
        "--scales",
        type=_scale,
        nargs="+",
        default=[1, 2],
        metavar="R",
        help="default: 1 2; auto: each block takes what pays most of 1 2, 1 4 and 1 2 4 (with --photos and an aim)",
    )
    parser.add_argument("--shares", type=float, nargs="+", metavar="S", help="part of the channels of each scale")
    parser.add_argument("--downsample", default="area", choices=DOWNSAMPLE_KINDS, help="default: area")
    parser.add_argument("--upsample", default="bilinear", choices=UPSAMPLE_KINDS, help="default: bilinear")
    parser.add_argument(
        "--stages", type=int, nargs="+", metavar="N", help="stages to convert (default: all but the last)"
    )
    parser.add_argument(
        "--everywhere",
        action="store_true",
        default=None,
        help="also the last stage, and blocks that change the resolution (with an aim such as --budget: the default)",
    )
    parser.add_argument("--where", metavar="REGEX", help="only blocks whose name matches")
    parser.add_argument(
        "--convolutions", action="store_true", default=None, help="convert single convolutions, not blocks"
    )
    parser.add_argument("--match", choices=["macs"], help="also choose depths that give the base's cost again")
    parser.add_argument("--num-classes", type=int, metavar="N", help="for a network by name (default: its own)")
    parser.add_argument(
        "--input-size",
        type=int,
        nargs=3,
        metavar=("C", "H", "W"),
        help="channels, height and width that the network takes (default: what it tells of itself)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="for a network by name: a file of its weights; as many classes as ImageNet's are taken for those, unless "
        "the file is a checkpoint that names its own",
    )
    parser.add_argument("--pretrained", action="store_true", help="for a network by name: timm's weights, downloaded")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")
    add_conversion_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from elastic_cnn.surgery import elasticize
    from elastic_cnn.zoo import load_checkpoint, save_checkpoint
    from elastic_cnn.zoo.checkpoint import means_checkpoint

    check_arguments(args)
    if args.out and not str(args.out).endswith(".safetensors"):
        raise ValueError(f"{args.out}: a checkpoint's name ends in .safetensors")
    for path in written_files(args):
        refuse_output(path, args.overwrite)
    spec = _spec(args)
    size = None if args.input_size is None else tuple(args.input_size)
    if size is not None and min(size) < 1:
        raise ValueError(f"--input-size takes three positive numbers, got {' '.join(map(str, size))}")
    network: nn.Module
    if means_checkpoint(args.network):
        network, card = load_checkpoint(args.network)
    else:
        network, card = _by_name(args)
    pattern = _pattern(args.where)
    where = (lambda name, _: bool(pattern.search(name))) if pattern else None
    if size is not None:
        card = replace(card, input=replace(card.input.of_channels(size[0]), size=size[1:]))
    if args.photos is not None:
        elastic, card = convert_on_photos(args, network, card, spec, where)
    else:
        options = {"stages": args.stages, "convolutions": args.convolutions, "match": args.match, "example": size}
        options["everywhere"] = bool(args.everywhere)
        assert isinstance(spec, ElasticSpec)  # several go with photos
        elastic = elasticize(network, spec, where, **options)
        print(_compare(card.network, network, elastic))
    if args.out:
        match = getattr(elastic, "elastic_match", None)
        if match:
            card = replace(card, kwargs={**card.kwargs, **match.arguments})
        save_checkpoint(args.out, elastic, card)
        written = [args.out, *(draw(elastic, args.out) if args.photos is not None else [])]
        print("\n".join(f"wrote {path}" for path in written))
        if not (means_checkpoint(args.network) or args.pretrained or args.weights):
            print(f"its weights are random: give --pretrained or --weights FILE for trained ones of {args.network}")


def _by_name(args: argparse.Namespace) -> tuple[nn.Module, NetworkCard]:
    """A network of that name and its card; its channels are those of the input size, where one is given."""
    from elastic_cnn.tasks.weights import Published, classes_of_file, classes_of_published, create_network, load_weights
    from elastic_cnn.zoo import NetworkCard
    from elastic_cnn.zoo.factory import SEGMENTATION_NETWORKS

    if args.pretrained and args.weights:
        raise ValueError("--pretrained and --weights both name weights: leave one of them out")
    kwargs: dict[str, Any] = {} if args.num_classes is None else {"num_classes": args.num_classes}
    if args.input_size is not None and args.input_size[0] != 3 and args.network not in SEGMENTATION_NETWORKS:
        kwargs["in_chans"] = args.input_size[0]
    published = Published("--pretrained", "give --weights FILE") if args.pretrained else None
    network = create_network(args.network, kwargs, published)
    classes: tuple[str, ...] = ()
    if args.pretrained:
        classes = classes_of_published(network)
    elif args.weights:
        print(report := load_weights(network, args.weights))
        if report.has_classifier(network):  # a new one knows no classes
            known = classes_of_file(args.weights)
            classes = known or (() if kwargs else classes_of_published(network))
    if classes and classes == classes_of_published(network):
        print(f"its {len(classes)} classes are taken for ImageNet's")
    return network, NetworkCard(args.network, kwargs, classes=classes, input=_input_of(network))


def _input_of(network: nn.Module) -> InputSpec:
    """How timm's configuration of a network says that photos are prepared."""
    from elastic_cnn.tasks.weights import configured_input
    from elastic_cnn.zoo import InputSpec

    known = configured_input(network, "input_size", "mean", "std", "crop_pct")
    return InputSpec(size=tuple(known.pop("input_size")[1:]), **known) if known else InputSpec()


def _scale(text: str) -> int | str:
    if text != AUTO and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r}: whole numbers such as 1 2, or {AUTO}")
    return text if text == AUTO else int(text)


def _spec(args: argparse.Namespace) -> ElasticSpec | Sequence[ElasticSpec]:
    """How blocks are divided; several specs, of which each block takes one, for `--scales auto`."""
    if AUTO not in args.scales:
        shares = args.shares or [1 / len(args.scales)] * len(args.scales)
        return ElasticSpec(tuple(args.scales), tuple(shares), args.downsample, args.upsample)
    from elastic_cnn.conversion import SCALES

    if args.scales != [AUTO] or args.shares:
        raise ValueError("--scales auto stands alone: scales and --shares are chosen for each block")
    if args.photos is None or not any(getattr(args, aim) is not None for aim in AIMS):
        raise ValueError("--scales auto needs --photos and an aim to choose by: --budget, --time or --tolerance")
    return [replace(spec, downsample=args.downsample, upsample=args.upsample) for spec in SCALES]


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise ValueError(f"--where {text!r} is not a regular expression: {error}") from error


def _compare(name: str, base: nn.Module, elastic: nn.Module) -> str:
    """What changed: blocks, parameters and multiply-adds before and after."""
    from elastic_cnn.measure.tables import text_table
    from elastic_cnn.nn.complexity import count
    from elastic_cnn.nn.trial import run_trial

    example, _ = run_trial(elastic)
    before, after = count(base, example), count(elastic, example)
    rows = [
        [name, f"{before.parameters / 1e6:.3f}M", f"{before.macs / 1e9:.3f}G"],
        ["elastic", f"{after.parameters / 1e6:.3f}M", f"{after.macs / 1e9:.3f}G"],
        ["ratio", f"{after.parameters / before.parameters:.4f}", f"{after.macs / before.macs:.4f}"],
    ]
    lines = [text_table(["", "parameters", "multiply-adds"], rows), str(getattr(elastic, "elastic_report", ""))]
    if match := getattr(elastic, "elastic_match", None):
        lines.append(f"depths {list(match.base_depths)} -> {list(match.depths)}; added layers are untrained")
    lines.append(f"counted at input {'x'.join(map(str, example.tensors()[0].shape[1:]))}")
    return "\n".join(lines)
