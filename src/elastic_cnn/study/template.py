"""The study that `elastic study new` writes: for photos of one's own, to be edited."""

from pathlib import Path

from elastic_cnn.files import refuse_to_overwrite, refuse_unwritable, write_text

TEMPLATE = """\
# A study: every network is trained under every seed on the same photos, and compared. To run it, or go on with it:
#
#   elastic study {path} --data DIR        DIR/{name}/train/CLASS/PHOTO and DIR/{name}/val/CLASS/PHOTO
#   elastic study {path} --data DIR --gpu
#
# The report tells both intervals of each difference. Keys that do not exist are refused; docs/studies.md has all.
title: {name}, base against Elastic
question: Does Elastic err less than its base on these photos, after as many images and after as much time?
data:
  kind: photos # or coco, masks (docs/data.md says how their folders look), digits (generated; needs no folder)
  folder: {name} # below DIR
  # train: 5000 # at most so many photos, drawn at random; test: the same of those to test on
  # test_split: test # in place of val
recipe:
  recipe: small_images # of the package, or a file of yours
  views: 50000 # photos a run is trained on, repeats included; more for a fair trial
  overrides:
    - image_size=64 # 128 and more with a GPU
    - batch_size=32
    - precision=bf16-mixed
    - optimizer.lr=0.001
    - schedule.warmup_epochs=0.1 # a part of the run
seeds: [0, 1, 2] # three at least; a difference that seeds cannot tell from chance is called `not decided`
networks:
  base: {{network: resnext_small}} # any network that `elastic summary` or timm knows
  elastic: {{network: resnext_small_elastic}}
  time_matched: {{network: resnext_small_elastic_fast, title: time-matched Elastic}}
  equal_time: {{network: resnext_small_elastic, equal_time_to: base, title: Elastic at equal time}}
metric: top1_error
lower_is_better: true
tables: [top5_error]
comparisons:
  - {{network: elastic, against: base}}
  - {{network: time_matched, against: base}}
  - {{network: equal_time, against: base}}
"""


def write_template(path: str | Path, overwrite: bool = False) -> Path:
    """Write a study to edit, for the folder of photos that has the file's name. Returns its path.

    `ValueError` where the name is none of a YAML file, or makes no name of a study, or something is there
    (without `overwrite`).
    """
    path = Path(path)
    if path.suffix != ".yaml" or not path.stem.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"{path}: a study is named by letters, digits, _ and -, and ends in .yaml (birds.yaml)")
    refuse_unwritable(path)
    if not overwrite:
        refuse_to_overwrite(path)
    write_text(path, TEMPLATE.format(path=path.as_posix(), name=path.stem))
    return path
