"""A segmentation network's photos in the explorer, from the command line to the pixels on the page. The oracles: its
masks by `segment_photo`, scikit-learn's Jaccard index, and the colours that the page shows."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from explorer_tables import Explorer
from PIL import Image
from sklearn.metrics import jaccard_score
from test_explorer_facets import AXE, serious_faults
from tiny_fpn import TINY_FPN

import elastic_cnn
from elastic_cnn.analysis.segment import segment_photo
from elastic_cnn.cli import main
from elastic_cnn.policy.table import read_policy
from elastic_cnn.surgery import elasticize
from elastic_cnn.tasks.mask_labels import LABELS_KEY
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, load_checkpoint, save_checkpoint
from elastic_cnn.zoo.factory import create_model

CLASSES, VOID = ("ground", "<b>square", "disc"), 9
PALETTE = ((20, 40, 220), (240, 200, 0), (0, 160, 80))
KWARGS = {"num_classes": 3, **TINY_FPN}
FEW = 5


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[Explorer, Path]:
    """The explorer of an untrained elastic network about five photos, one broken besides; and their folder."""
    root, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    for name in ("val", "valannot"):
        (root / "data" / name).mkdir(parents=True)
    for number in range(FEW):
        height, width = ((64, 96), (96, 64))[number % 2]
        mask = rng.integers(0, 3, (height // 16, width // 16)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        mask[:16, :16] = VOID
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "data" / "val" / f"{number}.png")
        Image.fromarray(mask).save(root / "data" / "valannot" / f"{number}.png")
    (root / "data" / "val" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(mask).save(root / "data" / "valannot" / "torn.png")
    torch.manual_seed(3)
    network = elasticize(create_model("smp_fpn", **KWARGS))
    info = {LABELS_KEY: {"void": VOID, "palette": [list(colour) for colour in PALETTE], "test_size": "whole"}}
    card = NetworkCard("smp_fpn", KWARGS, "segmentation", CLASSES, InputSpec((64, 64)), info=info)
    save_checkpoint(root / "net.safetensors", network, card)
    words = ["explore", root / "net.safetensors", "--data", root / "data", "-o", root / "explorer", "--map", "pca"]
    assert main(list(map(str, words))) == 0
    return Explorer(root / "explorer" / "index.html", read_policy(root / "policy")), root


def masks(root: Path, table, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth (255 for void) and prediction, made without the explorer."""
    network, card = load_checkpoint(root / "net.safetensors")
    path = root / "data" / table.column("path")[row]
    with Image.open(path) as photo:
        prediction = segment_photo(network, photo, card.input)
    truth = np.array(Image.open(path.parents[1] / "valannot" / path.name))
    return np.where(truth == VOID, 255, truth), prediction


def test_the_table_tells_what_the_masks_hold(seen):
    explorer, root = seen
    assert len(explorer.table) == FEW
    assert explorer.table.scores.shape[1] > 0
    for row in range(FEW):
        truth, prediction = masks(root, explorer.table, row)
        counted = truth < 255
        there = np.union1d(truth[counted], prediction[counted])
        expected = jaccard_score(truth[counted], prediction[counted], labels=there, average="macro", zero_division=0)
        assert explorer.table.column("iou")[row] == pytest.approx(expected, abs=1e-6)
        assert set(explorer.table.column("label")[row]) == {CLASSES[number] for number in np.unique(truth[counted])}
        assert set(explorer.table.column("prediction")[row]) == {CLASSES[number] for number in np.unique(prediction)}
        assert np.allclose(explorer.table.features[row], np.bincount(prediction.ravel(), minlength=3) / prediction.size)


def test_a_program_gets_the_same_table_and_page(seen):
    explorer, root = seen
    built = elastic_cnn.explore(root / "net.safetensors", root / "data", root / "program")
    assert (built.index.is_file(), built.photos) == (True, FEW)
    table = read_policy(root / "program" / "policy")
    for name in ("path", "prediction", "iou", "confidence"):
        assert table.column(name) == explorer.table.column(name)
    assert sorted((root / "program" / "policy" / "masks").iterdir()) != []
    net = root / "net.safetensors"
    with pytest.raises(ValueError, match="against is for classifiers"):
        elastic_cnn.explore(net, root / "data", root / "other", against=net)


