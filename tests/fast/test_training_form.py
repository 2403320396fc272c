"""The training form of blocks and networks: the plain form's outputs, gradients and running statistics."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.dla import DlaBottleneck, DlaRoot
from timm.models.resnet import Bottleneck, downsample_conv
from torch import nn
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck

from elastic_cnn import ElasticSpec, create_model, load_checkpoint, save_checkpoint, set_blend
from elastic_cnn.fast import optimize_for_training, training_ops
from elastic_cnn.fast.training import plain_form, why_plain
from elastic_cnn.surgery.rules import find_rule
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard

pytestmark = pytest.mark.skipif(bool(training_ops.unavailable()), reason=training_ops.unavailable() or "-")


def residual(width: int = 8, groups: int = 2, stride: int = 1, grow: int = 1, **options) -> nn.Module:
    """A grouped bottleneck of timm's, with a projected shortcut where it changes size or channels."""
    into, out = 4 * width // grow, 4 * width
    shortcut = downsample_conv(into, out, 1, stride) if stride > 1 or grow > 1 else None
    return Bottleneck(into, width, stride, shortcut, cardinality=groups, base_width=64 // groups, **options)


def elastic(block: nn.Module, spec: ElasticSpec = ElasticSpec()) -> nn.Module:  # noqa: B008 (frozen)
    return find_rule(block).convert(block, spec)


BLOCKS = {
    "bottleneck": residual,
    "strided": lambda: residual(stride=2, grow=2),
    "dense 3x3": lambda: residual(groups=1),
    "se": lambda: residual(attn_layer="se"),
    "torchvision": lambda: TorchvisionBottleneck(32, 8, groups=2, base_width=32),
    "dla": lambda: DlaBottleneck(12, 12, cardinality=3, base_width=32),
    "elastic": lambda: elastic(residual()),
    "elastic, projected": lambda: elastic(residual(grow=2)),
    "elastic, uneven": lambda: elastic(residual(width=12, groups=4), ElasticSpec(shares=(0.75, 0.25))),
    "elastic, se": lambda: elastic(residual(attn_layer="se")),
    "elastic dla": lambda: elastic(DlaBottleneck(12, 12, cardinality=4, base_width=32)),
    "norm and relu": lambda: nn.Sequential(nn.Conv2d(5, 7, 3, bias=False), nn.BatchNorm2d(7), nn.ReLU()),
    "norm": lambda: nn.Sequential(nn.Conv2d(5, 7, 1, bias=False), nn.BatchNorm2d(7, momentum=None)),
}


def lively(module: nn.Module) -> nn.Module:
    """Norms with weights, biases and running statistics of no special value, channels_last."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, -1, 1.5)
            nn.init.normal_(norm.bias, 0, 0.5)
            nn.init.normal_(norm.running_mean, 0, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    return module.to(memory_format=torch.channels_last).train()


def maps(block: nn.Module, batch: int, height: int, width: int, dtype=torch.float32) -> torch.Tensor:
    first = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
    x = torch.randn(batch, first.in_channels, height, width, dtype=dtype) + 0.3
    return x.contiguous(memory_format=torch.channels_last)


def outcome(block: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, all gradients and all buffers after one forward and backward pass with a fixed random loss."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = block(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    (y * weights).sum().backward()
    gradients = {f"grad {name}": p.grad for name, p in block.named_parameters()}
    return {"output": y.detach(), "grad input": x.grad, **gradients, **dict(block.named_buffers())}


def assert_near(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], tolerance: float) -> None:
    """Equal up to `tolerance` of each tensor's largest number (at least 1: gradients of norms' inputs may vanish)."""
    assert one.keys() == two.keys()
    for name, a in one.items():
        b = two[name].to(a.dtype)
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max())), name


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


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(BLOCKS)), st.integers(2, 3), st.integers(6, 21), st.integers(6, 21))
def test_blocks_in_float32(name, batch, height, width):
    """Against float64 and the plain form, by the norm of each tensor's difference: 3%.

    A value that a ReLU sees within rounding of zero may fall to either side of it, in either form, and changes single
    gradients by a whole term; formulas are checked to 1e-9 in float64 above.
    """
    torch.manual_seed(height * 100 + width)
    plain = lively(BLOCKS[name]())
    fused, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    optimize_for_training(fused)
    x = maps(plain, batch, height, width)
    found = outcome(fused, x)
    for expected in (outcome(exact, x.double()), outcome(plain, x)):
        for name, tensor in expected.items():
            off = float((found[name].double() - tensor.double()).norm())
            assert off <= 0.03 * max(1.0, float(tensor.double().norm())), name
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
    fused = copy.deepcopy(plain)
    optimize_for_training(fused)
    x, results = maps(plain, 2, 6, 7, torch.float64), []
    for block in (plain, fused):
        own = x.clone(memory_format=torch.preserve_format).requires_grad_(frozen != "input")
        block(own).pow(2).sum().backward()
        results.append({n: p.grad for n, p in block.named_parameters()} | {"input": own.grad})
    for key, gradient in results[0].items():
        assert (gradient is None) == (results[1][key] is None), key
        if gradient is not None:
            torch.testing.assert_close(results[1][key], gradient, rtol=1e-8, atol=1e-8)


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
    "blending": (blended, "blended"),
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


def test_autocast_is_plain():
    block = lively(BLOCKS["elastic"]())
    optimize_for_training(block)
    with torch.autocast("cpu", torch.bfloat16):
        block(maps(block, 2, 6, 6))
    assert why_plain(block)[""] == "autocast is on"


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
    assert "interpolate" in report.plain["nearest"]
    assert "SiLU" in report.plain["silu"]
    assert "plain" in str(report)
    assert type(network["resnet"]) is type(elastic(Bottleneck(16, 4)))


def test_without_kernels_nothing_changes(monkeypatch):
    monkeypatch.setattr(training_ops, "unavailable", lambda: "no compiler")
    block = BLOCKS["elastic"]()
    kind = type(block)
    report = optimize_for_training(block)
    assert (report.reason, report.fused, type(block)) == ("no compiler", {}, kind)


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
