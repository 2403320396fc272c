"""Broken files through the readers: each gives its result or the one error that it promises, whatever the bytes are.

HYPOTHESIS_PROFILE=deep searches for longer, at random. What it found stands in `test_found.py`.
"""

# ruff: noqa: PT017 (either outcome is right; an error must name the file)

import io
import json
import os
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import JSON, broken
from PIL import Image
from safetensors.torch import save

from elastic_cnn.data.coco import read_annotations
from elastic_cnn.data.image_folder import train_transform
from elastic_cnn.data.masks import Labels, MaskSamples, folder_pairs, read_labels
from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.shards import ShardReader
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.policy.table import PolicyInfo, read_policy, write_part
from elastic_cnn.tasks.recipe import Recipe, load_recipe
from elastic_cnn.tasks.run_folder import read_state
from elastic_cnn.zoo.checkpoint import METADATA_KEY, NetworkCard, read_card, read_weights

settings.register_profile("ci", max_examples=40, derandomize=True, deadline=None, database=None)
settings.register_profile("deep", max_examples=4000, deadline=None)
NOT_SMALLER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
fuzz = settings(settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci")), suppress_health_check=NOT_SMALLER)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


PICTURES = (
    encoded("JPEG"), encoded("JPEG", progressive=True), encoded("JPEG", "CMYK"), encoded("PNG"), encoded("PNG", "P"),
    encoded("PNG", "I;16"), encoded("GIF", "P"), encoded("WEBP"), encoded("BMP"), encoded("TIFF"), encoded("PPM"),
)  # fmt: skip


@fuzz
@given(broken(PICTURES))
def test_pictures(content):
    try:
        picture = read_rgb(content, "x.jpg")
    except UnreadableSample as error:
        assert error.path == "x.jpg"
        return
    assert picture.mode == "RGB"


@fuzz
@given(broken(PICTURES[:4]), st.integers(0, 99))
def test_pictures_read_fast(content, seed):
    torch.manual_seed(seed)
    try:
        image = train_transform(16, (0.5,) * 3, (0.5,) * 3, loading="fast").read(content, "x.jpg")
    except UnreadableSample:
        with pytest.raises(UnreadableSample):
            read_rgb(content, "x.jpg")
        return
    assert (image.shape, image.dtype) == ((3, 16, 16), torch.uint8)


MASKS = (encoded("PNG", "L"), encoded("PNG", "P"), encoded("PNG", "1"), encoded("TIFF", "L"))
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "1.png", "height": 9, "width": 9}, {"id": 2, "file_name": "2.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "area": 50.5, "iscrowd": 0, "segmentation": [[1, 2, 3.5, 4]]},
            {"id": 2, "image_id": 2, "category_id": 7, "area": 1, "iscrowd": 1},
        ],
    }
).encode()


def check_annotations(path: Path) -> None:
    try:
        found = read_annotations(path)
    except ValueError as error:
        assert path.name in str(error)
        return
    assert found.targets.shape == (len(found), len(found.classes))


@fuzz
@given(content=broken((COCO,)))
def test_annotations(content, tmp_path):
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    check_annotations(path)


@fuzz
@given(
    part=st.sampled_from(["images", "categories", "annotations"]),
    number=st.integers(0, 1),
    key=st.sampled_from(["", "id", "file_name", "name", "image_id", "category_id", "area", "iscrowd"]),
    value=JSON,
)
def test_annotations_of_other_types(part, number, key, value, tmp_path):
    content = json.loads(COCO)
    if key:
        content[part][number][key] = value
    else:
        content[part] = value
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    check_annotations(path)


RECIPE = yaml.safe_dump(Recipe().to_dict(), sort_keys=False).encode()


@fuzz
@given(content=broken((RECIPE,)))
def test_recipes(content, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    try:
        recipe = load_recipe(path)
    except ValueError as error:
        assert "r.yaml" in str(error)
        return
    assert isinstance(recipe.to_yaml(), str)


@fuzz
@given(values=st.dictionaries(st.sampled_from([*Recipe().to_dict(), "x"]), JSON, max_size=3))
def test_recipes_of_other_types(values, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(values))
    try:
        load_recipe(path)
    except ValueError as error:
        assert "r.yaml" in str(error)


CARD = NetworkCard("resnet10t", {"num_classes": 2}, classes=("a", "b"))
WEIGHTS = save({"a": torch.zeros(3), "b": torch.ones(2, 2)}, metadata={METADATA_KEY: CARD.to_json()})


@fuzz
@given(content=broken((WEIGHTS,)))
def test_checkpoints(content, tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    for read in (read_card, read_weights):
        try:
            read(path)
        except ValueError as error:
            assert "c.safetensors" in str(error)


@fuzz
@given(key=st.sampled_from([*json.loads(CARD.to_json()), "x"]), value=JSON)
def test_cards_of_other_types(key, value):
    try:
        card = NetworkCard.from_json(json.dumps({**json.loads(CARD.to_json()), key: value}))
    except ValueError:
        return
    assert all(isinstance(name, str) for name in card.classes)


def state_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"version": 1, "task": {"w": torch.zeros(3)}, "progress": {"epoch": 1}}, buffer)
    return buffer.getvalue()


@fuzz
@given(content=broken((state_bytes(),)))
def test_states(content, tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    try:
        assert isinstance(read_state(path), dict)
    except ValueError as error:
        assert "last.ckpt" in str(error)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("table") / "policy.parquet"
    info = PolicyInfo("classification", ("a", "b"), (BlockInfo("layer1.0", (1, 2), 1, 8, 8),))
    row = {"path": "x", "label": "a", "prediction": "b", "confidence": 0.5, "correct": False, "object_sizes": None}
    write_part(path, [{**row, "id": number, "scores": [0.25]} for number in range(3)], info)
    return path.read_bytes()


@fuzz
@given(data=st.data())
def test_tables(data, table, tmp_path):
    path = tmp_path / "policy.parquet"
    path.write_bytes(data.draw(broken((table,))))
    try:
        assert read_policy(path).scores.ndim == 2
    except ValueError as error:
        assert "policy.parquet" in str(error)


@fuzz
@given(content=broken(MASKS), labels=broken((b'{"classes": ["a", "b"], "void": 9}',)))
def test_masks(content, labels, tmp_path):
    for name in ("train", "trainannot"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "train" / "1.png").write_bytes(PICTURES[3])
    (tmp_path / "trainannot" / "1.png").write_bytes(content)
    (tmp_path / "labels.json").write_bytes(labels)
    try:
        found = read_labels(tmp_path)
    except ValueError as error:
        assert "labels.json" in str(error)
        found = Labels(("a", "b"))
    samples = MaskSamples(folder_pairs(tmp_path, "train"), found, size=None, mean=(0.5,) * 3, std=(0.5,) * 3)
    try:
        sample = samples[0]
    except (UnreadableSample, ValueError) as error:
        assert "1.png" in str(error)
        return
    assert sample["target"].shape == sample["image"].shape[1:]


def shard() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in (("a.png", PICTURES[3]), ("a.cls", b"1"), ("b.jpg", PICTURES[0]), ("b.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@fuzz
@given(content=broken((shard(),)))
def test_shards(content, tmp_path):
    path = tmp_path / "train-0.tar"
    path.write_bytes(content)
    try:
        reader = ShardReader(tmp_path, ("train",))
    except ValueError as error:
        assert "train-0.tar" in str(error)
        return
    for index in range(len(reader)):
        file, target = reader[index]
        assert 0 <= target < len(reader.class_to_idx)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_rgb(file, reader.filename(index))
            except UnreadableSample as error:
                assert "train-0.tar" in str(error)
