"""A trained network converted without labels, beside what else would make it cheaper: top-1, answers, multiply-adds.

    python benchmarks/conversion.py --weights resnet50.safetensors --data imagenette --photos coco -o conversion.json \
        --rows convert@0.83 convert@0.75 convert@0.75,count=64 plain@0.75 prune_norm@0.75

network: any of `elastic_cnn.create_model`, with 1000 classes; `--checkpoint FILE` takes one with its own classes in
place of `--network` and `--weights`. data: `val/WNID` folders, tested 1000-way. photos: a
folder to calibrate on, without labels. A row is METHOD@BUDGET, BUDGET being multiply-adds over the base's (`half` in
its place: half of every block of all stages but the last), then options after commas:

    convert                  `elastic_cnn.convert`; order=0 or refit=0 leave the step out, ridge=, count=, seed=,
                             mend=0, everywhere=0, photos=FOLDER, scales=auto (each block chooses among 1 2, 1 4 and
                             1 2 4)
    plain                    the same shares, channels and weights as they stand
    prune_norm, prune_taylor structured pruning by torch-pruning (`pip install torch-pruning`; its group norm and Taylor
                             criteria, the latter with the base's own answers as labels), no training; renorm=1
                             estimates the norms' statistics anew on the photos

Rows that the result file holds are left as they are; networks are kept beside it. Base and row are tested in the same
precision, `--dtype`. """

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gradual_conversion import load_weights
from timm.data import ImageNetInfo, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

import elastic_cnn
from elastic_cnn.conversion import SCALES, Calibration, Refit
from elastic_cnn.conversion.photos import collect
from elastic_cnn.conversion.work import macs_of_modules
from elastic_cnn.data.image_folder import ImageFolder, eval_transform
from elastic_cnn.files import write_json
from elastic_cnn.measure.proportions import Difference, Proportion

Options = dict[str, str]
Make = Callable[[nn.Module, Tensor, float | None, Options], nn.Module]


def convert(base: nn.Module, photos: Tensor, budget: float | None, options: Options) -> nn.Module:
    refit = Refit(ridge=float(options["ridge"]) if "ridge" in options else None, mend=options.get("mend") != "0")
    calibration = Calibration(
        len(photos),
        order=options.get("order") != "0",
        refit=None if options.get("refit") == "0" else refit,
        seed=int(options.get("seed", 0)),
    )
    everywhere = None if options.get("everywhere") != "0" else False
    spec = SCALES if options.get("scales") == "auto" else None
    return elastic_cnn.convert(base, photos, spec, budget=budget, everywhere=everywhere, calibration=calibration)


def plain(base: nn.Module, photos: Tensor, budget: float | None, options: Options) -> nn.Module:
    return convert(base, photos, budget, {**options, "order": "0", "refit": "0"})


def prune(base: nn.Module, photos: Tensor, budget: float | None, options: Options, criterion: str) -> nn.Module:
    """Pruned by torch-pruning at one ratio for all layers, the largest that the budget needs."""
    import torch_pruning

    if budget is None:
        raise ValueError("pruning needs a budget, as in prune_norm@0.75")
    example = photos[:1]
    whole = macs_of_modules(base, example)[""]
    low, high, best = 0.0, 0.9, base
    for _ in range(7):
        ratio = (low + high) / 2
        network = copy.deepcopy(base)
        taylor = criterion == "taylor"
        importance = (
            torch_pruning.importance.GroupTaylorImportance
            if taylor
            else torch_pruning.importance.GroupMagnitudeImportance
        )()
        last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1:]
        pruner = torch_pruning.pruner.MetaPruner(network, example, importance, pruning_ratio=ratio, ignored_layers=last)
        if taylor:
            for batch in photos[:64].split(16):
                logits = network(batch)
                F.cross_entropy(logits, logits.argmax(1)).backward()
        pruner.step()
        network.zero_grad(set_to_none=True)
        if macs_of_modules(network, example)[""] <= budget * whole:
            best, high = network, ratio
        else:
            low = ratio
    if options.get("renorm") == "1":
        elastic_cnn.recalibrate(best, photos.split(64))
    return best.eval()


METHODS: dict[str, Make] = {
    "convert": convert,
    "plain": plain,
    "prune_norm": lambda *given: prune(*given, criterion="norm"),
    "prune_taylor": lambda *given: prune(*given, criterion="taylor"),
}


def parse(row: str) -> tuple[Make, float | None, Options]:
    """METHOD@BUDGET,NAME=VALUE,... `ValueError` for a method that is not there."""
    head, *pairs = row.split(",")
    method, _, budget = head.partition("@")
    if method not in METHODS:
        raise ValueError(f"{row}: no method {method!r}; choose from {', '.join(METHODS)}")
    return METHODS[method], None if budget == "half" else float(budget), dict(p.split("=", 1) for p in pairs)


