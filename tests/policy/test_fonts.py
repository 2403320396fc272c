"""Labels in other scripts: fonts of the machine that show them, or one line that says which none does."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from elastic_cnn import fonts
from elastic_cnn.data import left_out, mask_pictures
from elastic_cnn.policy.figures import style

DOG, RUSSIAN = "\N{CJK UNIFIED IDEOGRAPH-72AC}", "\u0441\u043e\u0431\u0430\u043a\u0430"


@pytest.fixture(autouse=True)
def one_font_more(monkeypatch):
    """A machine whose usual font lacks Cyrillic, with another that shows it, and none for Chinese."""
    monkeypatch.setattr(left_out, "_said", set())
    usual, other = (("DejaVu Sans", "usual"), ("DejaVu Serif", "other"))
    latin, cyrillic = frozenset(map(chr, range(32, 0x250))), frozenset(RUSSIAN)
    monkeypatch.setattr(fonts, "_fonts", lambda: [usual, other])
    monkeypatch.setattr(fonts, "_characters", lambda file: latin if file == "usual" else cyrillic)


def test_the_fewest_fonts_that_show_a_text():
    assert fonts.fonts_with("dog") == ([("DejaVu Sans", "usual")], "")
    assert fonts.fonts_with(RUSSIAN) == ([("DejaVu Serif", "other")], "")
    found, lacking = fonts.fonts_with(f"dog {RUSSIAN} {DOG}")
    assert sorted(found) == [("DejaVu Sans", "usual"), ("DejaVu Serif", "other")]
    assert lacking == DOG


@pytest.mark.parametrize(
    ("label", "families", "said"), [("dog", None, 0), (RUSSIAN, "DejaVu Serif", 0), (DOG, None, 1)]
)
def test_figures_use_them_and_say_what_no_font_shows_once(label, families, said, tmp_path, capsys):
    for number in range(2):
        with style.style():
            figure = style.new_figure(3, 2)
            axes = figure.subplots()
            axes.set_yticks([0, 1], [label, "b"])
        style.save(figure, tmp_path / f"{number}")  # and no warning of matplotlib's, which would be an error here
    used = {family for text in axes.get_yticklabels() for family in text.get_fontfamily()}
    assert (families in used) if families else used == {"sans-serif"}
    assert capsys.readouterr().err.count(f"no font of this machine shows {DOG}") == said
    assert label in (tmp_path / "0.svg").read_text(encoding="utf-8")


def test_legends_of_masks_say_it_too(capsys, monkeypatch):
    rows = [[mask_pictures.colour_mask(np.zeros((20, 40)), [(255, 0, 0)])]]
    mask_pictures.contact_sheet(rows, ["sky"], [(255, 0, 0)])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(fonts, "_fonts", list)
    sheet = mask_pictures.contact_sheet(rows, [DOG], [(255, 0, 0)])
    assert sheet.height > 20
    assert "no font of this machine shows all of" in capsys.readouterr().err
