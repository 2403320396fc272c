"""Folders of photos and masks as data sets and tools lay them out, and what is said where they do not fit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elastic_cnn.data.mask_pairs import LAYOUTS, Layout, folder_pairs


def write(root: Path, photos: str, masks: str, names=("a", "b"), photo="{}.jpg", mask="{}.png") -> Path:
    for folder, name in ((photos, photo), (masks, mask)):
        for stem in names:
            path = root / folder / name.format(stem)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)
    return root


def stems(root: Path, split: str, **layout: str) -> list[tuple[str, str]]:
    pairs = folder_pairs(root, split, Layout(**layout))
    return [(image.name, mask.name) for image, mask in zip(pairs.images, pairs.masks, strict=True)]


PLAIN = [("a.jpg", "a.png"), ("b.jpg", "b.png")]


@pytest.mark.parametrize(("photos", "masks"), LAYOUTS)
@pytest.mark.parametrize("name", ["train", "training"])
def test_layouts_are_found(tmp_path, photos, masks, name):
    write(tmp_path, photos.format(split=name), masks.format(split=name))
    assert stems(tmp_path, "train") == PLAIN


@pytest.mark.parametrize(("split", "name"), [("val", "valid"), ("val", "validation"), ("test", "testing"), ("x", "x")])
def test_splits_by_their_other_names(tmp_path, split, name):
    assert stems(write(tmp_path, name, f"{name}annot"), split) == PLAIN


@pytest.mark.parametrize(
    ("photo", "mask", "layout"),
    [
        ("{}.jpg", "{}_mask.gif", {"mask_suffix": "_mask"}),
        ("{}.jpg", "{}-label.png", {"mask_suffix": "-label"}),
        ("{}_leftImg8bit.png", "{}_gtFine_labelTrainIds.png",
         {"photo_suffix": "_leftImg8bit", "mask_suffix": "_gtFine_labelTrainIds"}),
        ("{}_rgb.png", "{}.png", {"photo_suffix": "_rgb"}),
    ],
)  # fmt: skip
def test_suffixes_by_option_and_the_option_is_named(tmp_path, photo, mask, layout):
    write(tmp_path, "train", "trainannot", photo=photo, mask=mask)
    with pytest.raises(ValueError, match=r"the photo .* has no mask .*names must be equal but for the ending") as error:
        folder_pairs(tmp_path, "train")
    named = " ".join(f"options.{key}={value}" for key, value in layout.items())
    assert str(error.value).endswith(f"; {named} would give every photo its mask")
    found = stems(tmp_path, "train", **layout)
    assert found == [(photo.format(stem), mask.format(stem)) for stem in "ab"]


def test_other_files_beside_those_with_the_suffix_are_passed_by(tmp_path):
    """Cityscapes keeps four files a photo, in a folder a city."""
    write(tmp_path, "leftImg8bit/val/ulm", "gtFine/val/ulm", photo="{}_leftImg8bit.png", mask="{}_gtFine_labelIds.png")
    write(tmp_path, "leftImg8bit/val/bonn", "gtFine/val/bonn", photo="{}_leftImg8bit.png", mask="{}_gtFine_color.png")
    write(
        tmp_path, "leftImg8bit/val/bonn", "gtFine/val/bonn", photo="{}_leftImg8bit.png", mask="{}_gtFine_labelIds.png"
    )
    found = stems(tmp_path, "val", photo_suffix="_leftImg8bit", mask_suffix="_gtFine_labelIds")
    assert len(found) == 4
    assert all(mask.endswith("_gtFine_labelIds.png") for _, mask in found)
    with pytest.raises(ValueError, match=r"holds no picture whose name ends in _masks \(\.jpg"):
        folder_pairs(tmp_path, "val", Layout(photo_suffix="_leftImg8bit", mask_suffix="_masks"))


def test_folders_by_option(tmp_path):
    write(tmp_path, "data/photos-train", "data/truth/train")
    layout = {"photos": "data/photos-{split}", "masks": "data/truth/{split}"}
    assert stems(tmp_path, "train", **layout) == PLAIN
    with pytest.raises(ValueError, match=r"there is no folder .*photos-val: .*; .* holds data"):
        folder_pairs(tmp_path, "val", Layout(**layout))


@pytest.mark.parametrize("place", ["train/ulm", "train/ulm/deep", "train/x y"])
def test_folders_below_the_splits(tmp_path, place):
    write(tmp_path, place, place.replace("train", "trainannot", 1))
    write(tmp_path, "train/other", "trainannot/other")  # the same names in another folder are other photos
    assert stems(tmp_path, "train") == PLAIN + PLAIN


def test_what_a_mac_or_windows_leaves_behind_is_passed_by(tmp_path):
    write(tmp_path, "train", "trainannot")
    write(tmp_path, "train/__MACOSX", "train/.ipynb_checkpoints")
    for name in ("._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "train" / name).write_bytes(b"\0\5\26\7Mac OS X")
    assert stems(tmp_path, "train") == PLAIN


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ((("train", "masks"),), r"there is no folder .*trainannot: photos belong in SPLIT/"),
        ((("images", "masks"),), r"options\.photos and options\.masks say \(images/{split}, masks/{split}\); .* holds "
                                 "images, masks"),
        ((("images/train", "masks/val"),), "there is no folder .*masks/train"),
        ((("train", "trainannot"), ("images/train", "masks/train")), r"has the split 'train' twice, in .*choose with "
                                                                     r"options\.photos and options\.masks"),
        ((), "holds no folder"),
    ],
)  # fmt: skip
def test_layouts_that_do_not_fit_are_told(tmp_path, folders, message):
    for photos, masks in folders:
        write(tmp_path, photos, masks)
    with pytest.raises(ValueError, match=message):
        folder_pairs(tmp_path, "train")


def test_one_folder_read_twice_is_refused(tmp_path):
    write(tmp_path, "train", "trainannot")
    again = tmp_path / "train" / "again"
    again.symlink_to(tmp_path / "train", target_is_directory=True)
    with pytest.raises(ValueError, match=r"again is a link to a folder that holds it: remove the link"):
        folder_pairs(tmp_path, "train")
    again.unlink()
    write(tmp_path, "train/deep", "trainannot/deep")
    again.symlink_to(tmp_path / "train" / "deep", target_is_directory=True)
    with pytest.raises(ValueError, match=r"leads to a folder that is read already .*remove the link"):
        folder_pairs(tmp_path, "train")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"photos": "images/{split}"}, "belong together: give both, or none"),
        ({"photos": "images", "masks": "masks"}, "must hold {split}, else all splits were the same"),
        ({"photos": "images/{split}", "masks": "masks"}, "must hold {split}"),
    ],
)
def test_layouts_that_make_no_sense(layout, message):
    with pytest.raises(ValueError, match=message):
        Layout(**layout)
