"""The model card (README.md) of a shared network: a template, filled from the network and its `NetworkCard`."""

import json
import re
from collections.abc import Mapping
from string import Template
from typing import Any

from torch import nn

from elastic_cnn.measure.tables import markdown_table
from elastic_cnn.nn.complexity import count
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.zoo.checkpoint import NetworkCard

MARKUP = re.compile(
    r"[\\`*\[\]|~#!<>&]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/|(?<=www)\.", re.IGNORECASE
)  # of Markdown and HTML
TEMPLATE = Template("""---
library_name: $library
pipeline_tag: $pipeline
license: $license
tags:
- $pipeline
- elastic-cnn
$library_tag---
# $title

$description

## Facts

$facts

## Results

$results

## How it was made

$recipe

## Use

$use

## Citation

```bibtex
@inproceedings{wang2019elastic,
  title     = {{ELASTIC}: Improving {CNN}s with Dynamic Scaling Policies},
  author    = {Wang, Huiyu and Kembhavi, Aniruddha and Farhadi, Ali and Yuille, Alan and Rastegari, Mohammad},
  booktitle = {CVPR},
  year      = {2019}
}
```
""")

WITH_TIMM = Template("""```python
import elastic_cnn  # registers the network
import timm

network = timm.create_model($source, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
```""")

WITH_CHECKPOINT = """```python
import elastic_cnn

network, card = elastic_cnn.load_checkpoint("model.safetensors")  # the downloaded file
```"""


def model_card(network: nn.Module, card: NetworkCard, title: str, source: str | None, license: str) -> str:
    """The text of README.md, Markdown with the Hub's YAML header.

    title: its heading. source: what `timm.create_model` loads it by, None where timm cannot. license: an identifier of
    the Hub's, such as `apache-2.0`. What comes from others (title, licence, class names, results) is escaped.
    """
    elastic = _converted_blocks(network)
    kind = (
        "has convolutions that work at several resolutions at once" if elastic else "is the base of an elastic network"
    )
    description = f"`{card.network}` for {card.task}. It {kind} (Elastic, CVPR 2019, arXiv 1812.05262)."
    return TEMPLATE.substitute(
        library="timm" if source else "elastic-cnn",
        library_tag="- timm\n" if source else "",
        pipeline=task_spec(card.task).pipeline,
        license=_yaml(license),
        title=_plain(title),
        description=description,
        facts=_table(("", ""), _facts(network, card, elastic)),
        results=_results(card.info),
        recipe=_recipe(card.info),
        use=WITH_TIMM.substitute(source=json.dumps(source)) if source else WITH_CHECKPOINT,
    )


def _converted_blocks(network: nn.Module) -> int:
    report: Any = getattr(network, "elastic_report", None)
    return 0 if report is None else len(report.converted)


def _facts(network: nn.Module, card: NetworkCard, elastic: int) -> dict[str, str]:
    height, width = card.input.size
    costs = count(network, (len(card.input.mean), height, width))
    shown = ", ".join(card.classes[:10]) + (", ..." if len(card.classes) > 10 else "")
    normalised = f"mean {list(card.input.mean)}, standard deviation {list(card.input.std)}"
    facts = {
        "Parameters": f"{costs.parameters / 1e6:.2f} M",
        "Multiply-adds": f"{costs.macs / 1e9:.3f} G at {height} x {width}",
        "Elastic blocks": str(elastic),
        "Input": f"{height} x {width}, {card.input.interpolation}, {normalised}",
    }
    return {**facts, "Classes": f"{len(card.classes)}: {shown}"} if card.classes else facts


def _table(header: tuple[str, str], rows: Mapping[str, str]) -> str:
    return markdown_table(header, [[_plain(cell) for cell in row] for row in rows.items()])


def _plain(text: str) -> str:
    """Text that shows as it is written, on one line, whatever it holds: no markup, no HTML, no links, no new cell."""
    return MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def _yaml(text: str) -> str:
    """A value of the header: as it is where that can only be a text, else in quotes, which JSON's are to YAML."""
    return text if re.fullmatch(r"[a-z][a-z0-9.]*(-[a-z0-9.]+)+|mit|other", text) else json.dumps(text)


def _results(info: Mapping[str, Any]) -> str:
    """A table of the numbers in `info["results"]`, as they were measured: fractions stay fractions."""
    numbers = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in (info.get("results") or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if not numbers:
        return "None recorded."
    epoch = f"\n\nMeasured on the validation split after epoch {_plain(str(info['epoch']))}." if "epoch" in info else ""
    return _table(("measure", "value"), numbers) + epoch


def _recipe(info: Mapping[str, Any]) -> str:
    recipe = info.get("recipe")
    if not recipe:
        return "No recipe recorded."
    return "Trained with elastic-cnn by this recipe:\n\n```json\n" + json.dumps(recipe, indent=2, default=str) + "\n```"
