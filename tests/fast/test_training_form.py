"""The training form of blocks and networks: the plain form's outputs, gradients and running statistics."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from fused_cases import BLOCKS, assert_gradients_where_wanted, assert_near, elastic, lively, maps, outcome, residual
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from timm.models.dla import DlaRoot
from torch import nn

from elastic_cnn import create_model, load_checkpoint, save_checkpoint
from elastic_cnn.fast import optimize_for_training, training_ops
from elastic_cnn.fast.training import plain_form, why_plain
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard

pytestmark = pytest.mark.skipif(bool(training_ops.unavailable()), reason=training_ops.unavailable() or "-")


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(sorted(BLOCKS)), st.integers(1, 3), st.integers(3, 17), st.integers(3, 17), st.integers(0, 2**31)
)
def test_blocks_in_float64(name, batch, height, width, seed):
    """In float64 the two forms differ by the order of sums alone: 1e-9, whatever the size, edges odd or even."""
    torch.manual_seed(seed)
    plain = lively(BLOCKS[name]()).double()
    fused = copy.deepcopy(plain)
    assert optimize_for_training(fused).fused
    x = maps(plain, batch, height, width, torch.float64)
    if batch * ((height + 1) // 2) * ((width + 1) // 2) < 8:
        return
    two = outcome(fused, x)
    assert why_plain(fused) == {}
    assert_near(outcome(plain, x), two, 1e-9)


def least_relu_input(block: nn.Module, x: torch.Tensor) -> float:
    """How near to zero any input of a ReLU comes."""
    least = [float("inf")]
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: least.append(float(inputs[0].abs().min())))
        for module in block.modules()
        if isinstance(module, nn.ReLU)
    ]
    with torch.no_grad():
        block(x)
    for hook in hooks:
        hook.remove()
    return min(least)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(BLOCKS)), st.integers(1, 3), st.integers(4, 17), st.integers(4, 17), st.integers(0, 999))
def test_blocks_in_float32(name, batch, height, width, seed):
    """Against float64, by the norm of each tensor's difference: 1e-4, where both forms stay below 2e-5.

    A value that a ReLU sees within rounding of zero may fall to either side of it, in either form, and changes single
    gradients by a whole term, so such draws are left out; the formulas are checked to 1e-9 in float64 above.
    """
    torch.manual_seed(seed)
    plain = lively(BLOCKS[name]())
    fused, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    optimize_for_training(fused)
    x = maps(plain, batch, height, width)
    assume(batch * ((height + 1) // 2) * ((width + 1) // 2) >= 8)
    assume(least_relu_input(copy.deepcopy(exact), x.double()) > 1e-5)
    found, expected = outcome(fused, x), outcome(exact, x.double())
    for key, tensor in expected.items():
        off = float((found[key].double() - tensor.double()).norm())
        assert off <= 1e-4 * max(1.0, float(tensor.double().norm())), key
    assert why_plain(fused) == {}


@pytest.mark.parametrize("name", ["bottleneck", "elastic", "elastic, projected", "norm and relu"])
def test_gradcheck(name):
    """Numerical gradients in float64 of the input and of every parameter, at an odd size."""
    block = lively(BLOCKS[name]() if name == "norm and relu" else small(name)).double()
    optimize_for_training(block)
    x = maps(block, 2, 3, 5, torch.float64).requires_grad_()
    parameters = {name: p.detach().clone().requires_grad_() for name, p in block.named_parameters()}

    def function(x, *values):
        return torch.func.functional_call(block, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *parameters.values()), fast_mode=True, atol=1e-6)
    assert why_plain(block) == {}


def small(name: str) -> nn.Module:
    block = residual(width=4, groups=2, grow=2 if "projected" in name else 1)
    return elastic(block) if "elastic" in name else block


@pytest.mark.parametrize("name", ["bottleneck", "elastic"])
@pytest.mark.parametrize("frozen", ["conv1", "conv3", "bn2", "all but bn3", "input"])
def test_parts_that_need_no_gradient(name, frozen):
    plain = lively(BLOCKS[name]()).double()
    for parameter_name, parameter in plain.named_parameters():
        off = "bn3" not in parameter_name if frozen == "all but bn3" else frozen in parameter_name
        parameter.requires_grad_(not off)
    assert_gradients_where_wanted(plain, 6, 7, frozen != "input", 1e-8)


def test_dla_blocks_take_a_shortcut():
    """The tree hands it over; it gets its own gradient."""
    for make in (BLOCKS["dla"], BLOCKS["elastic dla"]):
        plain = lively(make()).double()
        fused = copy.deepcopy(plain)
        optimize_for_training(fused)
        x, shortcut = maps(plain, 2, 7, 6, torch.float64), torch.randn(2, 12, 7, 6, dtype=torch.float64)
        gradients = []
        for block in (plain, fused):
            own = shortcut.contiguous(memory_format=torch.channels_last).requires_grad_()
            block(x, own).pow(2).sum().backward()
            gradients.append(own.grad)
            own.grad = None
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_dla_root():
    plain = lively(DlaRoot(10, 6, 1, False)).double()
    fused = copy.deepcopy(plain)
    assert optimize_for_training(fused).fused == {"": "DlaRoot"}
    parts = [maps_of(4), maps_of(6)]
    torch.testing.assert_close(fused(parts), plain(parts))
    assert not why_plain(fused)


def maps_of(channels: int) -> torch.Tensor:
    return torch.randn(2, channels, 5, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)


def tiny() -> nn.Module:
    return create_model("resnext_small_elastic", num_classes=5).to(memory_format=torch.channels_last).train()


def test_the_network_keeps_its_tensors_and_their_names():
    network = tiny()
    before = dict(network.state_dict(keep_vars=True))
    report = optimize_for_training(network)
    after = dict(network.state_dict(keep_vars=True))
    assert list(before) == list(after)
    assert all(after[name] is tensor for name, tensor in before.items())
    assert {"ElasticResidual", "Bottleneck", "Sequential"} <= set(report.fused.values())
    assert optimize_for_training(network).fused == report.fused
    kinds = {type(module) for module in plain_form(network).modules()}
    assert kinds == {type(module) for module in tiny().modules()}


def losses(network: nn.Module, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(steps):
        images = torch.randn(8, 3, 64, 64, generator=generator).contiguous(memory_format=torch.channels_last)
        targets = torch.randint(0, 5, (8,), generator=generator)
        loss = F.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def test_training_takes_the_same_course(tmp_path):
    """Five steps in float64: rounding of 1e-16 grows by no more than 1e9. A checkpoint loads in the plain form."""
    plain = tiny().double()
    fused = copy.deepcopy(plain)
    optimize_for_training(fused)
    one, two = losses_double(plain), losses_double(fused)
    assert one == pytest.approx(two, rel=1e-7)
    assert len(set(one)) == len(one)
    assert not why_plain(fused)
    card = NetworkCard("resnext_small_elastic", {"num_classes": 5}, classes=tuple("abcde"), input=InputSpec((64, 64)))
    save_checkpoint(tmp_path / "x.safetensors", fused.float(), card)
    loaded, _ = load_checkpoint(tmp_path / "x.safetensors")
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded(images), plain_form(fused).eval()(images))
    assert type(loaded.layer1[0]).__name__ == "ElasticResidual"


def losses_double(network: nn.Module) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(5):
        images = torch.randn(4, 3, 64, 64, generator=generator, dtype=torch.float64)
        targets = torch.randint(0, 5, (4,), generator=generator)
        loss = F.cross_entropy(network(images.contiguous(memory_format=torch.channels_last)), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def test_float32_training_stays_close():
    """Three steps in float32: the first loss to rounding, the next within what rounding does to the plain form too."""
    plain = tiny()
    fused = copy.deepcopy(plain)
    optimize_for_training(fused)
    one, two = losses(plain, 3), losses(fused, 3)
    assert one[0] == pytest.approx(two[0], rel=1e-5)
    assert one == pytest.approx(two, rel=2e-2)


def test_results_repeat_to_the_bit():
    """The same step twice, and in one thread or the other, with the same number of threads."""
    block = lively(BLOCKS["elastic"]())
    optimize_for_training(block)
    x, twin = maps(block, 2, 9, 11), copy.deepcopy(block)
    one, two = outcome(block, x), outcome(twin, x)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_every_form_is_an_instance_of_what_it_was():
    for name, make in itertools.islice(BLOCKS.items(), 11):
        block = make()
        kind = type(block)
        optimize_for_training(block)
        assert isinstance(block, kind), name
        assert type(block) is not kind, name
