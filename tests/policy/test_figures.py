"""What the figures show: orders, colours and places, read back from the drawn artists and files."""

import re

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.stats import spearmanr

from elastic_cnn.policy.figures import (
    PhotoPolicy,
    draw_all,
    extreme_photos,
    figure_block_maps,
    figure_categories,
    figure_gain_density,
    figure_photo_map,
    figure_photos,
    figure_sizes,
    policy_by_size,
    save,
    sort_categories,
)
from elastic_cnn.policy.figures.style import plain, thumbnail
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.policy.table import PolicyInfo, PolicyTable, read_policy, write_part

BLOCKS = tuple(BlockInfo(f"layer{s}.{b}", (1, 2), s, 32 >> s, 32 >> s) for s in (1, 2) for b in range(2))
CLASSES = ("ant", "bee $x$", "c<at>", "dog")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> PolicyTable:
    """80 images of 4 classes; class k's scores are about k at every block, the last block follows object size."""
    rng, rows = np.random.default_rng(0), []
    for number in range(80):
        kind = number % 4
        scores = kind + rng.normal(0, 0.1, len(BLOCKS))
        size = float(np.exp(rng.uniform(1, 4)))
        scores[3] = -size
        rows.append(
            {"id": number, "path": f"{number}.png", "label": CLASSES[kind], "prediction": CLASSES[kind],
             "confidence": 0.9, "correct": True, "base_prediction": CLASSES[0], "base_confidence": 0.5,
             "base_correct": kind != 3, "object_sizes": [size] if number < 70 else None, "scores": scores}
        )  # fmt: skip
    path = tmp_path_factory.mktemp("table") / "policy.parquet"
    write_part(path, rows, PolicyInfo("classification", CLASSES, BLOCKS, against="base", size_unit="pixels"))
    return read_policy(path)


def open_photo(row):
    """A photo whose colour tells its row; row 5 cannot be read."""
    return None if row == 5 else Image.new("RGB", (20, 12), (3 * row, 255 - 3 * row, 7))


def texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def test_categories_are_sorted_by_mean_score(table):
    categories = sort_categories(table)
    means = {name: table.scores[i::4].mean() for i, name in enumerate(CLASSES)}
    assert [category.name for category in categories] == sorted(means, key=means.get)
    for category in categories:
        assert category.mean == pytest.approx(means[category.name], rel=1e-5)
        values = table.scores[category.rows].mean(axis=1)
        assert category.interval == pytest.approx(1.96 * values.std(ddof=1) / np.sqrt(20), rel=1e-4)


