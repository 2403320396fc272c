"""Recipes, annotations, labels, listings and tables that are broken: one line that names the file and the remedy."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from bad_runs import Shell
from PIL import Image

RECIPE = "network: resnet10t\nnetwork_kwargs: {stem_width: 8, channels: [8, 8, 16, 16]}\nimage_size: 32\nepochs: 1\n"
RECIPE += "batch_size: 4\n"


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


RECIPES = {
    "unknown key": ("epoch: 3\n", "unknown key 'epoch'; did you mean epochs"),
    "unknown key below": ("optimizer: {learning_rate: 0.1}\n", "unknown key 'optimizer.learning_rate'"),
    "unknown option": ("options: {mixupp: 0.2}\n", "did you mean options.mixup"),
    "duplicate": ("epochs: 4\n", "the key 'epochs' was given already in line 4"),
    "text for a number": ("seed: ten\n", "seed must be a whole number, not 'ten'"),
    "sixties": ("seed: 1:30\n", "seed must be a whole number, not '1:30'"),
    "eights": ("seed: 010\n", "seed must be a whole number, not '010'"),
    "underscores": ("seed: 1_000\n", "seed must be a whole number, not '1_000'"),
    "fraction for a count": ("val_every: 1.5\n", "val_every must be a whole number"),
    "yes for a number": ("seed: yes\n", "seed must be a whole number, not True"),
    "list for text": ("task: [a]\n", "task must be text, not ['a']"),
    "a number beyond all counts": (f"val_every: {'9' * 400}\n", "val_every must be a number of at most"),
    "a fraction beyond what networks compute with": ("optimizer: {lr: 1e300}\n", "optimizer.lr must be a number of at"),
    "a fraction beyond all numbers": (f"ema: {'9' * 400}\n", "ema must be a number of at most"),
    "a number of too many digits": (f"val_every: {'9' * 5000}\n", "is not valid YAML"),
    "a date that is none": ("seed: 2020-13-45\n", "is not valid YAML"),
    "yes for text": ("weights: yes\n", "weights must be text, not True: YAML reads it so; put the word in quotes"),
    "names that YAML reads as truth": (
        "task: segmentation\noptions: {dataset: folder, classes: [no, yes]}\n",
        "options.classes must be text, not False: YAML reads it so; put the word in quotes",
    ),
    "number for a section": ("optimizer: 3\n", "optimizer must be a mapping"),
    "unknown choice": ("precision: fp64\n", "precision must be one of fp32"),
    "unknown task": ("task: clasification\n", "classification"),
    "out of range": ("ema: 1.5\n", "ema=1.5 must lie between 0 and 1"),
    "not a number": ("clip_grad: .nan\n", "clip_grad must be a number"),
    "broken YAML": ("x: [1, 2\n", "is not valid YAML"),
    "a tab": ("\tx: 1\n", "is not valid YAML"),
    "an object": ("x: !!python/object/apply:os.mkdir [code_ran]\n", "is not valid YAML"),
    "a bomb": ("a: &a [1]\nb: *a\n", "unknown key 'a'"),
    "a key that is no text": ("? [1, 2]\n: 3\n", "key"),
    "two documents": ("---\nx: 1\n", "is not valid YAML"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name, tiny, tmp_path, shell, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, says = RECIPES[name]
    (tmp_path / "my recipe.yaml").write_text(RECIPE + text)
    command = ("train", "my recipe.yaml", "--data", tiny / "photos", "-o", tmp_path / "run")
    shell.refuses(*command, named="my recipe.yaml", says=says)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my recipe.yaml"]


REFUSED_LATER = {  # by the network, or by what trains it
    "an argument of the network": ("network_kwargs: {depths: 3}\n", 1, "resnet10t cannot be built with"),
    "a network": ("network: resnet10x\n", 1, "resnet10x"),
    "classes": ("network_kwargs: {num_classes: 7}\n", 1, "network_kwargs.num_classes=7: the data has 2 classes"),
    "weights": ("weights: gone.safetensors\n", 1, "no checkpoint at gone.safetensors"),
    "a checkpoint": ("network: null\nweights: gone.safetensors\n", 2, "gone.safetensors"),
    "init": ("weights: timm\ninit: he_fan_in\n", 2, "init=he_fan_in would overwrite weights=timm"),
    "a side": ("image_size: 32x999999\n", 1, "the input's size must be two whole numbers from 1 to 16384"),
    "parts of a batch": ("accumulate: 3\n", 1, "batch_size=4 cannot be divided evenly over 1 process(es)"),
    "a teacher": ("teacher: gone.safetensors\n", 1, "gone.safetensors"),
    "freeze": ("\nfreeze: 9\n", 2, "freeze=9: ResNet has 6 parts with its classifier: freeze fewer"),
    "an optimizer": ("optimizer: {name: sgdd}\n", 1, "unknown optimizer 'sgdd'"),
    "momentum": ("optimizer:\n  name: adamw\n  momentum: 0.5\n", 3, "optimizer.momentum=0.5 would do nothing"),
    "layer decay": ("optimizer: {options: {layer_decay: 2}}\n", 1, "layer_decay=2 must be a number in 0..1"),
    "precision": ("precision: 16-mixed\n", 1, "precision=16-mixed is for GPUs"),
    "fused": ("network: test_vit\nnetwork_kwargs: {}\nfused: always\n", 3, "fused=always, but no block can train"),
    "elastic": (
        "network: vit_tiny_patch16_224\nnetwork_kwargs: {img_size: 32, depth: 1}\nelastic: true\n",
        3,
        "no block of",
    ),
}


@pytest.mark.parametrize("name", REFUSED_LATER)
def test_values_that_only_the_network_refuses_name_the_file_too(name, tiny, tmp_path, shell, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, line, says = REFUSED_LATER[name]
    given = {row.split(":")[0] for row in text.splitlines()}
    rest = [row for row in RECIPE.splitlines() if row.split(":")[0] not in given]
    (tmp_path / "my recipe.yaml").write_text("\n".join([text.rstrip("\n"), *rest]))
    command = ("train", "my recipe.yaml", "--data", tiny / "photos", "-o", tmp_path / "run", "--accelerator", "cpu")
    shell.refuses(*command, named=f"my recipe.yaml, line {line}: ", says=says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "place", "says"),
    [
        ("network=resnet10x", "error: the command line: ", "unknown network"),
        ("optimizer.name=sgdd", "error: the command line: ", "unknown optimizer"),
        ("network_kwargs.depths=3", "tiny.yaml, line 2, and the command line: ", "cannot be built"),
    ],
)
def test_values_of_the_command_line_are_said_to_come_from_there(override, place, says, tiny, tmp_path, shell):
    command = ("train", tiny / "tiny.yaml", "--data", tiny / "photos", "-o", tmp_path / "run", override)
    shell.refuses(*command, named=place, says=says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"- 1\n- 2\n", "expected `key: value` lines"),
        (b"just words", "expected `key: value` lines"),
        (b"[" * 3000, "nested too deeply"),
    ],
)
def test_recipe_files_of_another_kind(content, says, tiny, tmp_path, shell):
    (tmp_path / "r.yaml").write_bytes(content)
    shell.refuses("train", tmp_path / "r.yaml", "--data", tiny, "-o", tmp_path / "run", named="r.yaml", says=says)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("epoch=3", "did you mean epochs"),
        ("optimizer.lr=fast", "optimizer.lr must be a number, not 'fast'"),
        ("=3", "is not of the form key=value"),
        ("epochs.more=1", "epochs is a value and has no keys below it"),
    ],
)
def test_overrides(override, says, tiny, tmp_path, shell):
    command = ("train", tiny / "tiny.yaml", "--data", tiny / "photos", "-o", tmp_path / "run", override)
    shell.refuses(*command, named=override.split("=")[0] or "=3", says=says)


COCO = {
    "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "area": 50, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 2, "area": 5000, "iscrowd": 0},
    ],
}


def edited(**changes: object) -> str:
    return json.dumps({**COCO, **changes})


def annotation(**changes: object) -> str:
    return edited(annotations=[{**COCO["annotations"][0], **changes}])


ANNOTATIONS = {
    "empty": ("", "is empty"),
    "truncated": (json.dumps(COCO)[:100], "is not valid JSON"),
    "a list": ("[]", "holds a list"),
    "nothing in it": ("{}", "has no list 'images'"),
    "images of another type": (edited(images={"id": 1}), "has no list 'images'"),
    "an image of another type": (edited(images=[3]), "image"),
    "an id of another type": (edited(images=[{"id": "one", "file_name": "1.png"}]), "id"),
    "an id twice": (edited(images=[COCO["images"][0]] * 2), "id"),
    "a key twice": (
        '{"images": [], "images": [], "categories": [], "annotations": []}',
        "the key 'images' stands twice",
    ),
    "a key twice in an object": (
        json.dumps(COCO).replace('"area": 50', '"area": 50, "area": 60'),
        "the key 'area' stands twice",
    ),
    "an unknown image": (annotation(image_id=77), "77"),
    "an unknown category": (annotation(category_id=77), "77"),
    "an area that is text": (annotation(area="big"), "area"),
    "an area that is no number": (annotation(area=float("nan")), "area"),
    "a name of half a character": (
        edited(categories=[{"id": 1, "name": "\ud83d"}, {"id": 2, "name": "dog"}]),
        "half a character",
    ),
    "an empty name": (edited(categories=[{"id": 1, "name": ""}, {"id": 2, "name": "dog"}]), "a class has no name"),
    "a negative area": (annotation(area=-1), "area -1"),
    "deep": ("[" * 100_000, "is not valid JSON"),
}


@pytest.fixture
def coco(tmp_path) -> Path:
    """Two photos a split, a recipe, and annotations that are good."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        for number in (1, 2):
            pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{number}.png")
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(COCO))
    (root / "r.yaml").write_text(RECIPE.replace("batch_size: 4", "batch_size: 2") + "task: multilabel\n")
    return root


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_coco_annotations(name, coco, tmp_path, shell):
    text, says = ANNOTATIONS[name]
    path = coco / "annotations" / "instances_train.json"
    path.write_text(text)
    shell.refuses("train", coco / "r.yaml", "--data", coco, "-o", tmp_path / "run", named=path.name, says=says)


