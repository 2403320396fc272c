"""`elasticize` takes every convolutional family of timm: one small member each, counted without weights."""

import pytest

from elastic_cnn.analysis import coverage
from elastic_cnn.analysis.coverage import Row, architectures, measure, measure_all, to_markdown

NETWORKS = [
    "botnet26t_256",
    "caformer_s18",
    "coat_lite_mini",
    "coatnet_0_224",
    "convmixer_768_32",
    "convnext_atto",
    "cpubone_b0_bfrobust",
    "csatv2",
    "cspnext_s",
    "cspresnet50",
    "davit_tiny",
    "densenet121",
    "dla46_c",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "efficientnet_lite0",
    "efficientvim_m1",
    "efficientvit_b0",
    "efficientvit_m0",
    "ese_vovnet19b_dw",
    "fasternet_s",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_tiny",
    "ghostnet_050",
    "hardcorenas_b",
    "hgnetv2_b0",
    "hrnet_w18_small",
    "iformer_t",
    "inception_next_atto",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lcnetv2_small",
    "legacy_seresnet18",
    "lowformer_b0",
    "mambaout_femto",
    "mobilenetv3_small_050",
    "mobilenetv5_base",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "nasnetalarge",
    "nextvit_small",
    "nf_resnet26",
    "pnasnet5large",
    "pvt_v2_b0",
    "rdnet_tiny",
    "regnety_002",
    "repghostnet_050",
    "repvgg_a0",
    "repvit_m0_9",
    "res2net50_14w_8s",
    "resnest14d",
    "resnet18",
    "resnetv2_18",
    "rexnet_100",
    "selecsls42",
    "shvit_s1",
    "skresnet18",
    "starnet_s050",
    "swiftformer_s",
    "tiny_vit_11m_224",
    "tresnet_m",
    "twins_pcpvt_small",
    "vgg11",
    "visformer_tiny",
    "vitamin_base_224",
    "volo_d1_224",
    "xception",
    "xception41p",
]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore")  # of foreign networks
def test_family_converts(name):
    row = measure("family", name, run=False)
    assert row is not None, "not convolutional"
    assert row.problem == ""
    assert row.converted > 0
    assert row.parameters_ratio == 1
    assert row.macs_ratio < 1


def test_transformers_are_left_out():
    assert measure("vision_transformer", "vit_tiny_patch16_224", run=False) is None


def test_the_networks_stand_for_the_families():
    families = {name: family for family, name in architectures(families_only=False)}
    assert len({families[name] for name in NETWORKS}) == len(NETWORKS)


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_is_run_is_checked_at_two_sizes_and_exported():
    row = measure("resnet", "resnet10t", run=True)
    assert row is not None
    assert (row.checks, row.problem) == ("176, 145, export", "")


def test_the_page_counts_what_converts():
    rows = [Row("a", "one", 3, 4, "convolution", 1.0, 0.8), Row("b", "two", problem="ValueError: a|b")]
    page = to_markdown(rows, "command", 1.0)
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
