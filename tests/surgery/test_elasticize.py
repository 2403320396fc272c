"""Surgery on the ResNet family: what is converted, that nothing is lost, and that the result is Equation 3."""

import functools

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from random_norms import random_norms
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from elastic_cnn import ElasticSpec, create_model, elasticize
from elastic_cnn.nn.compare import relative_error
from elastic_cnn.surgery import apply_surgery, describe_surgery
from elastic_cnn.surgery.residual import ElasticResidual
from elastic_cnn.surgery.specs import describe_spec, read_spec

IDENTITY = ElasticSpec(downsample="identity", upsample="identity")
SMALL = {"layers": (2, 2, 2, 1), "channels": (16, 32, 64, 64), "num_classes": 5, "stem_width": 16}
FAMILIES = {
    "resnet18": {**SMALL},
    "resnet50": {**SMALL},
    "resnext50_32x4d": {**SMALL, "cardinality": 4, "base_width": 16},
    "seresnext50_32x4d": {**SMALL, "cardinality": 4, "base_width": 16},
    "resnet50d": {**SMALL},
    "ecaresnet50t": {**SMALL},
    "resnet50_gn": {**SMALL, "channels": (32, 32, 64, 64)},  # 32 groups
    "resnetblur50": {**SMALL},
}


def macs(network: nn.Module, size: int = 64) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", FAMILIES)
def test_division_keeps_every_number(name):
    network = random_norms(timm.create_model(name, **FAMILIES[name]))
    x = torch.randn(2, 3, 65, 50)
    with torch.no_grad():
        same = elasticize(network, IDENTITY)
        # float32 sums in another order over a dozen layers: errors stay near 1e-6
        assert relative_error(same(x), network(x)) < 1e-5
        elastic = elasticize(network)
        assert relative_error(elastic(x), network(x)) > 1e-3
    values = sorted(tensor.sum().item() for tensor in network.parameters())
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in network.parameters())
    assert sum(p.double().sum() for p in elastic.parameters()).item() == pytest.approx(sum(values), rel=1e-4)
    assert macs(elastic) < 0.95 * macs(network)


@pytest.mark.parametrize(
    ("block", "options"),
    [
        (torchvision.models.resnet.BasicBlock, {}),
        (torchvision.models.resnet.Bottleneck, {"groups": 4, "width_per_group": 8}),
    ],
)
def test_torchvision(block, options):
    network = random_norms(torchvision.models.ResNet(block, [2, 2, 1, 1], num_classes=5, **options))
    x = torch.randn(1, 3, 65, 64)
    with torch.no_grad():
        assert relative_error(elasticize(network, IDENTITY)(x), network(x)) < 1e-5
        assert elasticize(network)(x).isfinite().all()


def test_eligibility_is_by_place():
    network = timm.create_model("resnext50_32x4d", **FAMILIES["resnext50_32x4d"])
    report = elasticize(network).elastic_report
    assert report.converted == ["layer1.0", "layer1.1", "layer2.1", "layer3.1"]
    assert report.left == {
        "conv1": "part of a family whose blocks alone are converted",
        "layer2.0": "changes the resolution",
        "layer3.0": "changes the resolution",
        "layer4.0": "in the last stage",
    }
    dilated = timm.create_model("resnext50_32x4d", output_stride=8, **FAMILIES["resnext50_32x4d"])
    assert elasticize(dilated).elastic_report.converted == report.converted
    assert "4 of 7 blocks are elastic (4 bottleneck)" in str(report)
    assert not any(isinstance(module, ElasticResidual) for module in network.modules()), "the original was changed"


def test_where_and_stages_narrow_and_widen():
    network = timm.create_model("resnet18", **SMALL)
    assert elasticize(network, where=lambda name, _: name.endswith(".1")).elastic_report.converted == [
        "layer1.1",
        "layer2.1",
        "layer3.1",
    ]
    assert elasticize(network, stages=[2]).elastic_report.converted == ["layer2.1"]
    deeper = timm.create_model("resnet18", **{**SMALL, "layers": (1, 1, 1, 2)})
    assert elasticize(deeper, stages=[4]).elastic_report.converted == ["layer4.1"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"stages": [9]}, r"no stage \[9\]"), ({"where": lambda name, block: False}, "excluded by where")],
)
def test_nothing_to_convert_is_an_error(arguments, word):
    with pytest.raises(ValueError, match=word):
        elasticize(timm.create_model("resnet18", **SMALL), **arguments)


