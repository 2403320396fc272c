"""Reading photos with masks: layouts, labels, joint augmentation, and what broken input says."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from torchvision import tv_tensors
from torchvision.datasets import SBDataset

from elastic_cnn.data.mask_transforms import IGNORE, RandomScale, pad_to, train_transform
from elastic_cnn.data.masks import (
    VOC_CLASSES,
    Labels,
    MaskSamples,
    folder_pairs,
    read_labels,
    read_mask,
    voc_pairs,
    voc_palette,
)
from elastic_cnn.data.sampler import UnreadableSample, seed_generators
from elastic_cnn.data.transforms import Geometry

LABELS = Labels(("a", "b", "c"), void=9)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def _pair(root: Path, name: str, height: int = 6, width: int = 8, split: str = "train") -> np.ndarray:
    rng = np.random.default_rng(len(name))
    mask = rng.choice([0, 1, 2, 9], (height, width)).astype(np.uint8)
    _save(root / split / f"{name}.png", rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    _save(root / f"{split}annot" / f"{name}.png", mask)
    return mask


def _samples(root: Path, split: str = "train", **kwargs) -> MaskSamples:
    return MaskSamples(folder_pairs(root, split), LABELS, mean=MEAN, std=STD, **{"size": None, **kwargs})


def test_a_folder_gives_photos_and_masks_with_void_ignored(tmp_path):
    mask = _pair(tmp_path, "one")
    sample = _samples(tmp_path)[0]
    assert sample["image"].shape == (3, 6, 8)
    assert sample["image"].dtype == torch.float32
    assert type(sample["image"]) is type(sample["target"]) is torch.Tensor
    assert sample["target"].tolist() == np.where(mask == 9, IGNORE, mask).tolist()


def test_normalisation_equals_the_formula(tmp_path):
    _pair(tmp_path, "one")
    pixels = np.asarray(Image.open(tmp_path / "train" / "one.png")) / 255
    expected = ((pixels - MEAN) / STD).transpose(2, 0, 1)
    # float32 against float64: values below 3, so a few units in the last place of 3
    np.testing.assert_allclose(_samples(tmp_path)[0]["image"].numpy(), expected, atol=2e-6)


def test_camvid_has_its_splits_and_classes(shared):
    labels = Labels(tuple("abcdefghijk"), void=11)
    sizes = {split: len(folder_pairs(shared / "data" / "camvid", split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 367, "val": 101, "test": 233}
    target = read_mask(folder_pairs(shared / "data" / "camvid", "val").masks[0], labels)
    assert target.shape == (360, 480)
    assert set(np.unique(target)) <= {*range(11), IGNORE}


def test_a_mask_and_its_photo_stay_together_under_augmentation():
    """The photo's red channel is painted as the mask is: after scaling, cropping and flipping they still agree."""
    values = np.kron(np.arange(12).reshape(3, 4) % 5, np.ones((20, 20))).astype(np.uint8)
    photo = tv_tensors.Image(torch.from_numpy(np.stack([values * 40] * 3)))
    mask = tv_tensors.Mask(torch.from_numpy(values))
    transform = train_transform((48, 56), (0.5, 2.0), MEAN)
    for seed in range(10):
        seed_generators(seed)
        image, target = transform(photo, mask)
        assert image.shape == (3, 48, 56)
        assert target.shape == (48, 56)
        inside = target != IGNORE
        agree = (image[0].float() / 40 - target.float()).abs() < 0.5
        assert inside.any()
        # bilinear edges between the painted squares differ from nearest ones; the squares themselves do not
        assert agree[inside].float().mean() > 0.8
        border = image[:, ~inside].float()
        assert torch.equal(border, torch.tensor([int(255 * m) for m in MEAN])[:, None].expand_as(border).float())


@pytest.mark.parametrize(
    ("geometry", "corners"),
    [
        (Geometry(hflip=0), {(0, 1, 2, 3)}),
        (Geometry(hflip=1), {(1, 0, 3, 2)}),
        (Geometry(hflip=0, vflip=1), {(2, 3, 0, 1)}),
        (Geometry(hflip=0.5, vflip=0.5), {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}),
    ],
)
def test_mirroring_is_as_the_recipe_says(geometry, corners):
    mask = tv_tensors.Mask(torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8))
    photo = tv_tensors.Image(mask.expand(3, 2, 2).clone())
    transform, seen = train_transform((2, 2), (1.0, 1.0), MEAN, geometry), set()
    for seed in range(40):
        seed_generators(seed)
        image, target = transform(photo, mask)
        assert torch.equal(image[0], target)
        seen.add(tuple(target.flatten().tolist()))
    assert seen == corners