def blended(photo: np.ndarray, mask: np.ndarray, palette) -> np.ndarray:
    """The colours of a mask, laid over a photo with 0.6; 255 shows the photo alone."""
    colours = np.array([*palette, *[(0, 0, 0)] * (256 - len(palette))])[mask]
    return np.where((mask == 255)[..., None], photo, 0.6 * colours + 0.4 * photo)


def test_masks_lie_over_the_photo_with_their_legend(seen, watched):
    explorer, root = seen
    page = watched.open(f"{explorer.url}#photo=1")
    truth, prediction = masks(root, explorer.table, 1)
    with Image.open(root / "data" / explorer.table.column("path")[1]) as file:
        photo = np.array(file).astype(float)
    wrong = np.where((truth == 255) | (truth == prediction), 255, 0)
    expected = {
        "truth": blended(photo, truth, PALETTE),
        "prediction": blended(photo, prediction, PALETTE),
        "errors": blended(photo, wrong, [(214, 40, 57)]),
        "none": photo,
    }
    assert page.get_attribute("#overlay-prediction", "aria-pressed") == "true"
    for kind, pixels in expected.items():
        page.click(f"#overlay-{kind}")
        page.evaluate("Promise.all([...document.querySelectorAll('.framed img')].map((image) => image.decode()))")
        shot = Image.open(io.BytesIO(page.locator("#detail .framed").screenshot())).convert("RGB")
        # a block of 16 pixels of the mask after the other, by its mean: the picture is reduced by WebP
        blocks = np.array(shot.resize((truth.shape[1] // 16, truth.shape[0] // 16), Image.Resampling.BOX))
        means = pixels.reshape(truth.shape[0] // 16, 16, truth.shape[1] // 16, 16, 3).mean((1, 3))
        assert np.abs(blocks - means).mean() < 12, kind
    page.click("#overlay-truth")
    swatches = page.locator("#detail .mask-legend li")
    assert swatches.all_inner_texts() == explorer.table.column("label")[1]
    colours = swatches.locator("i").evaluate_all("list => list.map((item) => getComputedStyle(item).backgroundColor)")
    names = [CLASSES.index(name) for name in explorer.table.column("label")[1]]
    assert colours == [f"rgb({', '.join(map(str, PALETTE[number]))})" for number in names]
    assert f"{100 * explorer.table.column('iou')[1]:.1f}%" in page.inner_text("#detail .facts")


def test_the_keyboard_turns_masks_and_the_choice_stays(seen, watched):
    explorer, _ = seen
    page = watched.open(f"{explorer.url}#photo=0")
    pressed = "document.querySelector('.overlays [aria-pressed=true]').id"
    for kind in ("errors", "none", "truth"):
        page.keyboard.press("o")
        assert page.evaluate(pressed) == f"overlay-{kind}"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("ElasticExplorer.app.state.now.photo") == 1
    assert page.evaluate(pressed) == "overlay-truth"
    page.locator("#overlay-errors").focus()
    page.keyboard.press("Enter")
    assert page.locator("#detail .mask-legend li").all_inner_texts() == ["wrong class"]
    page.keyboard.press("Escape")
    page.select_option("#sort-key", "iou")
    order = np.argsort(np.array(explorer.table.column("iou"), np.float32), kind="stable")
    assert page.evaluate("Array.from(ElasticExplorer.app.rows)") == order.tolist()


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: `make eslint` installs it where npm is at hand")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_with_masks(browser, seen, scheme):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{seen[0].url}#photo=2")
    page.wait_for_selector("html[data-ready='1']")
    assert serious_faults(page) == []
    context.close()


def test_a_second_time_the_masks_are_there_already(seen, tmp_path, capsys, monkeypatch):
    _, root = seen
    monkeypatch.setattr("elastic_cnn.analysis.segment_answers._predict", None)  # asks the network nothing
    words = ["explore", root / "net.safetensors", "--data", root / "data", "-o", tmp_path / "again", "--map", "pca"]
    assert main(list(map(str, words))) == 0
    assert (tmp_path / "again" / "masks" / "errors" / "0000" / f"{FEW - 1:07d}.png").is_file()
    words[words.index("-o") + 1] = tmp_path / "both"
    assert main([*map(str, words), "--against", str(root / "net.safetensors")]) == 2
    assert "a segmentation network is looked at alone" in capsys.readouterr().err
