"""What bfloat16 does to a trained network's answers, natively and in PyTorch, and whether Elastic suffers more.

    python benchmarks/bf16_answers.py base.safetensors elastic.safetensors --photos imagenette/val --count 400

Each checkpoint runs on the same photos in four forms: native float32, native bfloat16, PyTorch's float32 in bfloat16
(`network.bfloat16()`), and on the first `--exact` photos in float64. Printed for each: answers that bfloat16 changes
against native float32, how far its logits are off, relative to their size, and that error over PyTorch's, against
float64. The processor and its bfloat16 instructions are named.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor, nn

import elastic_cnn
from elastic_cnn.conversion.photos import collect
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.measure.machine import describe_machine, machine_line
from elastic_cnn.measure.proportions import Proportion
from elastic_cnn.measure.tables import markdown_table

Run = Callable[[Tensor], Tensor]
HEAD = [
    "checkpoint",
    "answers changed, native",
    "in PyTorch",
    "off float64, native",
    "in PyTorch",
    "native over PyTorch",
]


@torch.no_grad()
def answers(run: Run, photos: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, classes), float64."""
    parts = [run(part.to(dtype).contiguous(memory_format=torch.channels_last)) for part in photos.split(8)]
    return torch.cat(parts).double()


def forms(network: nn.Module, photos: Tensor) -> dict[str, Tensor]:
    """Logits of each form, (N, classes)."""

    def native(dtype: torch.dtype) -> Tensor:
        made = elastic_cnn.optimize_for_inference(network, example=photos[:1], dtype=dtype)
        return answers(made, photos, torch.float32)

    plain = copy.deepcopy(network).bfloat16().to(memory_format=torch.channels_last)
    return {
        "float32": native(torch.float32),
        "native": native(torch.bfloat16),
        "torch": answers(plain, photos, torch.bfloat16),
    }


def relative(own: Tensor, exact: Tensor) -> float:
    return float((own - exact).norm() / exact.norm())


def row(name: str, network: nn.Module, photos: Tensor, exact: int) -> list[str]:
    found = forms(network, photos)
    true = answers(copy.deepcopy(network).double(), photos[:exact], torch.float64)
    changed = [Proportion.of((found[f].argmax(1) != found["float32"].argmax(1)).numpy()) for f in ("native", "torch")]
    off = [relative(found[form][:exact], true) for form in ("native", "torch")]
    told = [f"{c.value:.2%} ({c.low:.2%} to {c.high:.2%})" for c in changed]
    return [name, *told, *(f"{value:.2e}" for value in off), f"{off[0] / off[1]:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--photos", required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--exact", type=int, default=32, help="photos that also run in float64")
    parser.add_argument("--seed", type=int, default=0, help="which photos are drawn")
    args = parser.parse_args()
    rows = []
    for checkpoint in args.checkpoints:
        network, card = elastic_cnn.load_checkpoint(checkpoint)
        photos = collect(args.photos, args.count, eval_transform(**asdict(card.input)), network, args.seed)
        rows.append(row(checkpoint, network.eval(), photos, args.exact))
        print(markdown_table(HEAD, rows), flush=True)
    print(machine_line(describe_machine()))


if __name__ == "__main__":
    main()
