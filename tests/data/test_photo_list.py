"""Photos by a list: which are kept, in which order, and what is refused."""

import pytest
from PIL import Image

from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.photo_list import keep_listed, read_photo_list


@pytest.fixture
def data(tmp_path):
    for name in ("cat", "dog", "owl"):
        for number in range(3):
            file = tmp_path / "data" / "train" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (80 * number, 40 * len(name), 0)).save(file)
    return tmp_path / "data"


def names(samples):
    return [samples.path(index).split("/train/")[1] for index in range(len(samples))]


def opened(data):
    return ImageFolder(data, "train", lambda picture: picture.getpixel((0, 0)))


@pytest.mark.parametrize("kind", ["data", "split", "whole", "csv"])
def test_only_and_without_divide_the_photos(data, tmp_path, kind):
    chosen = ["dog/2.png", "cat/0.png", "cat/1.png"]
    before = {"split": "", "whole": f"{data}/train/"}.get(kind, "train/")
    file = tmp_path / ("list.csv" if kind == "csv" else "list.txt")
    lines = [before + name for name in chosen]
    file.write_text("label,path\n" + "".join(f"x,{line}\n" for line in lines) if kind == "csv" else "\n".join(lines))
    some, rest, every = opened(data), opened(data), opened(data)
    keep_listed(some, str(data), only=str(file))
    keep_listed(rest, str(data), without=str(file))
    assert names(some) == ["cat/0.png", "cat/1.png", "dog/2.png"]  # the folder's order
    assert sorted(names(some) + names(rest)) == names(every)
    assert some[2] == every[5]  # the picture and the number of its class
    assert some.classes == every.classes
    assert some.counts == {"cat": 2, "dog": 1}
    assert some.found_line == "train: 3 photos in 2 classes (cat 2, dog 1)"
    assert some.notices == (f"train: 3 of 9 photos by options.only={file}", "train: no photo is left of 'owl'")


def test_both_at_once(data, tmp_path):
    (tmp_path / "a.txt").write_text("train/cat/0.png\ntrain/cat/1.png\n")
    (tmp_path / "b.txt").write_text("train/cat/1.png\n")
    samples = opened(data)
    with pytest.raises(ValueError, match=r"b.txt and options.without=.*a.txt leaves no photo"):
        keep_listed(samples, str(data), only=str(tmp_path / "b.txt"), without=str(tmp_path / "a.txt"))
    samples = opened(data)
    keep_listed(samples, str(data), only=str(tmp_path / "a.txt"), without=str(tmp_path / "b.txt"))
    assert names(samples) == ["cat/0.png"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("l.txt", "val/cat/0.png\n", r"1 of its photos are not in .*'val/cat/0.png'; .* as in 'train/cat/0.png'"),
        ("l.txt", "\n \n", "lists no photo"),
        ("l.csv", "file,label\na,b\n", r"no column `path`"),
        pytest.param("l.csv", f"path\n{'x' * 200_000}\n", r"l\.csv, line 2: field larger", id="a long field"),
        ("l.txt", None, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(data, tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        keep_listed(opened(data), str(data), only=str(tmp_path / name))


def test_nothing_left_is_refused(data, tmp_path):
    (tmp_path / "all.txt").write_text("\n".join(f"train/{name}" for name in names(opened(data))))
    with pytest.raises(ValueError, match="leaves no photo"):
        keep_listed(opened(data), str(data), without=str(tmp_path / "all.txt"))


def test_a_list_with_a_mark_of_order_is_read(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb c.png\r\n")
    assert read_photo_list(tmp_path / "l.txt") == ["a.png", "b c.png"]
