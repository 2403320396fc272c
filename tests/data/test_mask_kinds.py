"""Masks as data sets and tools store them: what each kind of file gives, and what is said of those that are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elastic_cnn.data.labels import Labels, read_labels
from elastic_cnn.data.mask_files import classes_not_seen, read_mask
from elastic_cnn.data.mask_pairs import Pairs
from elastic_cnn.data.mask_transforms import IGNORE
from elastic_cnn.data.masks import MaskSamples

TWO = ("ground", "disc")
RED = ((0, 0, 0), (128, 0, 0))
INDEX = np.array([[0, 0, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0]], np.uint8)
COLOURS = np.array([*RED, (224, 224, 192)], np.uint8)


def palette_picture(index: np.ndarray, colours) -> Image.Image:
    picture = Image.fromarray(index).convert("P")
    picture.putpalette(np.asarray(colours, np.uint8).ravel().tolist())
    picture.putdata(index.ravel().tolist())
    return picture


# kind -> (labels, picture, format, what is read of INDEX)
READ = {
    "grey": (Labels(TWO), Image.fromarray(INDEX), "PNG"),
    "one bit": (Labels(TWO), Image.fromarray(INDEX * 255).convert("1"), "PNG"),
    "a palette's numbers": (Labels(TWO), palette_picture(INDEX, RED), "PNG"),
    "numbers and colours agree": (Labels(TWO, palette=RED), palette_picture(INDEX, RED), "PNG"),
    "colours of other things": (Labels(TWO, palette=RED), palette_picture(INDEX, [(9, 9, 9), (8, 8, 8)]), "PNG"),
    "a palette of black alone": (Labels(TWO, palette=RED), palette_picture(INDEX, [(0, 0, 0)] * 2), "PNG"),
    "16 bits": (Labels(TWO), Image.fromarray(INDEX.astype(np.uint16)), "PNG"),
    "32 bits": (Labels(TWO), Image.fromarray(INDEX.astype(np.int32)), "TIFF"),
    "16 bits, large values": (
        Labels(TWO, values={1000: "ground", 65535: 1}),
        Image.fromarray(np.where(INDEX, 65535, 1000).astype(np.uint16)),
        "PNG",
    ),
    "gif": (Labels(TWO), palette_picture(INDEX, RED), "GIF"),
    "grey in three channels": (Labels(TWO), Image.fromarray(np.stack([INDEX] * 3, -1)), "PNG"),
    "grey with an opaque alpha": (Labels(TWO), Image.fromarray(INDEX).convert("LA"), "PNG"),
    "RGB": (Labels(TWO, palette=RED), Image.fromarray(COLOURS[INDEX]), "PNG"),
    "RGB, opaque": (Labels(TWO, palette=RED), Image.fromarray(COLOURS[INDEX]).convert("RGBA"), "PNG"),
    "RGB by values": (Labels(TWO, values={"#000000": 0, "#800000": "disc"}), Image.fromarray(COLOURS[INDEX]), "PNG"),
    "0 and 255": (Labels(TWO, values={0: "ground", 255: "disc"}), Image.fromarray(INDEX * 255), "PNG"),
    "from JSON, as text": (Labels(TWO, values={"0": 0, "255": 1}), Image.fromarray(INDEX * 255), "PNG"),
    "from 1": (Labels(TWO, values={1: "ground", 2: "disc"}), Image.fromarray(INDEX + 1), "PNG"),
    "two values of one class": (
        Labels(TWO, values={3: 0, 4: 0, 7: 1}),
        Image.fromarray(np.where(INDEX, 7, 3 + np.indices(INDEX.shape).sum(0) % 2).astype(np.uint8)),
        "PNG",
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_kinds_of_files_give_the_classes(kind, tmp_path):
    labels, picture, form = READ[kind]
    path = tmp_path / f"m.{form.lower()}"
    picture.save(path, form)
    assert read_mask(path, labels).tolist() == INDEX.tolist()


VOID_READ = {
    "void in the middle": (Labels(TWO, values={0: 0, 127: "void", 254: "disc"}), {0: 0, 127: IGNORE, 254: 1}),
    "void 0, classes from 1": (Labels(TWO, void=0, values={1: 0, 2: 1}), {0: IGNORE, 1: 0, 2: 1}),
    "void 0 among the values": (Labels(TWO, values={0: None, 1: 0, 2: 1}), {0: IGNORE, 1: 0, 2: 1}),
    "all others are void": (Labels(TWO, values={7: 0, 8: 1, "other": "void"}), {0: IGNORE, 7: 0, 8: 1, 33: IGNORE}),
    "all others are a class": (Labels(TWO, values={1: 1, "other": 0}), {0: 0, 1: 1, 77: 0, 255: IGNORE}),
    "a class named void": (Labels(("void", "disc"), values={5: "void", 6: "disc"}), {5: 0, 6: 1, 255: IGNORE}),
    "255 never counts": (Labels(("a", "b", "c"), void=9), {0: 0, 2: 2, 9: IGNORE, 255: IGNORE}),
}


@pytest.mark.parametrize("kind", VOID_READ)
def test_values_that_do_not_count(kind, tmp_path):
    labels, expected = VOID_READ[kind]
    path = tmp_path / "m.png"
    Image.fromarray(np.array([list(expected)], np.uint8)).save(path)
    assert read_mask(path, labels).tolist() == [list(expected.values())]


def test_a_void_colour(tmp_path):
    Image.fromarray(COLOURS[np.array([[0, 1, 2]])]).save(tmp_path / "m.png")
    labels = Labels(TWO, palette=RED, values={"#E0E0C0": "void"})
    assert read_mask(tmp_path / "m.png", labels).tolist() == [[0, 1, IGNORE]]


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.integers(0, 255), min_size=3, max_size=9, unique=True),
    seed=st.integers(0, 999),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_any_assignment_of_values_equals_a_slow_reading(values, seed, height, width, tmp_path_factory):
    rng = np.random.default_rng(seed)
    names = ("a", "b", "c", None)
    meaning = {value: names[n] if n < 3 else names[rng.integers(4)] for n, value in enumerate(values)}
    stored = rng.choice(values, (height, width)).astype(np.uint8)
    path = tmp_path_factory.mktemp("m") / "m.png"
    Image.fromarray(stored).save(path)
    number = {"a": 0, "b": 1, "c": 2, None: IGNORE}
    expected = [[number[meaning[int(value)]] for value in row] for row in stored]
    assert read_mask(path, Labels(("a", "b", "c"), values=meaning)).tolist() == expected


REFUSED = {
    "0 and 254": (
        (Labels(TWO), Image.fromarray(INDEX * 254)),
        r"m\.png has the value 254 at row 0, column 2; there are 2 classes \(0: ground, 1: disc, 255: void\): say what "
        r"stored values mean with options\.values or `values` in labels\.json \(the file holds 0, 254\)",
    ),
    "a value that is not listed": (
        (Labels(TWO, values={0: 0, 255: 1}), Image.fromarray(INDEX * 3)),
        r"has the value 3 at row 0, column 2; there are 2 classes \(0: ground, 255: disc\)",
    ),
    "one bit, with values for bytes": (
        (Labels(TWO, values={0: 0, 255: 1}), Image.fromarray(INDEX * 255).convert("1")),
        "has the value 1 at row 0, column 2",
    ),
    "negative values": ((Labels(TWO), Image.fromarray(-INDEX.astype(np.int32)), "TIFF"), "has the value -1 "),
    "very large values": ((Labels(TWO), Image.fromarray(INDEX.astype(np.int32) * 70000), "TIFF"), "value 70000"),
    "JPEG": (
        (Labels(TWO), Image.fromarray(INDEX * 254), "JPEG"),
        "is a JPEG file, which changes the values at every edge: masks must be PNG",
    ),
    "MPO of phones": ((Labels(TWO), Image.fromarray(INDEX), "MPO"), "is a JPEG file, which changes"),
    "TIFF with JPEG in it": (
        (Labels(TWO), Image.fromarray(INDEX), "TIFF", {"compression": "jpeg"}),
        "compressed as JPEG",
    ),
    "lossy WebP": (
        (Labels(TWO), Image.fromarray(np.stack([INDEX] * 3, -1)), "WEBP"),
        "is a WebP file with loss, which",
    ),
    "lossy WebP, in a container": (
        (Labels(TWO), Image.fromarray(np.stack([INDEX] * 3, -1)), "WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        "is a WebP file with loss",
    ),
    "AVIF": ((Labels(TWO), Image.fromarray(np.stack([INDEX] * 3, -1)), "AVIF"), "is an AVIF file, which changes"),
    "colours without a palette": (
        (Labels(TWO), Image.fromarray(COLOURS[INDEX])),
        r"is a colour picture \(mode RGB\): give each class its colour as options\.palette, or `palette` in labels",
    ),
    "a colour of no class": (
        (Labels(TWO, palette=RED), Image.fromarray(COLOURS[INDEX * 2])),
        r"has the colour \(224, 224, 192\) at row 0, column 2, .*say {'#e0e0c0': void} in options\.values",
    ),
    "two classes of one colour": (
        (Labels(TWO, palette=((1, 2, 3),) * 2), Image.fromarray(COLOURS[INDEX])),
        r"two classes have the colour \(1, 2, 3\)",
    ),
    "transparent pixels": (
        (Labels(TWO), Image.merge("LA", [Image.fromarray(INDEX), Image.fromarray(INDEX * 255)])),
        "has transparent pixels: give them the value of a class or of void",
    ),
    "a palette in another order": (
        (Labels(TWO, palette=RED), palette_picture(1 - INDEX, RED[::-1])),
        r"numbers its palette in another order: 0 has the colour of 'disc'",
    ),
    "fractions": ((Labels(TWO), Image.fromarray(INDEX.astype(np.float32)), "TIFF"), "a picture of mode F"),
    "CMYK": ((Labels(TWO), Image.new("CMYK", (4, 3)), "TIFF"), "a picture of mode CMYK"),
}


def with_format(labels: Labels, picture: Image.Image, form: str = "PNG", options: dict | None = None):
    return labels, picture, form, options or {}


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_that_are_refused_say_why(kind, tmp_path):
    (labels, picture, form, options), message = with_format(*REFUSED[kind][0]), REFUSED[kind][1]
    picture.save(tmp_path / "m.png", form, **options)
    with pytest.raises(ValueError, match=message) as error:
        read_mask(tmp_path / "m.png", labels)
    assert "m.png" in str(error.value) or "palette" in str(error.value)


def save_array(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_arrays_and_lossless_webp_are_read(tmp_path):
    for array in (INDEX, INDEX.astype(bool), INDEX[..., None].astype(np.int64)):
        assert read_mask(save_array(tmp_path / "m.npy", array), Labels(TWO)).tolist() == INDEX.tolist()
    for array in (INDEX.astype(np.float32), np.stack([INDEX] * 3)):
        with pytest.raises(ValueError, match=r"m\.npy holds .* numbers of the shape .*holds whole numbers"):
            read_mask(save_array(tmp_path / "m.npy", array), Labels(TWO))
    with pytest.raises(ValueError, match="the value 9 at row 0, column 2"):
        read_mask(save_array(tmp_path / "m.npy", INDEX * 9), Labels(TWO))
    picture = Image.fromarray(np.stack([INDEX] * 3, -1))
    for options in ({}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, {"save_all": True, "append_images": [picture]}):
        picture.save(tmp_path / "m.webp", lossless=True, **options)
        assert read_mask(tmp_path / "m.webp", Labels(TWO)).tolist() == INDEX.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "ab"}, "classes=ab must be a list of names, in the order of their values from 0 on"),
        ({"classes": {"disc": 1, "ground": 0}}, "classes={'disc': 1, 'ground': 0} must be a list of names"),
        ({"classes": ("ground", " ")}, "a class has no name"),
        ({"void": 0}, r"void=0 is the value of the class 'ground' too: .*values={0: void, 1: ground, 2: disc}"),
        ({"void": 256}, "void=256 must lie between 0 and 255"),
        ({"void": "255"}, "void='255' must lie between 0 and 255"),
        ({"values": {0: "ground", 255: "disk"}}, r"values: 255 is 'disk', which is no class \(ground, disc\)"),
        ({"values": {0: "ground", 255: 2}}, "values: 255 is 2, which is no class"),
        ({"values": {0: "ground", 255: True}}, "values: 255 is True, which is no class"),
        ({"values": {0: "ground"}}, "values: no value is the class 'disc'"),
        ({"values": {0: 0, 70000: 1}}, r"values: 70000 is no grey value \(0\.\.65535\), no colour \(#rrggbb\)"),
        ({"values": {0: 0, -1: 1}}, "values: -1 is no grey value"),
        ({"values": {0: 0, "red": 1}}, "values: 'red' is no grey value"),
        ({"values": [0, 255]}, "values=.* must be a mapping such as {0: ground, 255: void}"),
        ({"classes": ("ground", True)}, "must be names: quote numbers and yes, no, on, off"),
        ({"palette": ((0, 0, 0),)}, "must hold 2 colours"),
    ],
)
def test_labels_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        Labels(**{"classes": TWO, **change})


def test_labels_json_with_a_byte_order_mark_values_and_unknown_keys(tmp_path):
    text = json.dumps({"classes": TWO, "values": {"0": "ground", "255": "disc"}})
    (tmp_path / "labels.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    labels = read_labels(tmp_path)
    assert labels == Labels(TWO, values={0: "ground", 255: "disc"})
    assert Labels(TWO, **json.loads(json.dumps(labels.to_dict()))) == labels
    (tmp_path / "labels.json").write_text('{"classes": ["a", "b"], "viod": 3}')
    with pytest.raises(ValueError, match=r"labels\.json: unknown key 'viod'; known are classes, void, palette, values"):
        read_labels(tmp_path)
    (tmp_path / "labels.json").write_text('["a", "b"]')
    with pytest.raises(ValueError, match=r"labels\.json: it must be a mapping"):
        read_labels(tmp_path)


def write_masks(folder: Path, *arrays: np.ndarray) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(len(arrays))]
    for path, values in zip(paths, arrays, strict=True):
        Image.fromarray(values.astype(np.uint8)).save(path)
    return paths


def test_classes_that_never_occur_are_named_with_the_likely_reason(tmp_path):
    binary = write_masks(tmp_path, INDEX * 255, INDEX * 0)
    assert classes_not_seen(binary, Labels(TWO)) == (
        f"no pixel in the 2 masks in {tmp_path} is of the class 'disc'; 255 is void here (20.8% of the pixels): did "
        "you mean class 1? Then set options.values={0: ground, 255: disc}"
    )
    assert classes_not_seen(binary, Labels(TWO, values={0: 0, 255: 1})) == ""
    three = Labels((*TWO, "pole", "sign"))
    assert classes_not_seen(write_masks(tmp_path, INDEX), three).endswith("is of the classes 'pole', 'sign'")
    (tmp_path / "1.png").write_bytes(b"no picture")  # met again, and reported, when it is read
    assert classes_not_seen([tmp_path / "0.png", tmp_path / "1.png"], Labels(TWO)) == ""
    assert classes_not_seen([tmp_path / "1.png"], Labels(TWO)) == ""


def test_255_beside_a_class_of_all_other_values_is_told(tmp_path):
    paths = write_masks(tmp_path, INDEX * 255, INDEX * 128)
    said = classes_not_seen(paths, Labels(TWO, values={0: "ground", "other": "disc"}))
    assert said == (
        f"255 is void in the 2 masks in {tmp_path} (20.8% of the pixels), though all other values are 'disc': say "
        "which is meant with 255: disc or 255: void in values"
    )
    for meant, count in (("disc", 1), ("void", IGNORE)):
        labels = Labels(TWO, values={0: "ground", "other": "disc", 255: meant})
        assert classes_not_seen(paths, labels) == ""
        assert read_mask(paths[0], labels).max() == count


def test_masks_of_void_alone_are_refused(tmp_path):
    paths = write_masks(tmp_path, INDEX * 0 + 255)
    with pytest.raises(ValueError, match=r"no pixel in the 1 masks in .* counts: all are void"):
        classes_not_seen(paths, Labels(TWO))


def test_many_masks_are_looked_at_in_part(tmp_path):
    paths = write_masks(tmp_path, *[INDEX * 0] * 9, INDEX)
    assert "no pixel in 3 of 10 masks" in classes_not_seen(paths[:9] + paths[8:9], Labels(TWO), most=3)
    assert classes_not_seen(paths, Labels(TWO), most=3) == ""  # first, middle and last


def turned(picture: Image.Image, path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)


def test_photo_and_mask_are_turned_alike_or_it_is_said(tmp_path):
    photo = Image.fromarray(np.stack([INDEX * 200] * 3, -1))
    turned(photo, tmp_path / "p.png", 6)
    turned(Image.fromarray(INDEX), tmp_path / "m.png", 6)
    pairs = Pairs((tmp_path / "p.png",), (tmp_path / "m.png",))
    samples = MaskSamples(pairs, Labels(TWO), size=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    upright = np.rot90(INDEX, -1)
    assert samples[0]["target"].tolist() == upright.tolist()
    assert ((samples[0]["image"][0] > 0.5) == samples[0]["target"].bool()).all()
    Image.fromarray(INDEX).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png is 4 x 3, its photo .* 3 x 4, turned upright as its EXIF data says"):
        samples[0]