class Test:
    """Labelled photos, and what the base answers on them."""

    def __init__(self, base: nn.Module, args: argparse.Namespace, transform: Any, classes: Any) -> None:
        folder = ImageFolder(args.data, "val", transform, classes)
        numbers = ImageNetInfo().label_names() if classes is None else list(classes)
        labels = torch.tensor([numbers.index(name) for name in folder.classes])
        drawn = torch.randperm(len(folder), generator=torch.Generator().manual_seed(0))[: args.val]
        self.data = Subset(folder, drawn.tolist())
        self.dtype = getattr(torch, args.dtype)
        kept = Path(args.out).with_suffix(f".base{len(drawn)}.pt")
        if not kept.exists():
            torch.save(self.logits(base), kept)
        self.base, targets = torch.load(kept)
        self.labels = labels[targets]

    @torch.no_grad()
    def logits(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        network = copy.deepcopy(network).eval().to(self.dtype).to(memory_format=torch.channels_last)
        found, targets = [], []
        for sample in DataLoader(self.data, 32):
            image = sample["image"].to(self.dtype, memory_format=torch.channels_last)
            found.append(network(image).float())
            targets.append(sample["target"])
        return torch.cat(found), torch.cat(targets)

    def row(self, network: nn.Module) -> dict[str, Any]:
        own, _ = self.logits(network)
        right, base_right = ((x.argmax(1) == self.labels).numpy() for x in (own, self.base))
        divergence = F.kl_div(own.log_softmax(1), self.base.log_softmax(1), log_target=True, reduction="batchmean")
        return {
            "top1": Proportion.of(right).to_json(),
            "difference": Difference.of(base_right, right).to_json(),
            "same": float(np.mean((own.argmax(1) == self.base.argmax(1)).numpy())),
            "divergence": float(divergence),
        }


def show(results: dict[str, Any]) -> str:
    """The table, in Markdown."""
    lines = ["| | multiply-adds | top-1 | against the base | same answers | divergence |", "|---|---|---|---|---|---|"]
    for name, row in results["rows"].items():
        d = row["difference"]
        lines.append(
            f"| {name} | {row['macs']:.3f} | {row['top1']['value']:.1%} | {100 * d['value']:+.1f} "
            f"({100 * d['low']:+.1f} to {100 * d['high']:+.1f}) | {row['same']:.1%} | {row['divergence']:.3f} |"
        )
    return "\n".join(lines)


def load(args: argparse.Namespace) -> tuple[nn.Module, Any, Any]:
    """The base, how it takes photos, and its classes (None: ImageNet's)."""
    if args.checkpoint:
        base, card = elastic_cnn.load_checkpoint(args.checkpoint)
        return base.eval(), eval_transform(**asdict(card.input)), card.classes
    base = elastic_cnn.create_model(args.network)
    load_weights(base, args.weights)
    config = resolve_data_config(model=base)
    mean, std = ((args.mean,) * 3, (args.std,) * 3) if args.mean is not None else (config["mean"], config["std"])
    return base.eval(), eval_transform((args.side, args.side), mean, std), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50_v1")
    parser.add_argument("--weights")
    parser.add_argument("--checkpoint", help="a checkpoint or run folder, in place of --network and --weights")
    parser.add_argument("--data", required=True)
    parser.add_argument("--photos", required=True, help="folder to calibrate on")
    parser.add_argument("--rows", nargs="*", default=["convert@0.83", "convert@0.75"])
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--mean", type=float, help="of each channel, where the weights want another than timm says")
    parser.add_argument("--std", type=float, default=0.5, help="with --mean")
    parser.add_argument("--val", type=int, default=10**6, help="photos to test on (default: all)")
    parser.add_argument("--count", type=int, default=256, help="photos to calibrate on (default: 256)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="to test in")
    args = parser.parse_args()
    if (args.weights is None) == (args.checkpoint is None):
        parser.error("give --weights or --checkpoint")
    rows = {row: parse(row) for row in args.rows}
    base, transform, classes = load(args)
    out = Path(args.out)
    settings = {**vars(args), "rows": None, "torch": torch.__version__, "threads": torch.get_num_threads()}
    results = json.loads(out.read_text()) if out.exists() else {"settings": settings, "rows": {}}
    test = Test(base, args, transform, classes)
    for name, (make, budget, options) in rows.items():
        if name in results["rows"]:
            continue
        count = int(options.get("count", args.count))
        photos = collect(options.get("photos", args.photos), count, transform, base, int(options.get("seed", 0)))
        kept = out.with_suffix("." + name.replace("/", "-") + ".pt")
        if not kept.exists():
            began = time.perf_counter()
            made = make(base, photos, budget, options)
            torch.save((made, time.perf_counter() - began), kept)
        network, seconds = torch.load(kept, weights_only=False)  # whole networks that this script wrote
        macs = macs_of_modules(network, photos)[""] / macs_of_modules(base, photos)[""]
        report = getattr(network, "conversion_report", None)
        blocks = {} if report is None else {block.name: [block.scales, block.shares] for block in report.blocks}
        results["rows"][name] = {"macs": macs, "seconds": seconds, **test.row(network), "blocks": blocks}
        write_json(out, results)
        print(show({"rows": {name: results["rows"][name]}}).splitlines()[-1], flush=True)
    results["base"] = {"top1": Proportion.of((test.base.argmax(1) == test.labels).numpy()).to_json()}
    write_json(out, results)
    print(f"base {results['base']['top1']['value']:.2%} of {len(test.labels)}")
    print(show(results))


if __name__ == "__main__":
    main()
