"""A trained ResNet-50 made elastic: top-1 before, right after, after recalibration, and while fine-tuning with and
without `blend`.

    python benchmarks/gradual_conversion.py --weights resnet50.safetensors --data imagenette -o conversion.json
    python benchmarks/gradual_conversion.py --network efficientnet_lite0 --weights lite0.pth --data ... -o lite0.json
    python benchmarks/gradual_conversion.py --draw conversion.json lite0.json -o docs/images/conversion.png

network: any of `elastic_cnn.create_model`, with 1000 classes. weights: its state dict as .safetensors or .pth; one with
other names is read in order, where every shape agrees. data: `train/WNID` and `val/WNID` folders; labels are the 1000
classes of ImageNet by wnid. Such weights have seen the photos: compare the rows among themselves.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

import elastic_cnn
from elastic_cnn.data.image_folder import ImageFolder, eval_transform
from elastic_cnn.files import write_json
from elastic_cnn.tasks.blend import Blend


def load_weights(network: nn.Module, path: str) -> None:
    """Read a state dict by name, else in order. `ValueError` where shapes differ."""
    if path.endswith(".safetensors"):
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    own = network.state_dict()
    if set(state) != set(own):
        if [value.shape for value in state.values()] != [value.shape for value in own.values()]:
            raise ValueError(f"{path} holds other tensors than the network: {len(state)}, not {len(own)} in its order")
        state = dict(zip(own, state.values(), strict=True))
    network.load_state_dict(state)


def load(args: argparse.Namespace, split: str, count: int) -> tuple[Tensor, Tensor]:
    """Images (count, 3, side, side), normalised, and ImageNet labels (count,), drawn at random."""
    transform = eval_transform((args.side, args.side), (args.mean,) * 3, (args.std,) * 3) if args.mean else None
    folder = ImageFolder(args.data, split, transform or eval_transform((args.side, args.side)))
    numbers = ImageNetInfo().label_names()
    labels = torch.tensor([numbers.index(name) for name in folder.classes])
    drawn = torch.randperm(len(folder), generator=torch.Generator().manual_seed(args.seed))[:count]
    samples = list(DataLoader(Subset(folder, drawn.tolist()), 64))
    return torch.cat([s["image"] for s in samples]), labels[torch.cat([s["target"] for s in samples])]


@torch.no_grad()
def top1(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    network.eval()
    preds = torch.cat([network(batch).argmax(1) for batch in images.split(64)])
    return float((preds == labels).float().mean())


def fine_tune(
    network: nn.Module, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], args, blend_end: float | None
):
    """SGD on random batches; yields (step, blend, top-1, seconds so far)."""
    optimizer = torch.optim.SGD(network.parameters(), args.lr, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(args.seed)
    images, labels = train
    began = time.perf_counter()
    for step in range(args.steps + 1):
        blend = 1.0 if blend_end is None else Blend(0.0, blend_end).at(step / args.steps)
        elastic_cnn.set_blend(network, blend)
        if step % args.every == 0:
            yield [step, round(blend, 3), top1(network, *val), round(time.perf_counter() - began, 1)]
        if step < args.steps:
            network.train()
            batch = torch.randint(len(images), (args.batch_size,), generator=generator)
            flip = torch.rand(1, generator=generator).item() < 0.5
            x = images[batch].flip(-1) if flip else images[batch]
            loss = F.cross_entropy(network(x.contiguous(memory_format=torch.channels_last)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def draw(files: list[str], out: str) -> None:
    """The curves of result files, one panel a network: top-1 over steps of fine-tuning, with and without blend."""
    figure, panels = plt.subplots(1, len(files), figsize=(5.2 * len(files), 3.6), squeeze=False)
    for panel, file in zip(panels[0], files, strict=True):
        results = json.loads(Path(file).read_text())
        for name, colour in (("fine-tuned at once", "tab:orange"), ("fine-tuned with blend", "tab:blue")):
            steps, _, accuracies, _ = zip(*results[name], strict=True)
            panel.plot(steps, [100 * accuracy for accuracy in accuracies], "o-", color=colour, label=name)
        for name, style in (("base", "-"), ("converted", ":"), ("recalibrated", "--")):
            panel.axhline(100 * results[name], color="0.4", linestyle=style, linewidth=1, label=name)
        panel.set(title=results["settings"]["network"], xlabel="steps of fine-tuning", ylabel="top-1, %", ylim=(0, 100))
        panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50_v1")
    parser.add_argument("--weights")
    parser.add_argument("--data")
    parser.add_argument("--draw", nargs="+", metavar="JSON", help="draw the results of earlier runs, nothing else")
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("--mean", type=float, help="of each channel, where the weights want another than ImageNet's")
    parser.add_argument("--std", type=float, default=0.5, help="with --mean")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--train-images", type=int, default=3000)
    parser.add_argument("--val-images", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.draw:
        draw(args.draw, args.out)
        return
    if not args.weights or not args.data:
        parser.error("--weights and --data are needed")
    torch.manual_seed(args.seed)
    base = elastic_cnn.create_model(args.network)
    load_weights(base, args.weights)
    base = base.to(memory_format=torch.channels_last).eval()
    train = load(args, "train", args.train_images)
    val = load(args, "val", args.val_images)
    elastic = elastic_cnn.elasticize(base).eval()
    results: dict = {"settings": vars(args), "torch": torch.__version__, "threads": torch.get_num_threads()}

    def note(name: str, value) -> None:
        results[name] = value
        print(name, value, flush=True)
        write_json(Path(args.out), results)

    with torch.no_grad():
        elastic_cnn.set_blend(elastic, 0)
        error = (elastic(val[0][:8]) - base(val[0][:8])).abs().max() / base(val[0][:8]).abs().max()
        note("blend 0 relative error", float(error))
        elastic_cnn.set_blend(elastic, 1)
    note("base", top1(base, *val))
    note("converted", top1(elastic, *val))
    elastic_cnn.recalibrate(elastic, train[0][:1024].split(64))
    note("recalibrated", top1(elastic, *val))
    for name, blend_end in (("fine-tuned at once", None), ("fine-tuned with blend", 0.5)):
        network = elastic_cnn.elasticize(base)
        curve = []
        for point in fine_tune(network, train, val, args, blend_end):
            curve.append(point)
            note(name, curve)


if __name__ == "__main__":
    main()
