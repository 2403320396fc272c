"""Photos with one class each, from folders, tar files, shards and Hugging Face data sets; and every odd file."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from elastic_cnn.data.image_folder import ImageFolder, eval_transform, train_transform
from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.sampler import UnreadableSample

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "n10": (10, 10, 250), "n2": (200, 200, 10)}


def to_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture))


def write_photos(root: Path, classes: tuple[str, ...], count: int = 2) -> None:
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 6), COLOURS[name]).save(root / name / f"{number}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_photos(tmp_path / "train", ("n10", "n2", "red"))
    write_photos(tmp_path / "validation", ("n2", "red"), 3)
    return tmp_path


def colours(samples: ImageFolder) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (samples.classes[sample["target"]], tuple(sample["image"][0, 0].tolist()))
        for sample in (samples[index] for index in range(len(samples)))
    ]


def assert_right_classes(samples: ImageFolder) -> None:
    for name, colour in colours(samples):
        assert colour == COLOURS[name]


def test_classes_are_those_of_the_training_folder(folder):
    train = ImageFolder(folder, "train", to_tensor)
    assert train.classes == ("n2", "n10", "red")  # natural order
    assert len(train) == 6
    assert_right_classes(train)
    val = ImageFolder(folder, "val", to_tensor, train.classes)
    assert (val.classes, val.found, len(val)) == (train.classes, ("n2", "red"), 6)
    assert_right_classes(val)
    assert Path(val.path(0)).is_file()


def test_tar_files(folder, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    for split in ("train", "validation"):
        with tarfile.open(packed / f"{split}.tar", "w") as archive:
            archive.add(folder / split, arcname=".")
    train = ImageFolder(packed, "train", to_tensor)
    assert train.classes == ("n2", "n10", "red")
    assert_right_classes(train)
    assert len(ImageFolder(packed, "val", to_tensor, train.classes)) == 6


def write_shard(path: Path, samples: list[tuple[str, str, str]]) -> None:
    """Samples (key, colour, label)."""
    with tarfile.open(path, "w") as archive:
        for key, colour, label in samples:
            buffer = io.BytesIO()
            Image.new("RGB", (8, 6), COLOURS[colour]).save(buffer, "PNG")
            for name, content in ((f"{key}.png", buffer.getvalue()), (f"{key}.cls", label.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_webdataset_shards_with_names_and_with_numbers(tmp_path):
    (tmp_path / "named").mkdir()
    write_shard(tmp_path / "named" / "train-0000.tar", [("a", "red", "red"), ("b", "green", "green")])
    write_shard(tmp_path / "named" / "train-0001.tar", [("a", "red", "red")])
    samples = ImageFolder(f"wds/{tmp_path / 'named'}", "train", to_tensor)
    assert (samples.classes, len(samples)) == (("green", "red"), 3)
    assert_right_classes(samples)
    assert samples.path(2).endswith("train-0001.tar:a.png")
    (tmp_path / "numbered").mkdir()
    write_shard(tmp_path / "numbered" / "val-0.tar", [("x/1", "red", "1"), ("x/2", "green", "0")])
    assert ImageFolder(f"wds/{tmp_path / 'numbered'}", "val", to_tensor).classes == ("0", "1")
    (tmp_path / "numbered" / "classes.txt").write_text("green\nred\n")
    assert_right_classes(ImageFolder(f"wds/{tmp_path / 'numbered'}", "val", to_tensor))


def test_broken_shards_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no shards"):
        ImageFolder(f"wds/{tmp_path}", "train", to_tensor)
    (tmp_path / "train-0.tar").write_bytes(b"no tar")
    with pytest.raises(ValueError, match=r"train-0\.tar is not a whole"):
        ImageFolder(f"wds/{tmp_path}", "train", to_tensor)
    write_shard(tmp_path / "train-0.tar", [("a", "red", "7")])
    (tmp_path / "classes.txt").write_text("only\n")
    with pytest.raises(ValueError, match="label '7' is none of the 1 classes"):
        ImageFolder(f"wds/{tmp_path}", "train", to_tensor)
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(ValueError, match=r"the sample a has no label \(\.cls\)"):
        ImageFolder(f"wds/{tmp_path}", "train", to_tensor)


def test_hugging_face_data_sets(folder, monkeypatch, tmp_path):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    train = ImageFolder(f"hfds/{folder}", "train", to_tensor)
    assert train.classes == ("n10", "n2", "red")  # as the data set numbers them
    assert_right_classes(train)
    assert_right_classes(ImageFolder(f"hfds/{folder}", "val", to_tensor, train.classes))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"img": "image", "label": [0, 1]}, r"has no column 'image' of pictures \(it has 'img', 'label'\)"),
        ({"image": "image", "labels": [0, 1]}, r"has no column 'label' of classes \(it has 'image', 'labels'\)"),
        ({"image": "image", "label": ["cat", "dog"]}, "the column 'label' holds no class numbers: .*class_encode"),
        ({"image": "image", "label": [-1, 1]}, r"1 of 2 photos are of no class \(label -1\): remove them"),
        ({"image": "image", "label": [0, 2]}, ""),
    ],
)
def test_hugging_face_data_sets_of_other_columns(columns, says, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pictures = [Image.new("RGB", (8, 6), name) for name in ("red", "green")]
    cells = {name: pictures if value == "image" else value for name, value in columns.items()}
    found = datasets.DatasetDict({"train": datasets.Dataset.from_dict(cells)})
    found.save_to_disk(str(tmp_path / "saved"))
    if not says:
        assert ImageFolder(f"hfds/{tmp_path / 'saved'}", "train", to_tensor).classes == ("0", "1", "2")
        return
    with pytest.raises(ValueError, match=says):
        ImageFolder(f"hfds/{tmp_path / 'saved'}", "train", to_tensor)


def test_missing_empty_and_foreign_folders(folder, tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        ImageFolder(tmp_path / "nothing", "train", to_tensor)
    with pytest.raises(ValueError, match=r"no folder 'test' or 'testing'.*it holds 'train', 'validation'"):
        ImageFolder(folder, "test", to_tensor)
    (tmp_path / "empty" / "train" / "class").mkdir(parents=True)
    with pytest.raises(ValueError, match="train holds no images"):
        ImageFolder(tmp_path / "empty", "train", to_tensor)
    with pytest.raises(ValueError, match=r"validation holds 'red', which the 2 classes to choose from lack"):
        ImageFolder(folder, "val", to_tensor, ("n2", "n10"))
    with pytest.raises(ValueError, match="is not a folder"):
        ImageFolder(next((folder / "train" / "red").iterdir()), "train", to_tensor)


def test_odd_file_names_and_linked_folders(folder):
    odd = [b"with space.png", b"line\nbreak.png", b"latin \xe9.png", "日本.png".encode()]
    plain = (folder / "train" / "red" / "0.png").read_bytes()
    for name in odd:
        with open(os.path.join(os.fsencode(folder), b"train/red", name), "wb") as file:
            file.write(plain)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "linked.png").write_bytes(plain)
    (folder / "train" / "red" / "link").symlink_to(folder / "elsewhere")
    samples = ImageFolder(folder, "train", to_tensor)
    assert len(samples) == 6 + len(odd) + 1
    paths = [samples.path(index) for index in range(len(samples))]
    assert any(path.endswith("latin \\xe9.png") for path in paths)
    assert all(path.encode() for path in paths)
    assert all(samples[index]["image"].shape == (6, 8, 3) for index in range(len(samples)))


def test_folders_that_loop_by_links_are_refused(folder):
    (folder / "train" / "red" / "loop").symlink_to(folder / "train")
    with pytest.raises(ValueError, match=r"red/loop is a link to a folder that holds it"):
        ImageFolder(folder, "train", to_tensor)


def test_a_class_without_a_name_is_refused(folder):
    (folder / "train" / "n10").rename(folder / "train" / " ")
    with pytest.raises(ValueError, match=r"a class has no name \(' ', number 0 from 0 on\)"):
        ImageFolder(folder, "train", to_tensor)


def test_class_names_that_are_not_utf8_are_refused(folder):
    os.rename(folder / "train" / "red", os.path.join(os.fsencode(folder), b"train/r\xe9d"))
    with pytest.raises(ValueError, match=r"class folder r\\xe9d is not named in UTF-8"):
        ImageFolder(folder, "train", to_tensor)


def test_transforms_give_the_papers_input():
    picture = Image.new("RGB", (400, 300), (255, 0, 127))
    images = [
        train_transform(32, (0.5,) * 3, (0.25,) * 3)(picture),
        eval_transform((32, 48), (0.5,) * 3, (0.25,) * 3)(picture),
    ]
    assert [tuple(image.shape) for image in images] == [(3, 32, 32), (3, 32, 48)]
    for image in images:  # (value / 255 - mean) / std; a plain picture stays plain under crop, flip and resize
        expected = torch.tensor([2.0, -2.0, (127 / 255 - 0.5) / 0.25])[:, None, None].expand_as(image)
        torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)


def test_test_crop_is_the_centre_and_squash_keeps_everything():
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[16:240, 16:240] = 255
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    crop = eval_transform((224, 224), **plain)(Image.fromarray(pixels))
    assert crop.min() == 1  # resize 256 keeps the size, the crop of 224 takes the white part alone
    wide = Image.fromarray(np.repeat(pixels, 2, axis=1))
    squashed = eval_transform((64, 64), **plain, crop_mode="squash")(wide)
    assert squashed.shape == (3, 64, 64)
    assert squashed[:, :3].max() < 0.1
    assert squashed[:, :, :3].max() < 0.1


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_all_modes_become_rgb():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    grey = np.asarray(read_rgb(saved(Image.fromarray(ramp), "PNG")))
    assert grey.shape == (8, 8, 3)
    assert np.abs(grey[..., 0].astype(int) - ramp // 257).max() <= 1  # 16 bits keep their range
    assert read_rgb(saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG")).getpixel((1, 1))[0] > 200
    palette = Image.new("RGBA", (4, 4), (9, 200, 30, 255)).convert("P")
    palette.info["transparency"] = bytes(range(256))
    assert read_rgb(saved(palette, "PNG", transparency=bytes(256))).mode == "RGB"
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        assert read_rgb(saved(Image.new(mode, (3, 2)), "PNG")).mode == "RGB"
    assert read_rgb(saved(Image.new("F", (3, 2), 0.5), "TIFF")).getpixel((0, 0)) == (127, 127, 127)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    animated = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_rgb(animated).getpixel((0, 0)) == (255, 0, 0)
    assert read_rgb(saved(Image.new("RGB", (1, 1)), "PNG")).size == (1, 1)


def test_exif_rotation_is_honoured():
    image = Image.new("RGB", (40, 20), "white")
    image.paste("black", (0, 0, 20, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = read_rgb(saved(image, "JPEG", exif=exif))
    assert turned.size == (20, 40)
    assert turned.getpixel((10, 2))[0] < 50  # the left half is the upper one now
    assert turned.getpixel((10, 38))[0] > 200


@pytest.mark.parametrize("what", ["truncated", "empty", "text", "bomb", "missing"])
def test_unreadable_files_are_named(what, tmp_path, monkeypatch):
    path = tmp_path / "bad photo.jpg"
    whole = saved(Image.effect_noise((200, 200), 90), "JPEG")
    contents = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"<html>", "bomb": whole}
    if what != "missing":
        path.write_bytes(contents[what])
    if what == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(UnreadableSample, match=r"bad photo\.jpg cannot be read") as caught:
        read_rgb(path)
    if what == "bomb":
        assert "40000 pixels" in str(caught.value)


def test_a_broken_file_in_the_folder_is_an_unreadable_sample(folder):
    (folder / "train" / "red" / "0.png").write_bytes(b"broken")
    samples = ImageFolder(folder, "train", to_tensor)
    index = next(i for i in range(len(samples)) if samples.path(i).endswith("red/0.png"))
    with pytest.raises(UnreadableSample, match=r"red/0\.png"):
        samples[index]
