"""Pictures in memory: what a view cuts out, and what tasks get."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from elastic_cnn.data.masks import Labels
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.study.grid import Data
from elastic_cnn.study.job import make_views
from elastic_cnn.study.kinds import StoredClassification, StoredSegmentation, load_stores
from elastic_cnn.study.measures import images_of
from elastic_cnn.study.stores import Photos, Store, Views, box_view, cut_out, random_crop, random_scale
from elastic_cnn.tasks.classification import Options
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.segmentation import Options as MaskOptions
from elastic_cnn.zoo.checkpoint import InputSpec

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)


def store(count=3, side=8, masks=False, labels=None):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    drawn = torch.randint(0, 2, (count, side, side), dtype=torch.uint8, generator=generator) if masks else None
    return Store("drawn", images, {"target": torch.arange(count)}, ("a", "b", "c"), masks=drawn, labels=labels)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_a_box_of_whole_pixels_is_a_slice(top, left, flip):
    picture = torch.rand(1, 3, 8, 8)
    view = box_view(top / 8, left / 8, 0.5, 0.5, flip)
    expected = picture[..., top : top + 4, left : left + 4]
    expected = expected.flip(-1) if flip else expected
    torch.testing.assert_close(cut_out(picture, view[None], 4), expected, atol=1e-5, rtol=0)  # float32 positions


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(0.05, 1))
def test_random_crops_lie_in_the_picture_and_have_their_area(seed, min_scale):
    torch.manual_seed(seed)
    view = random_crop(min_scale)()
    half = view[[0, 1], [0, 1]].abs()
    assert bool((view[:, 2].abs() + half <= 1 + 1e-5).all())
    assert min_scale * (0.75 - 1e-4) <= float(half.prod()) <= 1 + 1e-5  # a side that would reach over is cut


def test_views_depend_on_the_seed_alone_and_repeat_the_pictures():
    views = Views(store(), random_crop(0.3), 7)
    assert len(views) == 7
    torch.manual_seed(5)
    first = views[1]
    torch.manual_seed(5)
    again = views[4]
    assert torch.equal(first["image"], again["image"])
    assert first["picture"] == again["picture"] == 1
    assert int(again["target"]) == 1


@pytest.mark.parametrize("options", [{"split": 0.2}, {"skew": "weights"}, {"skew": "sampling"}])
def test_what_a_study_would_not_heed_is_refused(options):
    recipe = Recipe(options=options)
    with pytest.raises(ValueError, match=rf"options\.{next(iter(options))}=.* divided and drawn as it is"):
        make_views(Data("digits"), recipe, store(), None)


def test_a_batch_is_the_normalised_pictures():
    task = StoredClassification(nn.Identity(), 3, Options())
    task.equip(store(), store(), 8, MEAN, STD)
    batch = torch.utils.data.default_collate([Views(store())[index] for index in (2, 0)])
    expected = (store().images[[2, 0]].double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(
        3, 1, 1
    )
    for training in (True, False):
        torch.testing.assert_close(task.fill(batch, training)["image"].double(), expected, atol=1e-5, rtol=1e-5)


def test_masks_are_cut_like_their_photos_and_void_beyond():
    labels = Labels(("a", "b"))
    data = store(masks=True, labels=labels)
    task = StoredSegmentation(nn.Identity(), labels, MaskOptions())
    task.equip(data, data, 8, MEAN, STD)
    whole = torch.utils.data.default_collate([Views(data)[0]])
    assert torch.equal(task.fill(whole, False)["target"][0], data.masks[0].long())
    shifted = {**whole, "image": box_view(0, 0.5, 1, 1, False)[None, None]}  # half of it beyond the right edge
    target = task.fill(shifted, True)["target"][0]
    assert torch.equal(target[:, :4], data.masks[0][:, 4:].long())
    assert bool((target[:, 4:] == 255).all())
    torch.manual_seed(0)
    assert task.fill({**whole, "image": random_scale((8, 8), 8, (0.5, 0.5))()[None, None]}, True)["target"].shape == (
        1,
        8,
        8,
    )


def test_photos_are_read_once_and_drawn_under_the_seed(tmp_path):
    for split in ("train", "val"):
        for number in range(6):
            folder = tmp_path / "photos" / split / ("ant" if number % 2 else "bee")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    data = Data("photos", "photos", train=4)
    train, val = load_stores(data, tmp_path, 8, Options())
    assert train.images.shape == (4, 3, 10, 10)
    assert val.images.shape == (6, 3, 8, 8)
    again, _ = load_stores(data, tmp_path, 8, Options())
    assert torch.equal(train.images, again.images)
    assert train.classes == ("ant", "bee")
    shades = train.images[:, 0, 0, 0] // 40
    assert torch.equal((shades % 2 == 0).long(), train.targets["target"])  # even numbers are bees, class 1


def test_real_data_of_each_kind(shared):
    from elastic_cnn.tasks.multilabel import Options as CocoOptions

    train, val = load_stores(
        Data("coco", "coco_person", train=2, test=3),
        shared / "data",
        16,
        CocoOptions(exclude=("person",), zero_area="keep"),
    )
    assert train.images.shape == (2, 3, 20, 20)
    assert val.targets["size_targets"].shape == (3, 3, 79)
    classes = tuple("abcdefghijk")
    train, _ = load_stores(
        Data("masks", "camvid", train=2, test=1, store=(24, 32)),
        shared / "data",
        16,
        MaskOptions(classes=classes, void=11),
    )
    assert train.images.shape == (2, 3, 24, 32)
    assert set(train.masks.unique().tolist()) <= {*range(11), 255}


def test_missing_photos_are_named(tmp_path):
    with pytest.raises(ValueError, match="photos"):
        load_stores(Data("photos", "photos"), tmp_path, 8, Options())


def test_whole_pictures_are_what_the_network_is_tested_on():
    """A conversion within a run sees the pictures as its tests do."""
    spec = InputSpec(size=(24, 24), crop_pct=1.0, mean=MEAN)
    photos = Photos(store(side=24), eval_transform(**asdict(spec)))
    seen = torch.stack([photos[i]["image"] for i in range(len(photos))])
    torch.testing.assert_close(seen, images_of(store(side=24), spec, torch.device("cpu"))(0, 3))
