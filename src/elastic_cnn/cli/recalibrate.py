"""`elastic recalibrate CHECKPOINT --data DIR -o OUT`: estimate batch norm statistics anew, without labels."""

import argparse
from dataclasses import asdict
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run folder (its best)")
    parser.add_argument("--data", required=True, metavar="DIR", help="photos; labels are not used")
    parser.add_argument("--split", default="train", help="train, val or a folder's name (default: train)")
    parser.add_argument("--images", type=int, default=1024, metavar="N", help="photos to use (default: 1024)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="photos at a time (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="which photos are drawn (default: 0)")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="the new checkpoint (.safetensors)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")


def run(args: argparse.Namespace) -> None:
    import torch
    from torch.utils.data import DataLoader, Subset

    from elastic_cnn.data.image_folder import ImageFolder, eval_transform
    from elastic_cnn.files import refuse_to_overwrite
    from elastic_cnn.surgery import recalibrate
    from elastic_cnn.zoo import load_checkpoint, save_checkpoint

    if args.images < 1 or args.batch_size < 1:
        raise ValueError(f"--images and --batch-size must be positive, got {args.images} and {args.batch_size}")
    if not args.overwrite:
        refuse_to_overwrite(args.out)
    network, card = load_checkpoint(args.checkpoint)
    photos = ImageFolder(args.data, args.split, eval_transform(**asdict(card.input)))
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(args.seed))[: args.images]
    drawn: Any = Subset(photos, order.tolist())  # type: ignore[arg-type]
    loader: Any = DataLoader(drawn, args.batch_size)
    norms = recalibrate(network, (batch["image"] for batch in loader))
    save_checkpoint(args.out, network, card)
    print(f"{norms} batch norms recalibrated on {len(order)} photos of {args.data} ({args.split}); wrote {args.out}")