def test_the_category_figure_draws_them_in_order_with_photos_at_both_ends(table):
    figure = figure_categories(table, open_photo, ends=1, photos=2)
    axes = next(axes for axes in figure.findobj(lambda a: hasattr(a, "get_yticklabels")) if axes.collections)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [plain(category.name) for category in sort_categories(table)]
    drawn = np.array(axes.collections[-1].get_offsets())
    assert (np.diff(drawn[:, 0]) > 0).all()
    pictures = [axes.images[0].get_array() for axes in figure.findobj(lambda a: getattr(a, "images", None))]
    assert len(pictures) == 4
    rows = [int(picture[0, 0, 0]) // 3 for picture in pictures]
    ends = [category.name for category in sort_categories(table)]
    assert [CLASSES[row % 4] for row in rows] == [ends[0]] * 2 + [ends[-1]] * 2


def test_many_categories_become_a_curve(table):
    rows = table.rows.set_column(2, "label", [[f"class {number // 2}" for number in range(80)]])
    names = figure_categories(PolicyTable(table.info, rows), open_photo)
    assert "40 categories" not in " ".join(texts(names))
    rows = table.rows.set_column(2, "label", [[f"class {number}" for number in range(80)]])
    curve = figure_categories(PolicyTable(table.info, rows), open_photo)
    assert any("80 categories" in text for text in texts(curve))


def test_photo_bars_are_deviations_from_the_mean(table):
    photos = [PhotoPolicy(open_photo(row), table.scores[row], f"photo {row}") for row in (0, 3)]
    figure = figure_photos(photos, BLOCKS, table.scores)
    expected = (table.scores[[0, 3]] - table.scores.mean(0)) / table.scores.std(0)
    charts = [axes for axes in figure.axes if axes.patches]
    for axes, values in zip(charts, expected, strict=True):
        bars = [p for p in axes.patches if isinstance(p, Rectangle) and p.get_width() < 0.8]  # spans: by version
        np.testing.assert_allclose([bar.get_height() for bar in bars], values, rtol=1e-4, atol=1e-5)
    assert {"photo 0", "photo 3", "layer2.1"} <= set(texts(figure))
    with pytest.raises(ValueError, match="do not fit"):
        figure_photos([PhotoPolicy(open_photo(0), np.zeros(3))], BLOCKS)
    with pytest.raises(ValueError, match="at least one photo"):
        figure_photos([], BLOCKS)


def test_extremes_are_the_finest_then_the_coarsest(table):
    found = extreme_photos(table, open_photo, count=2)
    relative = ((table.scores - table.scores.mean(0)) / table.scores.std(0)).mean(1)
    order = np.argsort(-relative)
    for photo, row in zip(found, [*order[:2], *order[-2:]], strict=True):
        np.testing.assert_array_equal(photo.scores, table.scores[row])


def test_block_maps_show_each_blocks_scores_at_the_coordinates(table):
    coordinates = np.random.default_rng(1).normal(size=(80, 2))
    figure = figure_block_maps(table, coordinates)
    maps = [axes for axes in figure.axes if axes.collections and axes.get_title()]
    assert [axes.get_title().split()[0] for axes in maps] == [block.name for block in BLOCKS]
    for axes, scores in zip(maps, table.scores.T, strict=True):
        np.testing.assert_allclose(axes.collections[0].get_offsets(), coordinates, rtol=1e-6)
        shades = np.asarray(axes.collections[0].get_array())
        inside = (shades > 0) & (shades < 1)
        assert inside.sum() >= 70
        assert spearmanr(shades[inside], scores[inside]).statistic == pytest.approx(1)


def test_the_photo_map_places_photos_by_their_coordinates():
    coordinates = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0], [0.01, 0.0]])
    image = figure_photo_map(coordinates, lambda row: open_photo(row + 10), cells=10, side=8).axes[0].images[0]
    picture = np.asarray(image.get_array())  # (H, W, 3), top first
    height, width = picture.shape[:2]
    corners = [picture[height - 5, 3], picture[height - 5, width - 5], picture[3, 3], picture[3, width - 5]]
    assert [int(corner[0]) // 3 - 10 for corner in corners] == [0, 1, 2, 3]
    assert (picture[height // 2, width // 2] == 255).all()


def test_gain_is_drawn_where_the_gained_images_lie(table):
    """Class 3 is gained; it lies to the right."""
    rng = np.random.default_rng(2)
    kinds = np.arange(80) % 4
    coordinates = rng.normal(0, 0.4, (80, 2)) + np.stack([10 * (kinds == 3), np.zeros(80)], axis=1)
    figure = figure_gain_density(table, coordinates)
    everything, gains, ratio = [axes.images[0].get_array() for axes in figure.axes if axes.images][:3]
    half = gains.shape[1] // 2
    assert gains[:, half:].sum() > 50 * gains[:, :half].sum()
    assert everything[:, :half].sum() > 2 * everything[:, half:].sum()
    place = np.unravel_index(np.argmax(gains), gains.shape)
    assert ratio[place] > 0.5  # more than 1.4 times as often as on average
    assert np.ma.min(ratio[:, :half]) < 0
    assert any("20 that Elastic gets right" in text for text in texts(figure))


def test_few_gained_images_are_marked_one_by_one(table):
    rows = table.rows.slice(0, 20)
    few = PolicyTable(table.info, rows)
    coordinates = np.random.default_rng(3).normal(size=(20, 2))
    marked = figure_gain_density(few, coordinates).axes[1].collections[1]
    np.testing.assert_allclose(marked.get_offsets(), coordinates[3::4], rtol=1e-6)


def test_sizes_correlate_as_scipy_says(table):
    found = policy_by_size(table)
    assert found.rows.tolist() == list(range(70))
    assert found.correlation[3] == pytest.approx(-1)
    sizes = [value[0] for value in table.column("object_sizes")[:70]]
    assert found.correlation[0] == pytest.approx(spearmanr(sizes, table.scores[:70, 0]).statistic)
    figure = figure_sizes(table)
    widths = [patch.get_width() for patch in figure.axes[1].patches]
    np.testing.assert_allclose(widths, found.correlation)
    with pytest.raises(ValueError, match="known for 0 images"):
        policy_by_size(PolicyTable(table.info, table.rows.slice(70)))


def test_all_figures_are_written_and_equal_each_time(table, tmp_path):
    notes = []
    first = draw_all(table, tmp_path / "a", open_photo, note=notes.append)
    names = [
        "figure1_photos",
        "figure5_categories",
        "figure6_blocks",
        "figure6_gain",
        "figure6_photos",
        "policy_by_size",
    ]
    assert [path.name for path in first] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert notes == []
    for path in first:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("L"))
            assert min(pixels.shape) > 150
            assert pixels.std() > 10  # something is drawn
    svg = (tmp_path / "a" / "figure5_categories.svg").read_text()
    assert "c&lt;at&gt;" in svg  # names are text, never markup, and never formulas
    assert "bee $x$" in svg
    assert not re.search(r"(href|src)=\"(?!#|data:)", svg)  # nothing is loaded from elsewhere
    for other in draw_all(table, tmp_path / "b", open_photo, formats=("svg",)):
        assert other.read_bytes() == (tmp_path / "a" / other.name).read_bytes(), other.name


def test_what_a_table_does_not_allow_is_left_out_and_said(table, tmp_path):
    notes = []
    small = PolicyTable(table.info, table.rows.slice(70, 3))
    written = draw_all(small, tmp_path, None, formats=("png",), note=notes.append)
    assert [path.name for path in written] == ["figure5_categories.png"]
    assert len(notes) == 2
    assert "needs 5" in notes[0]
    assert "object sizes are known for 0 images" in notes[1]


def test_photos_that_are_gone_are_said_and_left_out(table, tmp_path):
    notes = []
    written = draw_all(table, tmp_path, lambda row: None, formats=("png",), note=notes.append)
    names = ["figure5_categories", "figure6_blocks", "figure6_gain", "policy_by_size"]
    assert [path.stem for path in written] == names
    assert notes == ["no photos in the figures: none was found in "]


def test_one_image_in_all_formats(table, tmp_path):
    files = save(figure_sizes(table), tmp_path / "figure", ("png", "svg", "pdf"))
    assert [path.read_bytes()[:5] for path in files] == [b"\x89PNG\r", b"<?xml", b"%PDF-"]


def test_text_is_drawn_character_by_character():
    assert plain("a\n$b$\x1b[0m") == "a \\$b\\$\N{REPLACEMENT CHARACTER}[0m"
    assert plain("x" * 50, 10) == "x" * 9 + "…"
    assert thumbnail(Image.new("L", (30, 10), 9), 4).shape == (4, 4, 3)