def test_the_good_annotations_are_taken(coco, tmp_path, shell):
    assert shell.run("train", coco / "r.yaml", "--data", coco, "-o", tmp_path / "run", "--workers", "0") == 0


LABELS = {
    "broken": ('{"classes": [', "labels.json"),
    "no JSON": ('{"classes": ["a", "b"],}', "labels.json is no JSON: "),
    "a list": ("[1]", "labels.json"),
    "unknown key": ('{"classes": ["a", "b"], "viod": 3}', "viod"),
    "classes that are numbers": ('{"classes": 3}', "classes"),
    "a class of half a character": ('{"classes": ["a", "\\ud83d"]}', "half a character"),
    "a class twice": ('{"classes": ["a", "a"]}', "different names"),
    "a void in the classes": ('{"classes": ["a", "b"], "void": 1}', "void=1"),
    "colours of two numbers": ('{"classes": ["a", "b"], "palette": [[1, 2], [3, 4]]}', "palette"),
    "a key twice": ('{"classes": ["a", "b"], "classes": ["a", "c"]}', "the key 'classes' stands twice"),
}


@pytest.fixture
def masks(tmp_path) -> Path:
    """Photos with masks, two a split."""
    root = tmp_path / "masks"
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (40, 40), (9 * number, 99, 9)).save(root / split / f"{number}.png")
            Image.new("L", (40, 40), number % 2).save(root / f"{split}annot" / f"{number}.png")
    (root / "labels.json").write_text('{"classes": ["a", "b"]}')
    text = (
        "task: segmentation\nnetwork: deeplabv3\nimage_size: 32\nepochs: 1\nbatch_size: 2\noptions: {dataset: folder}\n"
    )
    (root / "r.yaml").write_text(
        text + "network_kwargs: {backbone: resnext_small, channels: [8, 8, 8, 8], layers: [1, 1, 1, 3]}\n"
    )
    return root


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_masks(name, masks, tmp_path, shell):
    text, says = LABELS[name]
    (masks / "labels.json").write_text(text)
    shell.refuses("train", masks / "r.yaml", "--data", masks, "-o", tmp_path / "run", named="labels.json", says=says)


