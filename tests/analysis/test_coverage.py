"""`elasticize` takes every convolutional family of timm: one small member each, counted without weights."""

import pytest

from elastic_cnn.analysis import coverage
from elastic_cnn.analysis.coverage import SMALL, Row, architectures, measure, measure_all, to_markdown

EXPORTED = (  # one for each way of being made elastic; `make coverage` exports all of SMALL
    "repvgg_a0", "convnext_atto", "dla46_c", "resnet18", "resnetv2_18", "regnety_002", "mobilenetv3_small_050",
    "starnet_s050",
)  # fmt: skip
RUN = (  # beside them; others are counted here, and run by `make coverage`
    "coat_lite_mini", "cspnext_s", "cspresnet50", "edgenext_xx_small", "efficientformerv2_s0", "efficientnet_lite0",
    "efficientvit_b0", "ese_vovnet19b_dw", "ghostnet_050", "hardcorenas_b", "hgnetv2_b0", "inception_next_atto",
    "legacy_seresnet18", "levit_conv_128s", "mambaout_femto", "mobilevit_xxs", "nf_resnet26", "pvt_v2_b0",
    "resnest14d", "rexnet_100", "shvit_s1", "skresnet18", "swiftformer_s", "visformer_tiny",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("nasnetalarge", "pnasnet5large")])  # 20 s
@pytest.mark.filterwarnings("ignore")  # of foreign networks
def test_family_converts_trains_and_exports(name):
    """Outputs and gradients at the network's own size and at an odd one, where its base takes that."""
    row = measure("family", name, run=name in EXPORTED + RUN, export=name in EXPORTED)
    assert row is not None, "not convolutional"
    assert row.converted > 0
    assert row.parameters_ratio == 1
    assert row.macs_ratio < 1
    if name not in EXPORTED + RUN:
        assert row.problem == ""
        return
    passed = row.checks.split(", ")
    if name in EXPORTED:
        assert passed.pop() == "export"
    assert len(passed) == 2 or (len(passed) == 1 and row.problem.endswith("the base fails here as well")), row.problem


def test_transformers_are_left_out():
    assert measure("vision_transformer", "vit_tiny_patch16_224", run=False) is None


def test_the_networks_stand_for_the_families():
    families = {name: family for family, name in architectures()}
    assert not {"resnext50_elastic", "resnext_small_octave", "resnext_small_elastic_pooled"} & families.keys()
    assert len({families[name] for name in SMALL}) == len(SMALL)


def test_the_page_counts_what_converts():
    rows = [Row("a", "one", 3, 4, "convolution", 1.0, 0.8), Row("b", "two", problem="ValueError: a|b")]
    page = to_markdown(rows, "command")
    assert "1 of 2 architectures convert (50.0%)" in page
    assert "| b | two | 0 / 0 | - | - | - | - | ValueError: a/b |" in page


def test_an_interrupted_table_goes_on_where_it_was(tmp_path, monkeypatch):
    kept, measured = tmp_path / "rows.jsonl", []

    def measure_once(family, name, run):
        measured.append(name)
        if name == "c":
            raise KeyboardInterrupt
        return None if name == "b" else Row(family, name, 3, 4)

    monkeypatch.setattr(coverage, "measure", measure_once)
    names = [("f", name) for name in "abcd"]
    with pytest.raises(KeyboardInterrupt):
        measure_all(names, False, kept)
    monkeypatch.setattr(coverage, "measure", lambda family, name, run: measured.append(name) or Row(family, name, 1, 2))
    rows = measure_all(names, False, kept)
    assert measured == ["a", "b", "c", "c", "d"]
    assert [(row.name, row.converted) for row in rows] == [("a", 3), ("c", 1), ("d", 1)]


def test_a_new_table_keeps_what_is_told_of_other_libraries(tmp_path, monkeypatch):
    page, mark = tmp_path / "coverage.md", coverage.OTHER_LIBRARIES
    page.write_text(
        f"# Which networks become elastic\n\nold\n\n{mark}\n\n## Networks of other libraries\n\n12 networks\n"
    )
    monkeypatch.setattr(coverage, "architectures", lambda: [("resnet", "resnet18")])
    monkeypatch.setattr(coverage, "measure", lambda family, name, run: Row(family, name, 1, 2))
    monkeypatch.setattr("sys.argv", ["coverage", str(page)])
    for _ in range(2):
        coverage.main()
        text = page.read_text()
        assert "| resnet | resnet18 | 1 / 2 |" in text
        assert "old" not in text
        assert text.endswith(f"\n\n{mark}\n\n## Networks of other libraries\n\n12 networks\n")
