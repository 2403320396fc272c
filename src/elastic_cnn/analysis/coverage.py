"""Which of timm's architectures `elasticize` converts: the table of docs/coverage.md.

    python -m elastic_cnn.analysis.coverage docs/coverage.md            # every architecture, small ones run
    python -m elastic_cnn.analysis.coverage OUT.md --families           # the small ones alone
    python -m elastic_cnn.analysis.coverage OUT.md --run                # every architecture is run: many hours

An interrupted call goes on where it was: rows found so far stand in OUT.rows.jsonl until the page is written.
Counts need no weights and no arithmetic (meta device). Those that are run also compute outputs and gradients at the
network's own size and at an odd one, and are exported.
"""

import argparse
import itertools
import json
import multiprocessing
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import _registry as registry
from torch import nn

from elastic_cnn.extras import require
from elastic_cnn.files import write_text
from elastic_cnn.measure.tables import markdown_table
from elastic_cnn.nn.complexity import count
from elastic_cnn.surgery import elasticize
from elastic_cnn.surgery.candidates import OF_A_FAMILY
from elastic_cnn.surgery.resolutions import input_size
from elastic_cnn.zoo import create_model

OTHER_LIBRARIES = "<!-- networks of other libraries -->"  # what follows it is `tests/peers/foreign_networks.py`'s
COLUMNS = ("family", "network", "converted / candidates", "by", "parameters", "multiply-adds", "checked", "remark")
FEWEST_CONVOLUTIONS = 5  # a transformer or perceptron has its patch embedding, not more
SMALL = (  # one small member of each convolutional family: `make coverage` runs these as well, the tests some of them
    "botnet26t_256", "caformer_s18", "coat_lite_mini", "coatnet_0_224", "convmixer_768_32", "convnext_atto",
    "cpubone_b0_bfrobust", "crossvit_9_dagger_240", "csatv2", "cspnext_s", "cspresnet50", "davit_tiny", "densenet121",
    "dla46_c", "dpn48b", "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0", "efficientnet_lite0",
    "efficientvim_m1", "efficientvit_b0", "efficientvit_m0", "ese_vovnet19b_dw", "fasternet_s", "fastvit_t8",
    "focalnet_tiny_srf", "gcvit_tiny", "ghostnet_050", "hardcorenas_b", "hgnetv2_b0", "hrnet_w18_small", "iformer_t",
    "inception_next_atto", "inception_resnet_v2", "inception_v3", "inception_v4", "lcnetv2_small",
    "legacy_seresnet18", "legacy_xception", "levit_conv_128s", "lowformer_b0", "mambaout_femto",
    "mobilenetv3_small_050", "mobilenetv5_base", "mobilevit_xxs", "mvitv2_tiny", "nasnetalarge", "nextvit_small",
    "nf_resnet26", "pnasnet5large", "pvt_v2_b0", "rdnet_tiny", "regnety_002", "repghostnet_050", "repvgg_a0",
    "repvit_m0_9", "res2net50_14w_8s", "resnest14d", "resnet18", "resnetv2_18", "rexnet_100", "selecsls42",
    "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_s", "tiny_vit_11m_224", "tresnet_m", "twins_pcpvt_small",
    "vgg11", "visformer_tiny", "vit_small_resnet26d_224", "vitamin_base_224", "volo_d1_224", "xception41p",
    "xcit_nano_12_p16_224",
)  # fmt: skip


@dataclass
class Row:
    """One architecture. `problem` says why it was not converted, or what failed after; empty where all is well."""

    family: str
    name: str
    converted: int = 0
    candidates: int = 0
    kinds: str = ""
    parameters_ratio: float = float("nan")
    macs_ratio: float = float("nan")
    checks: str = ""
    problem: str = ""


def architectures() -> Iterator[tuple[str, str]]:
    """(family, name) of timm's architectures, each by its present name alone."""
    for family in sorted(registry._module_to_models):
        for name in sorted(registry._module_to_models[family] - registry._deprecated_models.keys()):
            if timm.models.model_entrypoint(name).__module__.startswith("timm."):  # not this package's, nor others'
                yield family, name


def build_on_meta(name: str) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return create_model(name)


def is_convolutional(network: nn.Module) -> bool:
    """Whether it has more convolutions than a transformer's patch embedding."""
    return sum(isinstance(module, nn.Conv2d) for module in network.modules()) >= FEWEST_CONVOLUTIONS


def measure(family: str, name: str, run: bool, export: bool = True) -> Row | None:
    """One row of the table, None for a network that is not convolutional. export: where it is run, export it too."""
    row = Row(family, name)
    try:
        network = build_on_meta(name)
        if not is_convolutional(network):
            return None
        size = input_size(network)
        base = count(network, size)
        elastic: Any = elasticize(network)
        cost = count(elastic, size)
    except Exception as error:  # any of a thousand foreign networks may fail in any way; the table says how
        row.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        return row
    report = elastic.elastic_report
    row.converted = len(report.converted)
    row.candidates = sum(block.reason != OF_A_FAMILY for block in report.blocks)
    row.kinds = ", ".join(sorted({block.kind for block in report.blocks if block.converted}))
    row.parameters_ratio = cost.parameters / base.parameters
    row.macs_ratio = cost.macs / base.macs
    if run:
        row.checks, row.problem = _run(name, size, export)
    return row