def test_a_rotation_turns_both_and_leaves_void_corners():
    mask = tv_tensors.Mask(torch.arange(2, dtype=torch.uint8).repeat_interleave(20).expand(40, 40).clone())
    photo = tv_tensors.Image((200 * mask).expand(3, 40, 40).clone())
    seed_generators(3)
    image, target = train_transform((40, 40), (1.0, 1.0), MEAN, Geometry(hflip=0, rotation=90))(photo, mask)
    assert (target == IGNORE).any()
    inside = target != IGNORE
    assert ((image[1] > 100) == (target == 1))[inside].float().mean() > 0.95  # but for the edge, which is blurred
    assert not torch.equal(target, mask)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), crop=st.integers(1, 50), seed=st.integers(0, 99))
def test_any_size_is_cropped_or_padded_to_the_crop(height, width, crop, seed):
    seed_generators(seed)
    photo = tv_tensors.Image(torch.zeros(3, height, width, dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.ones(height, width, dtype=torch.uint8))
    image, target = train_transform((crop, crop), (0.5, 2.0), MEAN)(photo, mask)
    assert image.shape[1:] == target.shape == (crop, crop)
    assert set(target.unique().tolist()) <= {1, IGNORE}


def test_random_scale_spans_its_range_evenly():
    transform = RandomScale(0.5, 2.0)
    factors = []
    for seed in range(400):
        seed_generators(seed)
        size = transform.make_params([tv_tensors.Image(torch.zeros(3, 1000, 500))])["size"]
        assert size[0] == pytest.approx(2 * size[1], abs=2)
        factors.append(size[0] / 1000)
    assert min(factors) >= 0.5
    assert max(factors) <= 2.0
    # the mean of 400 even draws: 1.25 with a standard error of 0.433 / 20 = 0.022; four of them
    assert np.mean(factors) == pytest.approx(1.25, abs=0.09)


def test_testing_pads_at_the_right_and_bottom_only():
    photo = tv_tensors.Image(torch.full((3, 4, 6), 7, dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.ones(4, 6, dtype=torch.uint8))
    image, target = pad_to((photo, mask), (8, 5), MEAN)
    assert image.shape == (3, 8, 6)
    assert (image[:, :4] == 7).all()
    assert (target[:4] == 1).all()
    assert (target[4:] == IGNORE).all()


def test_a_training_sample_depends_on_its_seed_alone(tmp_path):
    _pair(tmp_path, "one", 30, 40)
    samples = _samples(tmp_path, size=(17, 19), scale=(0.5, 2.0))
    draws = []
    for seed in (1, 1, 2):
        seed_generators(seed)
        draws.append(samples[0])
    assert torch.equal(draws[0]["image"], draws[1]["image"])
    assert torch.equal(draws[0]["target"], draws[1]["target"])
    assert not torch.equal(draws[0]["image"], draws[2]["image"])


def test_files_without_partner_are_named(tmp_path):
    _pair(tmp_path, "one")
    _pair(tmp_path, "two")
    (tmp_path / "trainannot" / "two.png").unlink()
    with pytest.raises(ValueError, match=r"two\.png has no mask"):
        folder_pairs(tmp_path, "train")
    (tmp_path / "train" / "two.png").unlink()
    _save(tmp_path / "trainannot" / "three.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"three\.png has no photo"):
        folder_pairs(tmp_path, "train")


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        folder_pairs(tmp_path / "nowhere", "train")
    (tmp_path / "train").mkdir()
    (tmp_path / "trainannot").mkdir()
    with pytest.raises(ValueError, match="holds no picture"):
        folder_pairs(tmp_path, "train")


def test_a_mask_of_another_size_is_named(tmp_path):
    _pair(tmp_path, "one")
    _save(tmp_path / "trainannot" / "one.png", np.zeros((5, 8), np.uint8))
    with pytest.raises(ValueError, match=r"one\.png is 8 x 5, its photo .* 8 x 6"):
        _samples(tmp_path)[0]


def test_a_label_outside_the_classes_is_named(tmp_path):
    mask = np.zeros((4, 5), np.uint8)
    mask[2, 3] = 7
    path = _save(tmp_path / "m.png", mask)
    with pytest.raises(ValueError, match=r"m\.png has the value 7 at row 2, column 3; there are 3 classes"):
        read_mask(path, LABELS)


def test_255_never_counts(tmp_path):
    path = _save(tmp_path / "m.png", np.array([[0, 9, 255]], np.uint8))
    assert read_mask(path, LABELS).tolist() == [[0, IGNORE, IGNORE]]


def test_broken_files_are_unreadable_samples(tmp_path):
    _pair(tmp_path, "one")
    (tmp_path / "trainannot" / "one.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableSample, match=r"one\.png"):
        _samples(tmp_path)[0]


def test_photos_of_different_sizes_do_not_meet_in_a_batch(tmp_path):
    _pair(tmp_path, "one", 6, 8)
    _pair(tmp_path, "two", 7, 8)
    own = _samples(tmp_path)
    own.check_batchable(1)
    with pytest.raises(ValueError, match="different sizes cannot be tested 2 at a time"):
        own.check_batchable(2)
    _samples(tmp_path, size=(9, 9)).check_batchable(2)


def test_labels_come_from_json(tmp_path):
    with pytest.raises(ValueError, match=r"labels\.json"):
        read_labels(tmp_path)
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"classes": ["x", "y"], "void": 2, "palette": [[1, 2, 3], [4, 5, 6]]}))
    assert read_labels(tmp_path) == Labels(("x", "y"), 2, ((1, 2, 3), (4, 5, 6)))
    for bad in ('{"classes": ["x"]}', '{"classes": ["x", "y"], "void": 1}', "[", '{"names": []}'):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"labels\.json"):
            read_labels(tmp_path)


