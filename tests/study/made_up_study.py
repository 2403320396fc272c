"""A study that is made up, with records whose every number is known."""

from dataclasses import replace
from pathlib import Path

from elastic_cnn.study.results import Record, write_record

TEXT = """
title: Made up
question: Is it better?
data: {kind: digits}
recipe: {recipe: digits_demo, views: 64, overrides: [schedule.warmup_epochs=0.1]}
seeds: [0, 1, 2]
networks:
  base: {network: resnext_small, title: the base}
  elastic: {network: resnext_small_elastic}
  other: {network: resnext_small}
metric: top1_error
lower_is_better: true
small_metric: error_small
large_metric: error_large
stress: [24]
comparisons:
  - {network: elastic, against: base, pooled: both}
  - {network: other, against: base, pooled: both}
remarks: [A remark of ours.]
"""
ERRORS = {"base": [0.30, 0.32, 0.34], "elastic": [0.20, 0.21, 0.25], "other": [0.31, 0.29, 0.36]}
SMALL = {"base": [0.50, 0.52, 0.54], "elastic": [0.30, 0.33, 0.33], "other": [0.50, 0.52, 0.55]}


def write_made_up(folder: Path, text: str = TEXT) -> Path:
    """FOLDER/made_up.yaml and three seeds' records of each network below FOLDER/results; returns the folder."""
    (folder / "made_up.yaml").write_text(text)
    template = Record(
        "made_up", "", "", "only", "only", 0, "key", {}, {}, 1_000_000, 2_000_000, 64, 4, 10.0, 9.0,
        "A CPU, 1 thread of 2", "torch", "abc123", "elastic study", ((1, 2.0), (4, 1.0)),
    )  # fmt: skip
    for network, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            small = SMALL[network][seed]
            values = {"top1_error": error, "error_small": small, "error_large": 0.1, "top1_error_at_24": error + 0.1}
            record = replace(template, network=network, cell=network, seed=seed, values=values)
            write_record(folder / "results" / "made_up" / f"{network}-seed{seed}.json", record)
    return folder
