"""What people do to a network in Python: copies, pickles, functional calls, pictures of activation, frozen parts."""

import copy
import pickle

import pytest
import torch
from random_norms import random_norms
from timm.layers import freeze_batch_norm_2d
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3, freeze
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import create_feature_extractor

import elastic_cnn
from elastic_cnn.analysis.complexity import count
from elastic_cnn.nn.branches import ElasticBranches

NARROW = {"num_classes": 3, "channels": [8, 8, 16, 16], "layers": [2, 1, 1, 1]}
IMAGES = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return random_norms(elastic_cnn.create_model("resnext_small_elastic", **NARROW)).eval()


def test_copies_and_pickles_of_a_network_that_was_used(network):
    network(IMAGES).sum().backward()
    elastic_cnn.scale_policy(network, IMAGES)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(IMAGES), network(IMAGES))
        assert torch.equal(elastic_cnn.scale_policy(other, IMAGES), elastic_cnn.scale_policy(network, IMAGES))


def test_functional_calls_and_maps_over_a_batch(network):
    expected = network(IMAGES)
    weights = {name: parameter.detach() for name, parameter in network.named_parameters()}
    torch.testing.assert_close(torch.func.functional_call(network, weights, (IMAGES,)), expected)
    one_by_one = torch.func.vmap(lambda image: network(image[None])[0])(IMAGES)
    torch.testing.assert_close(one_by_one, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(nn.DataParallel(network)(IMAGES), expected)
    score = torch.func.grad(lambda images: network(images)[0, 1])(IMAGES)
    images = IMAGES.clone().requires_grad_()
    network(images)[0, 1].backward()
    torch.testing.assert_close(score, images.grad)


@pytest.mark.parametrize("kind", [ElasticBranches, nn.Sequential], ids=["branches", "stage"])
def test_hooks_give_what_pictures_of_activation_are_made_of(kind, network):
    """As Grad-CAM takes them: a layer's output, and the score's gradient by it."""
    layer = next(module for module in network.modules() if isinstance(module, kind))
    seen: dict[str, Tensor] = {}
    layer.register_forward_hook(lambda _, __, output: seen.update(output=output))
    layer.register_full_backward_hook(lambda _, __, gradients: seen.update(gradient=gradients[0]))
    images = IMAGES.clone().requires_grad_()
    score = network(images)[:, 1].sum()
    [expected] = torch.autograd.grad(score, seen["output"], retain_graph=True)
    score.backward()
    assert torch.equal(seen["gradient"], expected)
    assert expected.abs().max() > 0


def test_features_by_torchvision(network):
    found = create_feature_extractor(network, {"layer2": "middle", "layer4": "last"})(IMAGES)
    torch.testing.assert_close(network.forward_head(found["last"]), network(IMAGES))


def test_timms_ways_of_freezing_averaging_and_grouping(network):
    freeze(network, ["layer1", "layer2"])
    frozen = freeze_batch_norm_2d(network).train()
    before = {name: tensor.clone() for name, tensor in frozen.named_buffers()}
    frozen(IMAGES).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.named_buffers())
    learning = {name for name, parameter in frozen.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith(("layer1", "layer2")) for name in learning)
    assert {name.split(".")[0] for name in learning} >= {"layer3", "layer4", "fc"}
    groups = param_groups_layer_decay(frozen, layer_decay=0.7)
    assert sum(len(group["params"]) for group in groups) == len(learning)
    ModelEmaV3(frozen).update(frozen)


def test_multiply_adds_are_those_that_torch_counts(network):
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(IMAGES[:1])
    assert count(network, (3, 40, 48)).macs == pytest.approx(counted.get_total_flops() / 2)