def test_a_palette_must_fit():
    with pytest.raises(ValueError, match="palette"):
        Labels(("a", "b"), palette=((0, 0, 0),))
    with pytest.raises(ValueError, match="palette"):
        Labels(("a", "b"), palette=((0, 0, 0), (0, 0, 256)))


def test_voc_palette_has_vocs_colours():
    """From the development kit's documentation: person (15) is (192, 128, 128), tvmonitor (20) (0, 64, 128)."""
    colours = voc_palette(256)
    assert colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert (colours[15], colours[20]) == ((192, 128, 128), (0, 64, 128))
    assert len(set(colours)) == 256


@pytest.fixture
def voc(tmp_path) -> Path:
    """VOC 2012 in small: train a, b; val c; SBD's train a, c, d and val e."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", "ab"), ("val", "c"), ("trainval", "abc")):
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    for name in "abcde":
        _save(base / "JPEGImages" / f"{name}.jpg", np.zeros((4, 5, 3), np.uint8))
    for name in "abc":
        _save(base / "SegmentationClass" / f"{name}.png", np.full((4, 5), 20, np.uint8))
    sbd = tmp_path / "sbd"
    (sbd / "cls").mkdir(parents=True)
    for name in "acde":
        _save(sbd / "img" / f"{name}.jpg", np.zeros((4, 5, 3), np.uint8))
        record = np.empty((1, 1), object)
        record[0, 0] = np.full((4, 5), 3, np.uint8)
        savemat(sbd / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": record[0, 0]}})
    (sbd / "train.txt").write_text("a\nc\nd\n")
    (sbd / "val.txt").write_text("e\n")
    return tmp_path


def test_voc_train_aug_is_vocs_train_and_sbd_without_vocs_val(voc):
    pairs = voc_pairs(voc, "train_aug")
    assert [path.stem for path in pairs.images] == ["a", "b", "d", "e"]
    assert Counter(path.suffix for path in pairs.masks) == {".png": 2, ".mat": 2}  # a is in both and takes VOC's mask
    labels = Labels(VOC_CLASSES)
    assert [int(read_mask(mask, labels)[0, 0]) for mask in pairs.masks] == [20, 20, 3, 3]


def test_sbd_masks_equal_torchvisions(voc):
    expected = np.asarray(SBDataset(str(voc / "sbd"), image_set="val", mode="segmentation")[0][1])
    assert np.array_equal(read_mask(voc / "sbd" / "cls" / "e.mat", Labels(VOC_CLASSES)), expected)


def test_voc_train_aug_from_png_masks(voc):
    base = voc / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("d\n")
    _save(base / "SegmentationClassAug" / "d.png", np.full((4, 5), 1, np.uint8))
    assert [path.name for path in voc_pairs(voc, "train_aug").masks] == ["d.png"]


def test_voc_val_and_what_is_missing(voc):
    assert [path.stem for path in voc_pairs(voc, "val").images] == ["c"]
    with pytest.raises(ValueError, match="no split 'test'"):
        voc_pairs(voc, "test")
    (voc / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "c.png").unlink()
    with pytest.raises(ValueError, match=r"c\.png is listed but missing"):
        voc_pairs(voc, "val")
    with pytest.raises(ValueError, match=r"there is no .*VOC2012"):
        voc_pairs(voc / "sbd", "val")
