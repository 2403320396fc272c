"""Networks in bfloat16: as near to float64 as PyTorch's own bfloat16 form, called as before, native where possible."""

import pytest
import timm
import torch

import elastic_cnn
from elastic_cnn.fast.native import NATIVE
from elastic_cnn.kernels import ops

BF16 = torch.bfloat16
has_kernels = pytest.mark.skipif(not ops.ready(BF16), reason="no native kernels for bfloat16 on this processor")
SMALL = ["resnext_small_elastic", "densenet_small_elastic", "dla_small_elastic", "resnext_small"]


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return elastic_cnn.create_model(name, num_classes=10).eval()


def error(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float((got.double() - exact).norm() / exact.norm())


@has_kernels
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_the_error_is_that_of_pytorch_in_bfloat16(name):
    network, x = make(name), torch.randn(4, 3, 65, 61)
    exact = make(name).double()(x.double())
    usual = error(make(name).to(BF16)(x.to(BF16)), exact)
    fast = elastic_cnn.optimize_for_inference(network, x, dtype=BF16)
    assert any(isinstance(module, NATIVE) for module in fast.modules())
    got = fast(x)
    assert got.dtype == torch.float32
    assert error(got, exact) <= 1.5 * usual
    assert error(got, exact) > 1e-5  # it is bfloat16 indeed
    assert network(x).dtype == torch.float32  # the network is left as it was


@torch.no_grad()
def test_without_kernels_pytorch_computes_in_bfloat16():
    network, x = make(SMALL[0]), torch.randn(2, 3, 64, 64)
    fast = elastic_cnn.optimize_for_inference(network, x, dtype=BF16, native=False)
    assert {parameter.dtype for parameter in fast.parameters()} == {BF16}
    assert fast(x).dtype == torch.float32
    assert error(fast(x), network(x).double()) < 0.05
    assert "computes in bfloat16" in str(fast.optimization_report)


@torch.no_grad()
def test_a_network_in_bfloat16_stays_in_it():
    network, x = make(SMALL[0]).to(BF16), torch.randn(2, 3, 64, 64).to(BF16)
    fast = elastic_cnn.optimize_for_inference(network, x)
    assert fast(x).dtype == BF16
    exact = make(SMALL[0]).double()(x.double())
    assert error(fast(x), exact) <= 1.5 * error(network(x), exact)


@torch.no_grad()
def test_under_autocast_and_with_several_outputs():
    network = timm.create_model("resnet18", features_only=True).eval()
    x = torch.randn(1, 3, 64, 64)
    fast = elastic_cnn.optimize_for_inference(network, x, dtype=BF16)
    with torch.autocast("cpu", BF16):
        maps = fast(x)
    assert [m.dtype for m in maps] == [torch.float32] * 5
    for got, wanted in zip(maps, network(x), strict=True):
        assert error(got, wanted.double()) < 0.05


def test_auto_measures_and_says_so():
    network, x = make(SMALL[0]), torch.randn(1, 3, 64, 64)
    fast = elastic_cnn.optimize_for_inference(network, x, dtype="auto")
    assert "bfloat16 took" in str(fast.optimization_report)
    with pytest.raises(ValueError, match="give an example"):
        elastic_cnn.optimize_for_inference(network, dtype="auto")


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"own \(torch.float32\), got torch.float16"):
        elastic_cnn.optimize_for_inference(make(SMALL[0]), dtype=torch.float16)


@has_kernels
@torch.no_grad()
def test_a_native_block_that_computes_something_else_is_put_back(monkeypatch):
    original = ops.call

    def wrong(name, x, weights, *rest):
        return original(name, x, weights, *rest) * 3

    monkeypatch.setattr(ops, "call", wrong)
    network, x = make(SMALL[0]), torch.randn(1, 3, 64, 64)
    fast = elastic_cnn.optimize_for_inference(network, x, dtype=BF16)
    assert "put back" in str(fast.optimization_report)
    assert error(fast(x), network(x).double()) < 0.05
