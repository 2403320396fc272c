"""A tiny study, its command line, and what lies in a folder: for tests of bad input to `elastic study`."""

from pathlib import Path

STUDY = """\
title: tiny
data: {kind: digits, train: 32, test: 24, sizes: [8, 16]}
recipe:
  recipe: digits_demo
  views: 32
  overrides:
    - schedule.warmup_epochs=0.1
    - batch_size=16
    - image_size=32
    - network_kwargs.channels=[8, 8, 16, 16]
    - network_kwargs.cardinality=2
    - network_kwargs.stem_width=8
seeds: [0]
networks:
  base: {network: resnext_small}
  other: {network: resnext_small_elastic, equal_time_to: base}
metric: top1_error
lower_is_better: true
comparisons:
  - {network: other, against: base}
"""
PHOTOS = """\
title: tiny
data: {kind: photos, folder: pictures}
recipe:
  recipe: small_images
  views: 8
  overrides: [schedule.warmup_epochs=0.1, batch_size=4, image_size=32]
seeds: [0]
networks:
  base: {network: resnet10t, kwargs: {stem_width: 8, channels: [8, 8, 16, 16]}}
metric: top1_error
lower_is_better: true
"""
ONE = STUDY.replace("  other: {network: resnext_small_elastic, equal_time_to: base}\n", "").partition("comparisons")[0]


def command(folder: Path, *words: object) -> list[object]:
    places = ["--results", folder / "results", "--work", folder / "work", "--data", folder / "data"]
    return ["study", *words, *places, "--accelerator", "cpu", "--no-progress"]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
