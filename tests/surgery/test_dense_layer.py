"""DenseNet's layer made elastic: the same weights, Equation 3, and timm's own ways with a layer."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_norms import random_norms
from timm.models.densenet import DenseLayer, DenseNet

from elastic_cnn import ElasticSpec, elasticize
from elastic_cnn.surgery.candidates import OF_A_FAMILY
from elastic_cnn.surgery.dense_layer import ElasticDenseLayer, convert_dense_layer

IDENTITY = {"downsample": "identity", "upsample": "identity"}


def make_layer(inputs=6, growth=4, bn_size=4, **options):
    return random_norms(DenseLayer(inputs, growth, bn_size, **options))


@given(
    inputs=st.integers(1, 9),
    growth=st.integers(1, 5),
    bn_size=st.integers(3, 5),
    spec=st.sampled_from(
        [
            ElasticSpec(**IDENTITY),
            ElasticSpec(shares=(0.75, 0.25), **IDENTITY),
            ElasticSpec(scales=(1, 2, 4), shares=(0.5, 0.25, 0.25), **IDENTITY),
        ]
    ),
)
@settings(max_examples=25, deadline=None)
def test_branches_at_full_resolution_are_the_layer_itself(inputs, growth, bn_size, spec):
    layer = make_layer(inputs, growth, bn_size)
    elastic = convert_dense_layer(layer, spec)
    x = torch.randn(2, inputs, 7, 5)
    torch.testing.assert_close(elastic([x]), layer([x]), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in layer.parameters())


@given(height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_equation_3_at_any_size(height, width):
    layer = make_layer()
    x = torch.randn(2, 6, height, width)

    def norm(norm, x):
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()

    inner = norm(layer.norm1, x)
    low = F.avg_pool2d(F.pad(inner, (0, width % 2, 0, height % 2), mode="replicate"), 2)
    y = 0
    for half, h in ((slice(0, 8), inner), (slice(8, 16), low)):
        h = F.conv2d(h, layer.conv1.weight[half])
        h = (h - layer.norm2.running_mean[half, None, None]) / (layer.norm2.running_var + 1e-5)[half, None, None].sqrt()
        h = (h * layer.norm2.weight[half, None, None] + layer.norm2.bias[half, None, None]).relu()
        h = F.conv2d(h, layer.conv2.weight[:, half], padding=1)
        if half.start:
            h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
        y = y + h
    torch.testing.assert_close(convert_dense_layer(layer, ElasticSpec())(x), y, rtol=1e-4, atol=1e-5)


def test_checkpointing_gives_the_same_gradients():
    elastic = convert_dense_layer(make_layer(), ElasticSpec())
    features = [torch.randn(2, 2, 9, 7, requires_grad=True), torch.randn(2, 4, 9, 7, requires_grad=True)]
    gradients = []
    for checkpointing in (False, True):
        elastic.grad_checkpointing = checkpointing
        elastic.zero_grad()
        elastic(features).square().sum().backward()
        gradients.append([p.grad.clone() for p in elastic.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=0)


def test_dropout_follows_the_layer():
    elastic = convert_dense_layer(make_layer(drop_rate=0.5), ElasticSpec()).eval()
    x = torch.randn(4, 6, 16, 16)
    assert not (elastic(x) == 0).any()
    dropped = (elastic.train()(x) == 0).float().mean()
    assert 0.4 < dropped < 0.6  # 4096 coins: five deviations are 0.04


def test_a_network_is_elastic_but_for_its_last_dense_block():
    network = DenseNet(growth_rate=4, block_config=(1, 2, 2, 2), num_classes=3)
    elastic = elasticize(network)
    report = elastic.elastic_report
    assert report.converted == [
        f"features.denseblock{b}.denselayer{i}" for b, n in ((1, 1), (2, 2), (3, 2)) for i in range(1, n + 1)
    ]
    left = {name: why for name, why in report.left.items() if why != OF_A_FAMILY}
    assert left == {f"features.denseblock4.denselayer{i}": "in the last stage" for i in (1, 2)}
    assert isinstance(elastic.features.denseblock1.denselayer1, ElasticDenseLayer)
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in network.parameters())
    elastic.set_grad_checkpointing()
    assert all(m.grad_checkpointing for m in elastic.modules() if isinstance(m, DenseLayer))


def test_a_layer_too_narrow_is_left_with_its_reason():
    with pytest.raises(ValueError, match="1 channels cannot be divided over 2 branches"):
        convert_dense_layer(make_layer(growth=1, bn_size=1), ElasticSpec())