def test_masks_that_do_not_fit(masks, tmp_path, shell):
    command = ("train", masks / "r.yaml", "--data", masks, "-o", tmp_path / "run", "--workers", "0", "--strict")
    mask = masks / "trainannot" / "1.png"
    Image.new("L", (40, 40), 7).save(mask)
    shell.refuses(*command, named=str(mask), says="7")
    Image.new("L", (30, 40), 1).save(mask)
    shell.refuses(*command, "--overwrite", named=str(mask))
    Image.new("RGB", (40, 40), "red").save(mask)
    shell.refuses(*command, "--overwrite", named=str(mask), says="options.palette")
    mask.write_bytes(b"nothing")
    shell.refuses(*command, "--overwrite", named=str(mask))
    mask.unlink()
    shell.refuses(*command, "--overwrite", named="1.png has no mask")


def parquet(path: Path, table: pyarrow.Table, metadata: dict | None = None) -> None:
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)


def write_table(kind: str, path: Path) -> None:
    rows = pyarrow.table({"id": [1, 2], "path": ["a", "b"]})
    about = {"version": 1, "task": "classification", "classes": ["a"], "blocks": []}
    block = {"name": "layer1.0", "scales": [1, 2], "stage": 1, "height": 8, "width": 8}
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        parquet(path, rows)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "text":
        path.write_text("id,path\n1,a\n")
    elif kind == "from elsewhere":
        parquet(path, rows, {"pandas": "{}"})
    elif kind == "broken description":
        parquet(path, rows, {"elastic_cnn": "{"})
    elif kind == "description of wrong types":
        parquet(path, rows, {"elastic_cnn": json.dumps({**about, "blocks": [3], "classes": 4})})
    elif kind == "newer version":
        parquet(path, rows, {"elastic_cnn": json.dumps({**about, "version": 9})})
    elif kind == "without blocks":
        parquet(path, rows, {"elastic_cnn": json.dumps(about)})
    elif kind == "without columns":
        parquet(path, rows, {"elastic_cnn": json.dumps({**about, "blocks": [block]})})


TABLES = (
    "empty", "truncated", "text", "from elsewhere", "broken description", "description of wrong types", "newer version",
    "without blocks", "without columns",
)  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_parquet_from_elsewhere(kind, tmp_path, shell):
    path = tmp_path / "policy.parquet"
    write_table(kind, path)
    shell.refuses("figures", path, "-o", tmp_path / "figures", named=str(path))
    shell.refuses("explore", path, "-o", tmp_path / "explorer", named=str(path))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["policy.parquet"]


@pytest.mark.parametrize("name", ["figures", "explore"])
def test_tables_that_are_not_there(name, tmp_path, shell):
    shell.refuses(name, tmp_path, "-o", tmp_path / "out", named=str(tmp_path), says="elastic policy")
