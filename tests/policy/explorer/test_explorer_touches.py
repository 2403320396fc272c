"""Names on the map, conditions as chips, and photos that look the same."""

import csv
import io

import numpy as np
import pytest
from explorer_tables import BLOCKS, CLASSES, Explorer, build, color, wait_until, write_table
from PIL import Image, ImageFilter

from elastic_cnn.policy.explorer import ExplorerOptions, build_explorer
from elastic_cnn.policy.explorer.copies import copy_groups, look
from elastic_cnn.policy.explorer.sprites import PictureOptions
from elastic_cnn.policy.table import read_policy

APP = "ElasticExplorer.app"
NAMES = f"{APP}.map.names.shown"


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Explorer:
    """A network whose features, and so its map, tell the classes apart."""
    return build(tmp_path_factory.mktemp("plain"), plain=True)


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Explorer:
    """Rows 1 and 5 show what row 0 shows; 1 is of another class. So do 7 and 9."""
    folder = tmp_path_factory.mktemp("copied")
    table = read_policy(write_table(folder))
    paths = table.column("path")
    for row, of in ((1, 0), (4, 0), (9, 7)):
        Image.new("RGB", (96, 80), color(of)).save(folder / "photos" / paths[row])
    options = ExplorerOptions(map="pca", pictures=PictureOptions(thumbnail=64, picture=128))
    return Explorer(build_explorer(folder / "policy.parquet", folder / "explorer", options).index, table)


def test_the_map_names_each_class_where_its_photos_lie(watched, plain):
    page = watched.open(plain.url)
    wait_until(page, f"{NAMES}.length > 0")
    names = page.evaluate("ElasticExplorer.app.store.names")
    places = page.evaluate(f"{APP}.map.names.places")
    assert sorted(names[place["name"]] for place in places) == sorted(CLASSES)
    label = np.array(plain.table.column("label"))
    spots = {name: np.array([page.evaluate(f"[{APP}.store.x[{row}], {APP}.store.y[{row}]]") for row in np.flatnonzero(
        label == name)[:5]]).mean(0) for name in CLASSES}  # fmt: skip
    for place in places:
        nearest = min(spots, key=lambda name: np.hypot(*(spots[name] - (place["x"], place["y"]))))
        assert nearest == names[place["name"]]
    page.select_option("#filter-class", "ant")
    wait_until(page, f"{NAMES}.length === 1")
    assert names[page.evaluate(NAMES)[0]] == "ant"


def test_names_on_the_map_go_and_the_address_knows(watched, plain):
    page = watched.open(plain.url)
    wait_until(page, f"{NAMES}.length > 0")
    pixels = "document.getElementById('map-canvas').toDataURL()"
    named = page.evaluate(pixels)
    page.uncheck("#map-names")
    wait_until(page, f"{pixels} !== {named!r}")
    wait_until(page, "location.hash === '#names=0'")
    assert not watched.open(page.url).is_checked("#map-names")


def test_conditions_are_told_and_dropped_one_by_one(page, explorer):
    """With the keyboard alone: the focus goes on to the next one."""
    assert page.locator("#conditions").is_hidden()
    page.select_option("#filter-outcome", "wrong")
    page.select_option("#filter-class", CLASSES[2])
    page.evaluate(f"{APP}.state.set({{ brush: [{{ key: 'b1', low: -9, high: 9 }}], low: 10 }})")
    chips = page.locator("#conditions button")
    assert chips.all_inner_texts() == [
        "wrong \u00d7", f"{CLASSES[2]} \u00d7", "confidence 10 to 100% \u00d7", "block 2: " + page.evaluate(
            f"ElasticExplorer.blockTitle({APP}.store.blocks[1])") + ": \u22129.000 to 9.000 \u00d7",
    ]  # fmt: skip
    chips.nth(1).focus()
    page.keyboard.press("Enter")
    assert page.evaluate(f"{APP}.state.now.category") == ""
    assert page.evaluate("document.activeElement.textContent").startswith("confidence")
    for _ in range(3):
        chips.first.click()
    assert page.locator("#conditions").is_hidden()
    assert page.evaluate("document.activeElement.id") == "grid"
    assert page.inner_text("#status") == "60 photos"
    assert len(BLOCKS) == 6


def test_copies_are_found_kept_and_told(watched, copied):
    page = watched.open(copied.url)
    assert page.inner_text("#copies-text") == "copies (5)"
    page.check("#filter-copies")
    rows = page.evaluate(f"Array.from({APP}.rows)")
    assert rows == [0, 1, 4, 7, 9]
    assert page.locator("#conditions button").all_inner_texts() == ["copies \u00d7"]
    page.click("#card-0")
    strip = page.locator("#detail .copies button")
    assert [one.locator(".small").inner_text() for one in strip.all()] == ["another class", ""]
    strip.first.click()
    assert page.evaluate(f"{APP}.state.now.photo") == 1
    page.click("#detail-close")
    lines = list(csv.DictReader(io.StringIO(page.evaluate(f"ElasticExplorer.csv({APP}.store, {APP}.rows)"))))
    assert [line["copies"] for line in lines] == ["1", "1", "1", "2", "2"]
    wait_until(page, "location.hash.includes('copies=1')")
    assert watched.open(page.url).inner_text("#status") == "5 of 60 photos"


def test_where_nothing_is_copied_nothing_is_offered(page):
    assert page.locator("#filter-copies").is_hidden()
    assert (
        page.evaluate("[...document.getElementById('sort-key').options].map((option) => option.value)").count("copies")
        == 0
    )


def test_copies_are_known_by_their_looks():
    """Saved again at half the size and a low quality: a copy. Another photo, mirrored, or brighter: none."""
    rng = np.random.default_rng(0)
    photos = [
        Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((128, 128), Image.Resampling.BICUBIC)
        for _ in range(40)
    ]
    saved = io.BytesIO()
    photos[3].resize((60, 60)).save(saved, "JPEG", quality=50)
    others = [
        Image.open(saved).convert("RGB"), photos[5].transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        photos[6].point(lambda value: min(255, value + 40)), photos[7].filter(ImageFilter.BLUR), photos[3],
    ]  # fmt: skip
    looks = np.stack([look(photo.resize((64, 64))) for photo in photos + others])
    groups = copy_groups(looks, np.ones(len(looks), bool))
    assert np.flatnonzero(groups).tolist() == [3, 7, 40, 43, 44]
    assert groups[[3, 40, 44]].tolist() == [1, 1, 1]
    assert groups[[7, 43]].tolist() == [2, 2]
    known = np.ones(len(looks), bool)
    known[[3, 40]] = False  # photos that could not be read are copies of none
    assert np.flatnonzero(copy_groups(looks, known)).tolist() == [7, 43]
    assert copy_groups(looks[:0], known[:0]).tolist() == []
