"""The explorer's folder without a browser: columns, map, sprites, and what is refused."""

import base64
import itertools
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from explorer_tables import BLOCKS, CLASSES, build, color, write_table
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from elastic_cnn.policy.explorer import ExplorerOptions, build_explorer
from elastic_cnn.policy.explorer.build import static_files
from elastic_cnn.policy.explorer.columns import Names, browser_columns, category_of, encode, script
from elastic_cnn.policy.explorer.layout import lay_out
from elastic_cnn.policy.explorer.sprites import (
    PhotoMissing,
    PictureOptions,
    numbered,
    photos_below,
    read_reduced,
    write_pictures,
)
from elastic_cnn.policy.table import PolicyInfo, PolicyTable, read_policy, schema_of

SMALL = ExplorerOptions(map="pca", pictures=PictureOptions(thumbnail=32, picture=0))


def received(folder, name):
    """The value that a data file hands to the page."""
    text = (folder / "data" / f"{name}.js").read_text("ascii")
    value = re.fullmatch(rf'ElasticExplorer\.receive\("{name}", (.*)\);\n', text, re.DOTALL)
    assert value is not None
    return json.loads(value[1])


def decoded(column):
    kind, text = column
    return np.frombuffer(base64.b64decode(text), {"f4": "<f4", "u1": "u1", "u4": "<u4"}[kind])


def test_the_data_holds_the_table(explorer):
    folder, table = explorer.index.parent, explorer.table
    about, columns = received(folder, "table"), received(folder, "columns")
    assert about["rows"] == len(table) == 60
    assert received(folder, "paths") == table.column("path")
    np.testing.assert_array_equal(decoded(received(folder, "scores")).reshape(60, len(BLOCKS)), table.scores)
    np.testing.assert_array_equal(decoded(columns["confidence"]), np.float32(table.column("confidence")))
    labels = decoded(columns["label_names"])
    assert [about["names"][name] for name in labels] == table.column("label")
    sizes, starts = decoded(columns["size_values"]), decoded(columns["size_starts"])
    found = [sizes[a:b].tolist() or None for a, b in itertools.pairwise(starts)]
    assert found == table.column("object_sizes")
    assert [block["name"] for block in about["blocks"]] == [block.name for block in BLOCKS]


def test_data_scripts_are_ascii_and_close_no_tag():
    hostile = "</script>\u2028\u202e\U0001f600\x00"
    text = script("paths", [hostile])
    assert text.isascii()
    assert json.loads(text[len('ElasticExplorer.receive("paths", ') : -3]) == [hostile]
    with pytest.raises(ValueError, match="JSON"):
        script("table", float("nan"))


@given(st.lists(st.none() | st.lists(st.sampled_from(["a", "b", "<c>", ""]), max_size=3), max_size=8))
def test_names_and_starts_give_back_the_lists(lists):
    import pyarrow as pa

    rows = [
        {
            "id": i,
            "path": "p",
            "label": labels,
            "prediction": [],
            "confidence": None,
            "correct": None,
            "object_sizes": None,
            **{f"score:{block.name}": 0.0 for block in BLOCKS},
        }
        for i, labels in enumerate(lists)
    ]
    info = PolicyInfo("multilabel", ("b",), BLOCKS)
    table = PolicyTable(info, pa.Table.from_pylist(rows, schema_of(info)))
    columns, names = browser_columns(table)
    starts, numbers = columns["label_starts"], columns["label_names"]
    assert len(starts) == len(lists) + 1
    for i, labels in enumerate(lists):
        assert [names.all[n] for n in numbers[starts[i] : starts[i + 1]]] == (labels or [])
    if any(lists):
        expected = [names.number(labels[0]) if labels else -1 for labels in lists]
        assert category_of(columns).tolist() == expected


def test_names_put_the_networks_classes_first():
    names = Names(["x", "y", "x"])
    assert (names.number("z"), names.number("y")) == (2, 1)
    assert names.all == ["x", "y", "z"]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint32])
def test_arrays_survive_encoding(dtype):
    array = np.array([0, 1, 200], dtype)
    np.testing.assert_array_equal(decoded(encode(array)), array)
    with pytest.raises(ValueError, match="int64"):
        encode(array.astype(np.int64))


def test_principal_components_are_those_of_sklearn():
    from sklearn.decomposition import PCA

    scores = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * np.arange(1, 7)
    layout = lay_out(scores.astype(np.float32), "pca")
    fit = PCA(2).fit(scores)
    expected = fit.transform(scores)
    expected = expected / np.ptp(expected, axis=0).max()
    for axis in (0, 1):
        ours = layout.coordinates[:, axis] - layout.coordinates[:, axis].mean()
        theirs = expected[:, axis] - expected[:, axis].mean()
        sign = np.sign((ours * theirs).sum())
        np.testing.assert_allclose(ours, sign * theirs, atol=1e-5)  # float32 coordinates within 0..1
    assert f"{100 * fit.explained_variance_ratio_.sum():.0f}%" in layout.note
    assert layout.coordinates.min() >= 0
    assert layout.coordinates.max() <= 1


