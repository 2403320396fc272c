"""ResNet-50 v1 against timm's ResNet-50 changed by hand, and through checkpoints."""

import pytest
import timm
import torch
from torch import nn

from elastic_cnn import create_model, elasticize
from elastic_cnn.zoo.checkpoint import NetworkCard, load_checkpoint, save_checkpoint

SMALL = {"layers": (2, 2, 2, 1), "channels": (8, 16, 16, 16), "stem_width": 8, "num_classes": 5}


def by_hand(**kwargs) -> nn.Module:
    network = timm.create_model("resnet50", **kwargs)
    for stage in (network.layer2, network.layer3, network.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    return network


def stir(network: nn.Module) -> nn.Module:
    """Random norms: timm's initial ones close every block's residual branch."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize("kwargs", [{}, {"output_stride": 16}])
def test_the_function_is_that_of_timms_network_changed_by_hand(kwargs):
    ours = stir(create_model("resnet50_v1", **SMALL, **kwargs))
    images = torch.randn(2, 3, 70, 45)
    if not kwargs:
        reference = by_hand(**SMALL).eval()
        reference.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(images), reference(images), rtol=0, atol=0)
    assert ours.forward_features(images).shape[-2:] == ((5, 3) if kwargs else (3, 2))
    with pytest.raises(TypeError):
        create_model("resnet50_v1", strides=2)


def test_the_elastic_one_is_the_plain_one_made_elastic(tmp_path):
    plain = stir(create_model("resnet50_v1", **SMALL))
    elastic = elasticize(plain)
    named = create_model("resnet50_v1_selastic", **SMALL).eval()
    named.load_state_dict(elastic.state_dict())
    images = torch.randn(2, 3, 64, 64)
    expected = elastic(images)
    assert not torch.allclose(expected, plain(images))
    torch.testing.assert_close(named(images), expected, rtol=0, atol=0)
    assert len(elastic.elastic_report.converted) == 2 + 1 + 1

    for name, network in (("resnet50_v1", elastic), ("resnet50_v1_selastic", named)):
        save_checkpoint(tmp_path / f"{name}.safetensors", network, NetworkCard(name, {**SMALL}))
        loaded, _ = load_checkpoint(tmp_path / f"{name}.safetensors")
        torch.testing.assert_close(loaded(images), expected, rtol=0, atol=0)
