"""`elastic recalibrate CHECKPOINT --data DIR -o OUT`: estimate batch norm statistics anew, without labels."""

import argparse
from collections.abc import Iterator
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run folder (its best)")
    parser.add_argument("--data", required=True, metavar="DIR", help="the data, as for training, or a folder of photos")
    parser.add_argument("--split", default="train", help="train, val or a folder's name (default: train)")
    parser.add_argument("--images", type=int, default=1024, metavar="N", help="photos to use (default: 1024)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="photos at a time (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="which photos are drawn (default: 0)")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="the new checkpoint (.safetensors)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")
    parser.add_argument("--strict", action="store_true", help="an unreadable image is an error, not left out")


def run(args: argparse.Namespace) -> None:
    import torch

    from elastic_cnn.data.image_folder import ImageFolder
    from elastic_cnn.data.left_out import LeftOut, warn
    from elastic_cnn.surgery import recalibrate
    from elastic_cnn.zoo import load_checkpoint, save_checkpoint

    _check(args)
    network, card = load_checkpoint(args.checkpoint)
    photos = ImageFolder(args.data, args.split, card.transform(), labels="unused")
    print(photos.found_line)
    for notice in photos.notices:
        warn(notice)
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(args.seed))[: args.images]
    left_out = LeftOut(args.strict)
    try:
        norms = recalibrate(network, _batches(photos, order.tolist(), args.batch_size, left_out))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise ValueError(f"{args.checkpoint}: {error}") from error
        raise ValueError(
            f"a batch holds one photo alone, of which batch norm has no statistics: change --batch-size "
            f"{args.batch_size} or --images, or remove broken photos from {args.data}"
        ) from error
    save_checkpoint(args.out, network, card)
    used, broken = len(order) - len(left_out.paths), len(left_out.paths)
    print(
        f"{norms} batch norms recalibrated on {used} photos of {args.data} ({args.split})"
        + (f", {broken} unreadable left out" if broken else "")
        + f"; wrote {args.out}"
    )


def _check(args: argparse.Namespace) -> None:
    from elastic_cnn.files import refuse_output

    if args.images < 1 or args.batch_size < 1:
        raise ValueError(f"--images and --batch-size must be positive, got {args.images} and {args.batch_size}")
    if not args.out.endswith(".safetensors"):
        raise ValueError(f"{args.out}: the new checkpoint's name must end in .safetensors")
    refuse_output(args.out, args.overwrite)


def _batches(photos: Any, order: list[int], size: int, left_out: Any) -> Iterator[Any]:
    """Images `(N, 3, H, W)` of the photos with these numbers, without those that cannot be read."""
    from elastic_cnn.data.sampler import make_loader

    keys: Any = [[(0, index) for index in order[start : start + size]] for start in range(0, len(order), size)]
    seen = 0
    for batch in make_loader(photos, keys, seed=0):
        for path, reason in batch["unreadable"]:
            left_out.note(path, reason)
        if "image" in batch:
            seen += len(batch["image"])
            yield batch["image"]
    if not seen:
        raise ValueError(
            f"none of the {len(order)} photos of {photos.name} can be read, the last being {left_out.last}"
        )