def test_maps_of_few_or_equal_photos():
    assert lay_out(np.ones((3, 6), np.float32)).coordinates.tolist() == [[0.5, 0.5]] * 3
    assert lay_out(np.eye(4, 1, dtype=np.float32)).method == "Principal components"
    assert "t-SNE" in lay_out(np.random.default_rng(0).normal(size=(12, 6))).method
    with pytest.raises(ValueError, match="map 'isomap'"):
        lay_out(np.ones((3, 6)), "isomap")


def test_each_thumbnail_lies_at_its_slot(explorer):
    folder = explorer.index.parent
    slots = decoded(received(folder, "columns")["slot"])
    assert sorted(slots) == list(range(60))
    for row in range(60):
        sheet, place = divmod(int(slots[row]), 16)
        with Image.open(numbered(folder / "thumbs", sheet)) as sprite:
            pixel = sprite.convert("RGB").getpixel((place % 4 * 64 + 32, place // 4 * 64 + 32))
        assert np.abs(np.subtract(pixel, color(row))).max() < 8  # WebP is lossy; rows differ by 25 and more


def test_thumbnails_of_a_class_lie_together(explorer):
    slots = decoded(received(explorer.index.parent, "columns")["slot"])
    labels = np.array(explorer.table.column("label"))[np.argsort(slots)]
    assert (labels[1:] != labels[:-1]).sum() == len(CLASSES) - 1


def test_photos_that_lead_out_of_their_folder_are_not_shown(tmp_path):
    root = tmp_path / "photos"
    (root / "in").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "secret.png")
    Image.new("RGB", (40, 40)).save(root / "in" / "fine.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "broken.png").write_bytes(b"not a picture")
    (root / "loop.png").symlink_to(root / "loop.png")
    paths = ["in/fine.png", "../secret.png", "link.png", str(tmp_path / "secret.png"), "in/../../secret.png"]
    paths += ["broken.png", "none.png", "nul\x00l.png", "in", "a" * 5000, "loop.png"]
    open_photo = photos_below(root, paths)
    assert open_photo(0, 64).size == (40, 40)
    for row in range(1, len(paths)):
        with pytest.raises(PhotoMissing):
            open_photo(row, 64)
    slots = np.arange(len(paths), dtype=np.uint32)
    report = write_pictures(tmp_path / "out", slots, open_photo, PictureOptions(32, 128), lambda rows: None)
    assert report.has_picture.tolist() == [1] + [0] * (len(paths) - 1)
    assert report.missing["path leads out of the data's folder"] == 4
    assert report.missing["broken or no picture"] == 1
    assert sum(report.missing.values()) == len(paths) - 1


def test_pictures_are_upright_and_bombs_refused(tmp_path, monkeypatch):
    sideways = Image.new("RGB", (90, 40), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    sideways.save(tmp_path / "a.jpg", exif=exif)
    assert read_reduced(tmp_path / "a.jpg", 500).size == (40, 90)
    monkeypatch.setattr("elastic_cnn.policy.explorer.sprites.MOST_PIXELS", 3000)
    with pytest.raises(PhotoMissing, match="megapixels"):
        read_reduced(tmp_path / "a.jpg", 500)


FOREIGN = r"https?:|//[a-z]+\.|@import|innerHTML|outerHTML|insertAdjacent|document\.write|eval\("


def test_nothing_comes_from_elsewhere():
    """No address of another site stands in the page's files (the names of XML's spaces are no addresses)."""
    texts = {file.name: file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "") for file in static_files()}
    for text in texts.values():
        assert not re.search(FOREIGN, text)
    page = texts["index.html"]
    assert re.search(r"default-src 'none'; script-src 'self'", page)
    assert not re.search(r"\son\w+=|style=", page)
    scripts = set(re.findall(r'src="([^"]+)"', page))
    assert {name for name in scripts if not name.startswith("data/")} == {n for n in texts if n.endswith(".js")}


def test_an_explorer_is_replaced_only_when_asked(tmp_path):
    path = write_table(tmp_path, 6)
    out = tmp_path / "out"
    build_explorer(path, out, SMALL)
    with pytest.raises(ValueError, match=rf"exists already: open {out / 'index.html'}, or pass --overwrite"):
        build_explorer(path, out, SMALL)
    (out / "old").touch()
    build_explorer(path, out, SMALL, overwrite=True)
    assert not (out / "old").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(ValueError, match="no explorer's folder"):
        build_explorer(path, other, SMALL, overwrite=True)
    assert (other / "thesis.tex").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_build_that_fails_leaves_nothing(tmp_path):
    path = write_table(tmp_path, 6)

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_explorer(path, tmp_path / "out", SMALL, progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "policy.parquet"]


def test_bad_input_names_the_remedy(tmp_path, monkeypatch):
    path = write_table(tmp_path, 6)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(ValueError, match=r"none of the photos.*no such file \(6\).*--photos"):
        build_explorer(path, tmp_path / "a", ExplorerOptions(str(elsewhere), "pca"))
    with pytest.raises(ValueError, match=r"nowhere.*--photos"):
        build_explorer(path, tmp_path / "a", ExplorerOptions(str(tmp_path / "nowhere")))
    for bad in ({"thumbnail": 8}, {"picture": 9}, {"workers": 0}):
        with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
            PictureOptions(**bad)
    monkeypatch.setattr("elastic_cnn.policy.explorer.build.MOST_ROWS", 5)
    with pytest.raises(ValueError, match="1 to 5 photos, not 6"):
        build_explorer(path, tmp_path / "a", ExplorerOptions(most=6))
    with pytest.raises(ValueError, match="'both'"):
        build_explorer(path, tmp_path / "a", ExplorerOptions(map_of="both", most=5))
    with pytest.raises(ValueError, match="no features"):
        build_explorer(path, tmp_path / "a", ExplorerOptions(map_of="features", most=5))
    assert not (tmp_path / "a").exists()


def test_a_large_table_is_sampled_and_says_so(tmp_path):
    said = []
    options = ExplorerOptions(map="pca", most=25, pictures=PictureOptions(thumbnail=32, picture=0))
    path = write_table(tmp_path, 60)
    report = build_explorer(path, tmp_path / "out", options, say=said.append)
    assert (report.rows, report.sampled_of) == (25, 60)
    assert said[0] == "the table has 60 rows: a random sample of 25 is shown"
    shown, all_paths = received(tmp_path / "out", "paths"), read_policy(path).column("path")
    places = [all_paths.index(name) for name in shown]
    assert len(set(places)) == 25
    assert places == sorted(places)  # in the order of the table
    assert max(places) > 45  # from all over it
    assert received(tmp_path / "out", "table")["sampled_of"] == 60
    build_explorer(path, tmp_path / "again", options)
    assert received(tmp_path / "again", "paths") == shown


def test_a_million_photos_open_as_a_sample_of_them(tmp_path):
    rows, rng = 1_000_000, np.random.default_rng(0)
    info = PolicyInfo("classification", ("ant", "bee"), BLOCKS[:2], data_root=str(tmp_path))
    names = pa.array(np.char.add("photo", np.arange(rows).astype(str)))
    columns = {
        "id": np.arange(rows),
        "path": names,
        "label": pa.array(["ant", "bee"] * (rows // 2)),
        "prediction": pa.array(["ant"] * rows),
        "confidence": rng.random(rows, np.float32),
        "correct": np.arange(rows) % 2 == 0,
        "object_sizes": pa.nulls(rows, pa.list_(pa.float32())),
        **{name: rng.random(rows, np.float32) for name in info.score_columns},
    }
    schema = schema_of(info)
    pq.write_table(pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema), tmp_path / "p.parquet")
    options = ExplorerOptions(map="pca", most=50, pictures=PictureOptions(thumbnail=32, picture=0, workers=1))
    grey = Image.new("RGB", (40, 40), "grey")
    report = build_explorer(tmp_path / "p.parquet", tmp_path / "out", options, open_photo=lambda row, side: grey)
    assert (report.rows, report.sampled_of) == (50, rows)
    places = [int(name.removeprefix("photo")) for name in received(tmp_path / "out", "paths")]
    assert places == sorted(set(places))
    assert abs(np.mean(places) / rows - 0.5) < 0.15  # from all over it: the mean of 50 has a deviation of 0.04


def test_a_plain_networks_table_is_laid_out_by_features(tmp_path):
    path = write_table(tmp_path, 40, plain=True)
    report = build_explorer(path, tmp_path / "out", ExplorerOptions(pictures=SMALL.pictures))
    assert report.map == "t-SNE of features"
    about, columns = received(tmp_path / "out", "table"), received(tmp_path / "out", "columns")
    assert about["blocks"] == []
    places = np.stack([decoded(columns["x"]), decoded(columns["y"])], axis=1)
    table = read_policy(path)
    label = np.array(table.column("label"))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 10 * np.eye(40)
    assert (label[distance.argmin(axis=1)] == label).mean() > 0.9  # the nearest on the map is of the same class
    kept = decoded(columns["features"]).reshape(40, 8)
    assert np.corrcoef(kept.ravel(), table.features.ravel())[0, 1] > 0.999
    with pytest.raises(ValueError, match="features alone"):
        build_explorer(path, tmp_path / "x", ExplorerOptions(map_of="policy", pictures=SMALL.pictures))


def test_memory_and_order_do_not_depend_on_workers(tmp_path):
    one = build(tmp_path / "one", rows=40)
    path = one.index.parent.parent / "policy.parquet"
    options = ExplorerOptions(map="pca", pictures=PictureOptions(64, 128, workers=4))
    build_explorer(path, tmp_path / "four", options)
    files = sorted(p.relative_to(one.index.parent) for p in one.index.parent.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "four") for p in (tmp_path / "four").rglob("*") if p.is_file())
    assert all((one.index.parent / f).read_bytes() == (tmp_path / "four" / f).read_bytes() for f in files)
    assert len(read_policy(path)) == 40
