"""Segmentation networks on a backbone of choice: any size, elastic by name or by surgery, rebuilt from their card."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_cnn import elasticize
from elastic_cnn.zoo.any_backbone import DECODERS
from elastic_cnn.zoo.checkpoint import NetworkCard, load_checkpoint, save_checkpoint
from elastic_cnn.zoo.factory import SEGMENTATION_NETWORKS, create_model


@settings(max_examples=5, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_logits_have_the_images_size_and_padding_shows_nowhere_else(height, width):
    torch.manual_seed(0)
    network = create_model("smp_fpn", num_classes=5, backbone="resnext_small_elastic").eval()
    images = torch.randn(1, 3, height, width)
    padded = torch.zeros(1, 3, -(-height // 32) * 32, -(-width // 32) * 32)
    padded[..., :height, :width] = images
    with torch.no_grad():
        logits, whole = network(images), network(padded)
    assert logits.shape == (1, 5, height, width)
    torch.testing.assert_close(logits, whole[..., :height, :width])


def test_every_decoder_is_known_by_name():
    assert {f"smp_{decoder}" for decoder in DECODERS} <= set(SEGMENTATION_NETWORKS)
    for decoder in ("unet", "deeplabv3plus", "upernet"):
        network = create_model(f"smp_{decoder}", num_classes=4, backbone="resnet10t").eval()
        with torch.no_grad():
            assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 4, 64, 96)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("smp_fpn", {"backbone": "resnet18"}), ("deeplabv3", {"backbone": "resnet50", "channels": (16, 32, 64, 128)})],
)
def test_surgery_converts_backbone_and_decoder_and_loads_again(name, kwargs, tmp_path):
    base = create_model(name, num_classes=3, **kwargs)
    network = elasticize(base).eval()
    parts = {block.partition(".")[0] for block in network.elastic_report.converted}
    # DeepLabv3's head works at the resolution of the last stage, FPN's decoder at higher ones too
    assert parts == ({"backbone", "decoder", "head"} if name == "smp_fpn" else {"backbone"})
    alone = elasticize(base, convolutions=False).elastic_report.converted
    assert alone == [block for block in network.elastic_report.converted if block.startswith("backbone.")]
    card = NetworkCard(name, {"num_classes": 3, **kwargs}, "segmentation", ("a", "b", "c"))
    loaded, _ = load_checkpoint(save_checkpoint(tmp_path / "net.safetensors", network, card))
    images = torch.randn(1, 3, 65, 43)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="deeplabv3 takes ResNets, which 'dla34' is not"):
        create_model("deeplabv3", backbone="dla34")
    with pytest.raises(ValueError, match="needs three blocks in the last stage"):
        create_model("deeplabv3", backbone="resnet18")
    with pytest.raises(TypeError, match="not \\['depth'\\]"):
        create_model("smp_unet", depth=3)
    with pytest.raises(ValueError, match="smp_unet cannot be built on 'no_such_net'"):
        create_model("smp_unet", backbone="no_such_net")
