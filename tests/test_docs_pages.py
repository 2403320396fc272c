"""Figures and sentences that pages repeat from elsewhere are those of their source."""

import re
from pathlib import Path

import pytest
from PIL import Image

from elastic_cnn.analysis.paper import paper_row
from elastic_cnn.cli import main
from elastic_cnn.data.image_folder import ImageFolder

DOCS = Path(__file__).resolve().parents[1] / "docs"


def rows(page: str, columns: int) -> list[list[str]]:
    """The cells of the tables of so many columns, without their heads."""
    lines = [line.strip("|").split("|") for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns]


def test_the_zoos_table_repeats_its_sources():
    counted = {row[0]: row for row in rows("networks.md", 6)}
    timed = {(row[0], row[1]): row for row in rows("performance/native.md", 5)}
    titles = {"resnext": "ResNeXt", "se_resnext": "SE-ResNeXt", "densenet": "DenseNet", "dla60x": "DLA-X60"}
    checked = 0
    for name, parameters, macs, seconds, ratio, error, base_error in rows("choosing.md", 7):
        if not name.startswith("`"):
            continue
        name = name.strip("`")
        assert [parameters, macs] == [counted[name][2], counted[name][4]], name
        row, base = paper_row(name), paper_row(re.sub(r"_s?elastic.*", "", name).replace("50x2", "101"))
        assert error == ("-" if row is None else f"{row.top1_error:.2f}")
        assert base_error in ("-", "" if base is None else f"{base.top1_error:.2f}")
        kind, number = re.match(r"(dla\d+x|[a-z_]+)(\d*)", name).groups()
        title = titles.get(kind, "") + number
        version = f"`{name}`" if name.endswith("fast") else "+sElastic" if "selastic" in name else "+Elastic"
        if seconds != "-":
            found = timed[f"{title} : {version}", "1"]
            assert [seconds, ratio] == [found[3], f"{float(found[4].split()[0]):.2f}"], name
            checked += 1
    assert checked == 8


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def sentence(action) -> str:
    with pytest.raises(ValueError) as caught:
        action()
    return str(caught.value)


def test_sentences_of_troubleshooting_are_said(tmp_path, capsys):
    quoted = [row[0].strip("`") for row in rows("troubleshooting.md", 2) if row[0].startswith("`")]
    assert len(quoted) == 10
    said = []
    picture(tmp_path / "a" / "photos" / "1.png")
    said.append(sentence(lambda: ImageFolder(tmp_path / "a", "train", None)))
    picture(tmp_path / "b" / "train" / "1.png")
    said.append(sentence(lambda: ImageFolder(tmp_path / "b", "train", None)))
    picture(tmp_path / "c" / "train" / "cat" / "1.png")
    said.append(sentence(ImageFolder(tmp_path / "c", "train", None).require_several_classes))
    picture(tmp_path / "c" / "val" / "cow" / "1.png")
    said.append(sentence(lambda: ImageFolder(tmp_path / "c", "val", None, ("cat", "dog"))))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.tex").touch()
    from elastic_cnn.extras import MissingExtra, require
    from elastic_cnn.files import refuse_to_overwrite

    said.append(sentence(lambda: refuse_to_overwrite(tmp_path / "kept")))
    with pytest.raises(MissingExtra) as missing:
        require("no_such_package", "train")
    said.append(str(missing.value))
    sources = "".join(path.read_text() for path in (DOCS.parent / "src").rglob("*.py"))
    for words in quoted:
        assert words in " ".join(said) or words in sources, words
    assert main(["explore", str(tmp_path / "none.parquet")]) == 2
    assert "no policy table" in capsys.readouterr().err
