"""`elastic segment`: files written, what is refused, and photos that cannot be read."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_fpn import TINY_FPN

from elastic_cnn.analysis.segment import bytes_needed, segment_photo
from elastic_cnn.analysis.segment_files import find_photos
from elastic_cnn.cli import main
from elastic_cnn.cli.segment import parse_size
from elastic_cnn.tasks.mask_labels import LABELS_KEY
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, load_checkpoint, save_checkpoint
from elastic_cnn.zoo.factory import create_model

KWARGS = {"num_classes": 3, **TINY_FPN}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    info = {LABELS_KEY: {"void": 9, "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}}
    card = NetworkCard("smp_fpn", KWARGS, "segmentation", ("a", "b", "c"), InputSpec((64, 64)), info=info)
    return save_checkpoint(tmp_path_factory.mktemp("net") / "seg.safetensors", create_model("smp_fpn", **KWARGS), card)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 201, 3), dtype=np.uint8)).save(path)
    return path


def test_writes_the_mask_with_its_palette_and_the_picture_beside_the_photo(checkpoint, photo, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(checkpoint), str(photo), "-o", str(out), "--device", "cpu"]) == 0
    network, card = load_checkpoint(checkpoint)
    expected = segment_photo(network, Image.open(photo), card.input)
    with Image.open(out / "street_mask.png") as mask:
        assert np.array_equal(np.array(mask), expected)
        assert mask.getpalette()[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    with Image.open(out / "street_side_by_side.png") as row:
        assert row.size == (3 * 201 + 2 * 4, 150)
        assert np.array_equal(np.array(row)[:, :201], np.array(Image.open(photo)))
    name = card.classes[np.bincount(expected.ravel()).argmax()]
    assert f"street_side_by_side.png: {name} " in capsys.readouterr().out


def test_refuses_to_overwrite_before_it_computes(checkpoint, photo, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "street_mask.png").write_bytes(b"mine")
    arguments = ["segment", str(checkpoint), str(photo), "-o", str(out), "--device", "cpu"]
    assert main(arguments) == 2
    assert "street_mask.png exists already" in capsys.readouterr().err
    assert (out / "street_mask.png").read_bytes() == b"mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert (out / "street_mask.png").read_bytes() != b"mine"


def test_tiles_by_side_and_by_memory(checkpoint, photo, tmp_path, capsys):
    need = bytes_needed(load_checkpoint(checkpoint)[0], 160)
    for number, (bound, tile) in enumerate(((["--tile", "96"], 96), (["--max-memory", str(need)], 160))):
        out = tmp_path / f"out{number}"
        assert main(["segment", str(checkpoint), str(photo), "-o", str(out), *bound, "--device", "cpu"]) == 0
        assert f"(tiles of {tile})" in capsys.readouterr().out
        with Image.open(out / "street_mask.png") as mask:
            assert mask.size == (201, 150)
    assert main(["segment", str(checkpoint), str(photo), "-o", str(tmp_path / "x"), "--max-memory", "10K"]) == 2
    assert "too small: the smallest tile" in capsys.readouterr().err


def test_a_broken_photo_is_named_and_the_others_are_done(checkpoint, photo, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    out = tmp_path / "out"
    assert main(["segment", str(checkpoint), str(broken), str(photo), "-o", str(out), "--device", "cpu"]) == 2
    errors = capsys.readouterr().err
    assert "broken.jpg cannot be read" in errors
    assert "1 photo(s) cannot be read" in errors
    assert (out / "street_mask.png").is_file()


def test_bad_input_is_one_line_and_code_2(checkpoint, photo, tmp_path, capsys):
    copy = tmp_path / "other" / "street.jpg"
    copy.parent.mkdir()
    Image.new("RGB", (8, 8)).save(copy)
    out = ["-o", str(tmp_path / "out"), "--device", "cpu"]
    cases = {
        "there is no photo or folder": [str(tmp_path / "nowhere.jpg")],
        "would write the same files": [str(photo), str(copy)],
        "not both": [str(photo), "--tile", "64", "--max-memory", "1G"],
        "is not a size": [str(photo), "--max-memory", "lots"],
        "--strength must lie in 0..1": [str(photo), "--strength", "2"],
        "tiles of 8 pixels are too small": [str(photo), "--tile", "8"],
    }
    capsys.readouterr()
    find_photos([copy.parent.parent / "other"])
    (copy.parent / "more").mkdir()
    assert capsys.readouterr().err == ""
    find_photos([copy.parent])
    assert "the folders in it are not read ('more'): name those that are meant" in capsys.readouterr().err
    for message, arguments in cases.items():
        assert main(["segment", str(checkpoint), *arguments, *out]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_classifier_is_refused(photo, tmp_path, capsys):
    kwargs = {"num_classes": 2}
    card = NetworkCard("resnet10t", kwargs, classes=("a", "b"))
    path = save_checkpoint(tmp_path / "c.safetensors", create_model("resnet10t", **kwargs), card)
    assert main(["segment", str(path), str(photo), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "is a classification network" in capsys.readouterr().err


def test_sizes():
    assert [parse_size(text) for text in ("1K", "1.5G", "2 GiB", "800MB", "5")] == [
        1024, 3 * 2**29, 2**31, 800 * 2**20, 5,
    ]  # fmt: skip
    for text in ("", "G", "0M", "-1G", "1T"):
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(text)