def test_unknown_and_repeated_surgery_are_errors():
    with pytest.raises(ValueError, match="Linear has no block"):
        elasticize(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="elastic already"):
        elasticize(elasticize(timm.create_model("resnet18", **SMALL)))


def test_too_few_groups_are_reported():
    network = timm.create_model("resnext50_32x4d", **{**SMALL, "cardinality": 2, "base_width": 32})
    spec = ElasticSpec(scales=(1, 2, 4), shares=(0.4, 0.3, 0.3))
    with pytest.raises(ValueError, match="2 groups cannot be divided over 3 branches"):
        elasticize(network, spec, convolutions=False)
    report = elasticize(network, spec).elastic_report  # then one convolution at a time
    assert "layer1.0.conv1" in report.converted
    assert report.left["layer1.0"] == "2 groups cannot be divided over 3 branches"


@functools.cache
def trained_at_any_size(name: str, shares: tuple[float, float]) -> nn.Module:
    return elasticize(timm.create_model(name, **FAMILIES[name]), ElasticSpec(shares=shares)).train()


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(33, 90),
    width=st.integers(33, 90),
    shares=st.sampled_from([(0.5, 0.5), (0.75, 0.25), (0.25, 0.75)]),
    name=st.sampled_from(["resnet18", "resnext50_32x4d"]),
)
def test_any_size_and_share(height, width, shares, name):
    network = trained_at_any_size(name, shares)
    network.zero_grad()
    network(torch.randn(2, 3, height, width)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_more_low_resolution_costs_less():
    network = timm.create_model("resnext50_32x4d", **FAMILIES["resnext50_32x4d"])
    costs = [
        macs(elasticize(network, ElasticSpec(shares=shares))) for shares in ((0.75, 0.25), (0.5, 0.5), (0.25, 0.75))
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] < macs(network)


def test_surgery_can_be_done_again_from_its_description():
    network = timm.create_model("resnext50_32x4d", **FAMILIES["resnext50_32x4d"])
    elastic = elasticize(network, ElasticSpec(shares=(0.75, 0.25)), where=lambda name, _: name != "layer1.0").eval()
    again = apply_surgery(network, describe_surgery(elastic)).eval()
    again.load_state_dict(elastic.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), elastic(x))
    with pytest.raises(ValueError, match=r"no block layer1\.7"):
        apply_surgery(
            timm.create_model("resnet18", **SMALL), {**describe_surgery(elastic), "blocks": ["layer1.0", "layer1.7"]}
        )


def test_training_mode_meta_device_and_dtype_carry_over():
    network = elasticize(timm.create_model("resnet18", **SMALL).eval())
    assert not any(module.training for module in network.modules())
    with torch.device("meta"):
        meta = timm.create_model("resnet18", dtype=torch.float64, **SMALL)
    meta = elasticize(meta, ElasticSpec(downsample="trained", upsample="trained"))
    assert {(p.device.type, p.dtype) for p in meta.parameters()} == {("meta", torch.float64)}


FIELDS = {"scales": [1, 2], "shares": [0.25, 0.75]}


@pytest.mark.parametrize("spec", [FIELDS, {1: FIELDS, "2": ElasticSpec()}, {1: ElasticSpec(shares=(0.25, 0.75))}])
@pytest.mark.parametrize("name", ["resnext_small_elastic", "densenet_small_elastic"])
def test_one_reader_of_specs_serves_every_network(name, spec):
    network = create_model(name, num_classes=2, spec=spec)
    found = {conversion.spec.shares for conversion in network.elastic_report.conversions.values()}
    assert found == ({(0.25, 0.75)} if spec is FIELDS or len(spec) == 1 else {(0.25, 0.75), (0.5, 0.5)})
    assert read_spec(describe_spec(network.elastic_spec)) == network.elastic_spec


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"share": (0.5, 0.5)}, "unknown fields of an elastic spec: 'share'"),
        ({1: FIELDS, "layer1.0": FIELDS}, "by numbers of stages or by names of blocks, not by both"),
        ({1: {2: FIELDS}}, "the spec of 1 holds specs again"),
        ({1.5: FIELDS}, r"not by 1\.5"),
        ([0.5, 0.5], "a spec is an ElasticSpec"),
        ({}, "a spec is an ElasticSpec"),
        ({"shares": 3}, "not an elastic spec"),
    ],
)
def test_what_is_no_spec_is_said(spec, word):
    with pytest.raises(ValueError, match=word):
        elasticize(timm.create_model("resnet18", **SMALL), spec)
