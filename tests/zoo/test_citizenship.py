"""Our networks offer what timm's networks offer: features, heads, parameter groups, checkpointing, devices, dtypes."""

import copy
import math

import pytest
import timm
import torch
from citizens import CLASSES, FAMILIES, NAMES, SMALL, build, gradients, images
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from torch import nn


@pytest.mark.parametrize("name", NAMES)
def test_features_only_computes_the_networks_own_features(name: str) -> None:
    network = build(name)
    extractor = timm.create_model(name, features_only=True, **SMALL[name]).eval()
    named = {key.replace("features.", "features_"): value for key, value in network.state_dict().items()}
    result = extractor.load_state_dict(named, strict=False)
    assert result.missing_keys == []
    x = images(2, 3, 65, 97)
    features = extractor(x)
    info = extractor.feature_info
    assert [feature.shape[1] for feature in features] == info.channels()
    for feature, reduction in zip(features, info.reduction(), strict=True):
        assert feature.shape[-2:] == (math.ceil(65 / reduction), math.ceil(97 / reduction)) or name.startswith("dense")
    # the same modules in the same order: equal to the last bit
    torch.testing.assert_close(features[-1], network.forward_features(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_features_of_chosen_stages(name: str) -> None:
    everything = timm.create_model(name, features_only=True, **SMALL[name]).feature_info
    chosen = timm.create_model(name, features_only=True, out_indices=(2, 4), **SMALL[name])
    features = chosen(images(1, 3, 64, 64))
    assert [feature.shape[1] for feature in features] == chosen.feature_info.channels()
    assert set(chosen.feature_info.channels()) <= set(everything.channels())
    assert [64 // feature.shape[-1] for feature in features] == chosen.feature_info.reduction()


@pytest.mark.parametrize("name", NAMES)
def test_forward_intermediates(name: str) -> None:
    network = build(name)
    x = images(1, 3, 70, 51)
    final, intermediates = network.forward_intermediates(x)
    torch.testing.assert_close(final, network.forward_features(x), rtol=0, atol=0)
    assert [feature.shape[1] for feature in intermediates] == [info["num_chs"] for info in network.feature_info]
    chosen = network.forward_intermediates(x, indices=[1, 3], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(chosen, [intermediates[1], intermediates[3]], rtol=0, atol=0)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_stride_changes_dilation_alone(output_stride: int) -> None:
    """The same blocks are elastic, and the weights are interchangeable."""
    plain, dilated = build("resnext50_elastic"), build("resnext50_elastic", output_stride=output_stride)
    assert dilated.elastic_report.converted == plain.elastic_report.converted
    assert dilated.elastic_report.left == plain.elastic_report.left
    dilated.load_state_dict(plain.state_dict())
    assert dilated.forward_features(images(1, 3, 64, 96)).shape[-2:] == (64 // output_stride, 96 // output_stride)


@pytest.mark.parametrize("name", NAMES)
def test_reset_classifier(name: str) -> None:
    network = build(name)
    x = images(2, 3, 64, 64)
    pooled = network.forward_head(network.forward_features(x), pre_logits=True)
    network.reset_classifier(3)
    assert network(x).shape == (2, 3)
    network.reset_classifier(0)
    torch.testing.assert_close(network(x), pooled, rtol=0, atol=0)
    network.reset_classifier(0, "")
    assert network(x).shape == network.forward_features(x).shape


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_groups_cover_all_parameters_and_keep_blocks_together(name: str, coarse: bool) -> None:
    network = build(name)
    groups = group_parameters(network, network.group_matcher(coarse=coarse), reverse=True)
    parameters = {key for key, _ in network.named_parameters()}
    assert set(groups) == parameters
    head = network.pretrained_cfg["classifier"]
    last = max(groups.values())
    assert {key for key, group in groups.items() if group == last and key.startswith(head)}, "the head comes last"
    assert min(groups.values()) == groups[network.pretrained_cfg["first_conv"] + ".weight"], "the stem comes first"
    for block in network.elastic_report.converted:
        assert len({group for key, group in groups.items() if key.startswith(block + ".")}) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_layer_decay_gives_every_parameter_a_rate(name: str) -> None:
    network = build(name)
    optimizer = create_optimizer_v2(network, "sgd", lr=0.1, weight_decay=1e-4, layer_decay=0.5)
    inside = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(inside) == sorted(id(parameter) for parameter in network.parameters())
    assert len({group["lr_scale"] for group in optimizer.param_groups}) > 4


@pytest.mark.parametrize("name", NAMES)
def test_unknown_arguments_are_refused(name: str) -> None:
    with pytest.raises(TypeError):
        timm.create_model(name, no_such_argument=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_meta_device(name: str) -> None:
    network = timm.create_model(name, device="meta", **SMALL[name])
    assert {tensor.device.type for tensor in [*network.parameters(), *network.buffers()]} == {"meta"}
    assert network(torch.randn(2, 3, 64, 64, device="meta")).shape == (2, 1000)
    real = timm.create_model(name, **SMALL[name])
    network.load_state_dict(real.state_dict(), assign=True)
    x = images(1, 3, 64, 64)
    torch.testing.assert_close(network.eval()(x), real.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name: str) -> None:
    """bfloat16 keeps 8 bits: 2^-8 relative a layer, which adds up over some tens of layers; 5% of the logits' scale."""
    network = build(name)
    half = timm.create_model(name, dtype=torch.bfloat16, num_classes=CLASSES, **SMALL[name]).eval()
    floating = [tensor for tensor in half.state_dict().values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floating} == {torch.bfloat16}
    half.load_state_dict(network.state_dict())
    x = images(2, 3, 65, 64)
    exact, rough = network(x), half(x.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing_gives_the_same_gradients(name: str) -> None:
    plain = build(name).train()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing(True)
    x = images(2, 3, 64, 64)
    outputs = [network(x) for network in (plain, saving)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=0)
    for output in outputs:
        output.pow(2).sum().backward()
    torch.testing.assert_close(gradients(saving), gradients(plain), rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_keeps_fewer_activations(name: str) -> None:
    network = build(name).train()
    x = images(2, 3, 64, 64)

    def kept() -> int:
        """Bytes of the activations, other than parameters and input, that autograd holds after the forward pass."""
        own = {parameter.data_ptr() for parameter in network.parameters()} | {x.data_ptr()}
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in own:
                sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = network(x)
        assert output.requires_grad
        return sum(sizes.values())

    everything = kept()
    network.set_grad_checkpointing(True)
    assert kept() < 0.75 * everything


@pytest.mark.parametrize("name", FAMILIES)
def test_synchronized_norms(name: str) -> None:
    """Every batch norm, in branches too, becomes a synchronised one, which in eval mode computes the same."""
    network = build(name)
    x = images(1, 3, 64, 64)
    expected = network(x)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    synchronized = timm.layers.convert_sync_batchnorm(network)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synchronized.modules()) == norms
    torch.testing.assert_close(synchronized(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rates", [{"drop_rate": 0.5}, {"drop_path_rate": 0.5}, {"drop_block_rate": 0.5}])
def test_regularisation_reaches_elastic_blocks_in_training_alone(rates: dict[str, float]) -> None:
    plain, network = build("resnext50_elastic"), build("resnext50_elastic", **rates)
    network.load_state_dict(plain.state_dict())
    x = images(4, 3, 64, 64)
    torch.testing.assert_close(network(x), plain(x), rtol=0, atol=0)
    network.train()
    assert not torch.equal(network(x), network(x))
