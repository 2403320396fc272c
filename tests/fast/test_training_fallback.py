"""Where the training form cannot serve: blocks compute plainly, and say why."""

import copy
import pickle
import warnings

import pytest
import torch
from fused_cases import BLOCKS, elastic, lively, maps, residual
from timm.models.resnet import Bottleneck
from torch import nn

from elastic_cnn import ElasticSpec, optimize_for_inference, set_blend
from elastic_cnn.fast import optimize_for_training, training_ops
from elastic_cnn.fast.training import plain_form, why_plain

pytestmark = pytest.mark.skipif(bool(training_ops.unavailable()), reason=training_ops.unavailable() or "-")


def hooked(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    next(m for m in block.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(lambda *_: None)
    return x


def frozen_norm(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    next(m for m in block.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    return x


def blended(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    set_blend(block, 0.5)
    return x


def synchronised(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    block.branches.high.transform.bn1 = nn.SyncBatchNorm(block.branches.high.transform.bn1.num_features).eval()
    return x


OBSTACLES = {
    "evaluation": (lambda block, x: [block.eval(), x][1], "evaluation mode"),
    "a frozen norm": (frozen_norm, "frozen"),
    "a hook": (hooked, "hook"),
    "blending": (blended, "blend below 1"),
    "nchw": (lambda block, x: x.contiguous(), "channels_last"),
    "half precision": (lambda block, x: [block.bfloat16(), x.bfloat16()][1], "bfloat16"),
    "another norm": (synchronised, "SyncBatchNorm"),
    "one pixel": (lambda block, x: x[:1, :, :1, :1].contiguous(memory_format=torch.channels_last), "few pixels"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_it_cannot_do_is_plain_and_said(name):
    change, reason = OBSTACLES[name]
    block = lively(BLOCKS["elastic"]())
    optimize_for_training(block)
    x = change(block, maps(block, 2, 6, 6))
    plain = plain_form(copy.deepcopy(block))
    if name == "one pixel":
        with pytest.raises(ValueError, match="more than 1 value"):
            block(x)
    else:
        torch.testing.assert_close(block(x), plain(x))  # parts of it (norm and ReLU) may still be fused
    assert reason in why_plain(block)[""]


def test_blocks_without_a_form_are_reported():
    network = nn.ModuleDict(
        {
            "resnet": elastic(Bottleneck(16, 4)),
            "nearest": elastic(residual(), ElasticSpec(upsample="nearest")),
            "silu": residual(act_layer=nn.SiLU),
        }
    )
    report = optimize_for_training(network)
    assert "divided through all its layers" in report.plain["resnet"]
    assert "upsampling by nearest" in report.plain["nearest"]
    assert "SiLU" in report.plain["silu"]
    assert "left, its activation is SiLU: silu" in str(report)
    assert type(network["resnet"]) is type(elastic(Bottleneck(16, 4)))


class Halved(Bottleneck):
    def forward(self, x):
        return super().forward(x) / 2


def test_subclasses_and_layers_without_channels_are_left_and_said():
    """A division by the number of channels would end the process."""
    empty = residual()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        empty.conv1, empty.bn1 = nn.Conv2d(32, 0, 1, bias=False), nn.BatchNorm2d(0)
        empty.conv2 = nn.Conv2d(0, 8, 3, padding=1, bias=False)
    network = nn.ModuleDict({"subclass": Halved(32, 8), "empty": empty})
    kinds = [type(module) for module in network.modules()]
    report = optimize_for_training(network)
    assert "Halved may compute something else" in report.left["subclass"]
    assert "no channels" in report.left["empty"]
    assert [type(module) for module in network.modules()] == kinds


def test_blocks_in_the_form_are_pickled_and_optimized_for_inference():
    block = lively(BLOCKS["elastic"]())
    x = maps(block, 1, 6, 6)
    optimize_for_training(block)
    again = pickle.loads(pickle.dumps(block))
    assert type(again) is type(block)
    with torch.no_grad():
        torch.testing.assert_close(optimize_for_inference(again, x)(x), block.eval()(x), rtol=1e-5, atol=1e-5)


def test_without_kernels_nothing_changes(monkeypatch):
    monkeypatch.setattr(training_ops, "unavailable", lambda: "no compiler")
    block = BLOCKS["elastic"]()
    kind = type(block)
    report = optimize_for_training(block)
    assert (report.reason, report.fused, type(block)) == ("no compiler", {}, kind)