def _run(name: str, size: tuple[int, int, int], export: bool) -> tuple[str, str]:
    """Outputs and gradients at the network's size and an odd one, and export, of the real thing: (passed, failed)."""
    passed: list[str] = []
    failed: list[str] = []
    network = create_model(name, num_classes=10)
    elastic = elasticize(network).train()
    for label, side in ((f"{size[1]}", size[1]), (f"{size[1] - 31}", size[1] - 31)):
        images = torch.randn(2, size[0], side, side)
        try:
            elastic(images).square().mean().backward()
            finite = all(p.grad is None or bool(p.grad.isfinite().all()) for p in elastic.parameters())
            (passed if finite else failed).append(label)
        except Exception as error:
            failed.append(f"{label}: {_base_too(network, images, error)}")
    if export:
        try:
            torch.export.export(elastic.eval(), (torch.randn(1, *size),))
            passed.append("export")
        except Exception as error:
            failed.append(f"export: {_base_too(network, None, error, size)}")
    return ", ".join(passed), "; ".join(failed)


def _base_too(
    network: nn.Module, images: torch.Tensor | None, error: Exception, size: tuple[int, int, int] = (3, 224, 224)
) -> str:
    """What went wrong, and whether the base network has the same trouble."""
    try:
        if images is not None:
            network.train()(images)
        else:
            torch.export.export(network.eval(), (torch.randn(1, *size),))
    except Exception:
        return "the base fails here as well"
    return f"{type(error).__name__} {' '.join(str(error).split())[:120]}"


def measure_all(names: list[tuple[str, str]], run: bool, kept: Path, processes: int = 1) -> list[Row]:
    """The rows of the convolutional ones among (family, name), run where they are small or with `run`.

    Each is kept, as a line of JSON, when it is found.
    """
    tqdm = require("tqdm", "train").tqdm
    found: dict[str, Row | None] = {}
    if kept.is_file():
        for line in kept.read_text().splitlines():
            name, row = json.loads(line)
            found[name] = None if row is None else Row(**row)
    missing = [(family, name, run or name in SMALL) for family, name in names if name not in found]
    with kept.open("a") as file, rows_of(missing, processes) as rows:
        for (_, name, _), row in zip(missing, tqdm(rows, desc="architectures", total=len(missing)), strict=True):
            found[name] = row
            file.write(json.dumps([name, None if row is None else asdict(row)]) + "\n")
            file.flush()
    return [row for _, name in names if (row := found[name]) is not None]


@contextmanager
def rows_of(missing: list[tuple[str, str, bool]], processes: int) -> Iterator[Iterator[Row | None]]:
    """What `measure` finds for each (family, name, run), in order; several processes have one thread each."""
    if processes == 1:
        yield itertools.starmap(measure, missing)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, quietly, maxtasksperchild=25) as pool:  # memory of hundreds of networks goes back
        yield pool.imap(measure_one, missing)


def quietly() -> None:
    """What a process of the pool begins with."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of foreign networks


def measure_one(what: tuple[str, str, bool]) -> Row | None:
    return measure(*what)


def to_markdown(rows: list[Row], command: str) -> str:
    """The page: a summary, the table, and what was left and why."""
    good = [row for row in rows if row.converted]
    ran = [row for row in rows if row.checks]
    clean = [row for row in ran if not row.problem]
    lines = [
        "# Which networks become elastic",
        "",
        f"Generated by `{command}` (timm {timm.__version__}, torch {torch.__version__}).",
        f"A network counts as convolutional with {FEWEST_CONVOLUTIONS} convolutions or more. "
        f"**{len(good)} of {len(rows)} architectures convert ({len(good) / max(1, len(rows)):.1%})**. "
        f"{len(ran)} were also run: outputs and gradients finite at the size and at the odd one that are named, "
        f"exported by torch.export; {len(ran) - len(clean)} of them with the remark in the last column.",
        "",
        markdown_table(COLUMNS, [_cells(row) for row in rows]),
    ]
    return "\n".join(lines) + "\n"


def kept_part(page: Path) -> str:
    """What stands on the page from the mark of other libraries' networks on; empty where there is none."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return "\n" + text[text.index(OTHER_LIBRARIES) :] if OTHER_LIBRARIES in text else ""


def _cells(row: Row) -> list[str]:
    ratios = [f"{row.parameters_ratio:.4f}", f"{row.macs_ratio:.3f}"] if row.converted else ["-", "-"]
    counts = f"{row.converted} / {row.candidates}"
    return [row.family, row.name, counts, row.kinds or "-", *ratios, row.checks or "-", row.problem.replace("|", "/")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the Markdown file to write")
    parser.add_argument("--families", action="store_true", help="one small architecture a family alone")
    parser.add_argument("--run", action="store_true", help="run every architecture, not the small ones alone")
    parser.add_argument("--processes", type=int, default=1, help="so many at a time (default: 1)")
    args = parser.parse_args()
    names = [(family, name) for family, name in architectures() if not args.families or name in SMALL]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = measure_all(names, args.run, Path(f"{args.out}.rows.jsonl"), args.processes)
    options = "".join(f" --{name}" for name in ("families", "run") if getattr(args, name))
    command = f"python -m elastic_cnn.analysis.coverage {args.out}{options}"
    write_text(args.out, to_markdown(rows, command) + kept_part(Path(args.out)))
    Path(f"{args.out}.rows.jsonl").unlink()


if __name__ == "__main__":
    main()
