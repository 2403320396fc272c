"""Pictures of masks: values kept, colours as given, layout of sheets."""

import numpy as np
from PIL import Image

from elastic_cnn.data.mask_pictures import GAP, colour_mask, contact_sheet, overlay, save_picture, side_by_side

PALETTE = ((10, 20, 30), (200, 100, 0))
MASK = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)


def test_a_coloured_mask_keeps_its_numbers_in_the_file(tmp_path):
    path = save_picture(colour_mask(MASK, PALETTE), tmp_path / "mask.png")
    with Image.open(path) as picture:
        assert np.array_equal(np.array(picture), MASK)
        colours = np.array(picture.convert("RGB"))
    expected = [[(10, 20, 30), (200, 100, 0), (0, 0, 0)], [(200, 100, 0), (200, 100, 0), (10, 20, 30)]]
    assert colours.tolist() == np.array(expected).tolist()


def test_an_overlay_lies_between_photo_and_colours():
    photo = Image.new("RGB", (3, 2), (100, 100, 100))
    colours = np.array(colour_mask(MASK, PALETTE).convert("RGB"), float)
    assert np.array_equal(np.array(overlay(photo, MASK, PALETTE, 0.0)), np.full((2, 3, 3), 100))
    assert np.array_equal(np.array(overlay(photo, MASK, PALETTE, 1.0)), colours)
    half = np.array(overlay(photo, MASK, PALETTE, 0.5))
    assert np.abs(half - (100 + colours) / 2).max() <= 1  # rounding


def test_side_by_side_places_each_picture():
    row = np.array(side_by_side([Image.new("RGB", (3, 2), "red"), Image.new("RGB", (4, 2), "blue")]))
    assert row.shape == (2, 3 + GAP + 4, 3)
    assert (row[:, :3] == (255, 0, 0)).all()
    assert (row[:, 3 : 3 + GAP] == 255).all()
    assert (row[:, 3 + GAP :] == (0, 0, 255)).all()


def test_a_contact_sheet_stacks_rows_above_a_legend_with_every_colour():
    photo = Image.new("RGB", (150, 40), (1, 2, 3))
    sheet = np.array(contact_sheet([[photo, photo], [photo, photo]], ("sky", "pole"), PALETTE))
    assert sheet.shape[1] == 2 * 150 + GAP
    assert (sheet[:40, :150] == (1, 2, 3)).all()
    assert (sheet[40 + GAP : 80 + GAP, -150:] == (1, 2, 3)).all()
    legend = sheet[80 + 2 * GAP :].reshape(-1, 3)
    for colour in PALETTE:
        assert (legend == colour).all(1).sum() > 50
