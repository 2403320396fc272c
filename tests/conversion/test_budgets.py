"""Budgets of multiply-adds, measured time and changed answers; photos in every form; what cannot be."""

from dataclasses import replace

import pytest
import timm
import torch
from PIL import Image

from elastic_cnn import ElasticSpec, convert
from elastic_cnn.conversion import SCALES, Calibration, Refit, search, times, work
from elastic_cnn.conversion.answers import same_answers
from elastic_cnn.conversion.order import order_channels
from elastic_cnn.conversion.photos import collect
from elastic_cnn.conversion.shares import STEPS, Alternative, choose_shares, tail
from elastic_cnn.kernels import ops
from elastic_cnn.kernels.native import load
from elastic_cnn.measure.medians import MedianInterval
from elastic_cnn.nn import in_precision
from elastic_cnn.surgery import apply_surgery, describe_surgery
from elastic_cnn.tasks import spec
from elastic_cnn.tasks.spec import task_spec


def network(**changes):
    torch.manual_seed(0)
    small = {"num_classes": 6, "layers": (2, 2, 2, 1), "channels": (16, 16, 32, 32)}
    return timm.create_model("resnet26", **{**small, **changes}).eval()


@pytest.fixture(scope="module")
def photos():
    return torch.nn.functional.interpolate(torch.randn(12, 3, 9, 9), (48, 40), mode="bilinear")


FAST = Calibration(refit=None)


def alternative(spec, influence, cost):
    """Saves `cost` of each block in proportion to what runs low."""
    return Alternative(spec, influence, {n: {s: c * (1 - s) for s in (0.75, 0.5, 0.25)} for n, c in cost.items()})


@pytest.mark.parametrize("scales", [1, 2])
def test_shares_are_the_best_of_all_choices(scales):
    """Against trying all combinations: nobody saves as much as the greedy walk along convex ladders for less."""
    errors = {name: [torch.tensor(values)] for name, values in {"a": [8.0, 4, 2, 1], "b": [3.0, 3, 3, 3]}.items()}
    alternatives = [
        alternative(ElasticSpec(), {"a": 1.0, "b": 1.0}, {"a": 0.4, "b": 0.6}),
        alternative(ElasticSpec((1, 4)), {"a": 1.1, "b": 9.0}, {"a": 0.5, "b": 0.7}),  # pays in `a` alone
    ][:scales]
    every = {
        name: [(0.0, 0.0)]
        + [
            (each.saved[name][high], each.influence[name] * float(errors[name][0][round(high * 4) :].sum() / unit))
            for each in alternatives
            for high in (0.75, 0.5, 0.25)
        ]
        for name, unit in (("a", 3.0), ("b", 6.0))
    }
    for budget in (0.9, 0.8, 0.7, 0.6, 0.45):
        found = choose_shares(alternatives, errors, budget)
        total = sum(choice.saved for choice in found.values())
        assert total >= 1 - budget - 1e-9
        got = sum(choice.error for choice in found.values())
        for saved_a, error_a in every["a"]:
            for saved_b, error_b in every["b"]:
                assert saved_a + saved_b < total - 1e-9 or error_a + error_b >= got - 1e-6
        if "a" in found and scales == 2:
            assert found["a"].spec.scales == (1, 4)
        assert "b" not in found or found["b"].spec.scales == (1, 2)
    most = 0.25 if scales == 1 else 0.1
    with pytest.raises(ValueError, match=rf"cannot be met: .* still costs {most:.3f}"):
        choose_shares(alternatives, errors, 0.05)


def test_no_branch_is_taken_for_empty():
    """Of four units an eighth is none by rounding, and one in the division; so on either side."""
    errors = [torch.tensor([8.0, 4, 2, 1])]
    assert [tail(errors, high) for high in (0.875, 0.75, 0.5, 0.125)] == [1, 1, 3, 7]


@pytest.mark.parametrize("budget", [0.97, 0.92])
def test_multiply_adds_stay_within_the_budget(photos, budget):
    elastic = convert(network(), photos, budget=budget, calibration=FAST)
    report = elastic.conversion_report
    assert budget - 0.1 < report.macs_ratio <= budget
    again = apply_surgery(network(), describe_surgery(elastic))
    again.load_state_dict(elastic.state_dict())
    assert torch.equal(again.eval()(photos), elastic(photos))
    assert all(block.shares[0] in STEPS for block in report.blocks)
    assert f"multiply-adds {report.macs_ratio:.3f}" in str(report)


def test_an_aim_is_sought_in_all_stages(photos):
    """Blocks of the last stage and those that change the resolution are chosen from, unless stages are named."""
    options = Calibration(refit=None)
    chosen = {b.name for b in convert(network(), photos, budget=0.88, calibration=options).conversion_report.blocks}
    assert {"layer4.0", "layer2.0"} & chosen
    usual = convert(network(), photos, budget=0.95, everywhere=False, calibration=options)
    assert {b.name.split(".")[0] for b in usual.conversion_report.blocks} <= {"layer1", "layer2", "layer3"}


def test_several_scales(photos):
    spec = ElasticSpec((1, 2, 4), (0.5, 0.25, 0.25))
    elastic = convert(network(), photos, spec, budget=0.92)
    report = elastic.conversion_report
    assert all(len(block.shares) == 3 and block.error <= block.error_before for block in report.blocks)
    assert report.macs_ratio <= 0.92


@pytest.mark.parametrize("aim", [{"budget": 0.87}, {"time": 0.93}, {"tolerance": 0.9}])
def test_each_block_takes_the_scales_that_pay(photos, monkeypatch, aim):
    """Where `layer1` is said to lose nothing at a quarter of the resolution, and all else does, it runs there."""

    def told(division, names, *_):
        half = next(iter(division.elastic_report.conversions.values())).spec.scales == (1, 2)
        return {name: 1.0 if half else 1e-6 if name.startswith("layer1") else 9.0 for name in names}

    def clock(networks, base, image, form):
        saved = [
            sum(0.02 * (1 - how.spec.shares[0]) for how in n.elastic_report.conversions.values()) for n in networks
        ]
        return [MedianInterval(1 - each, 1 - each, 1 - each) for each in saved]

    def even(*given, **options):
        return {name: [torch.ones_like(e) for e in each] for name, each in order_channels(*given, **options).items()}

    monkeypatch.setattr(work, "order_channels", even)
    monkeypatch.setattr(work, "influences", told)
    monkeypatch.setattr(search, "time_ratios", clock)
    elastic = convert(network(), photos, SCALES, **aim, calibration=FAST)
    scales = {block.name: block.scales for block in elastic.conversion_report.blocks}
    assert scales.pop("layer1.0") == scales.pop("layer1.1") == (1, 4)
    assert set(scales.values()) == {(1, 2)} or "tolerance" in aim  # with which as much as can be is saved
    again = apply_surgery(network(), describe_surgery(elastic))
    again.load_state_dict(elastic.state_dict())
    assert torch.equal(again.eval()(photos), elastic(photos))


def test_several_specs_are_chosen_from_with_an_aim_alone(photos):
    with pytest.raises(ValueError, match="with an aim"):
        convert(network(), photos, SCALES)
    with pytest.raises(ValueError, match=r"list of ElasticSpec, got \[1, 2\]"):
        convert(network(), photos, [1, 2], budget=0.9)


def test_measured_time(photos, monkeypatch):
    """With a clock of our own: blocks of `layer1` save time, others cost some; so only those are converted."""

    def clock(networks, base, image, form):
        blocks = [each.elastic_report.conversions for each in networks]
        ratios = [
            1 - sum((0.08 if n.startswith("layer1") else -0.02) * 2 * (1 - c.spec.shares[0]) for n, c in found.items())
            for found in blocks
        ]
        return [MedianInterval(ratio, ratio, ratio) for ratio in ratios]

    monkeypatch.setattr(search, "time_ratios", clock)
    elastic = convert(network(), photos, time=0.85, calibration=FAST)
    assert {block.name for block in elastic.conversion_report.blocks} == {"layer1.0", "layer1.1"}
    assert elastic.conversion_report.time.median <= 0.85
    message = r"0\.5 of the base's time in the form 'native' cannot be reached: none .* still costs 0\.7"
    with pytest.raises(ValueError, match=message):
        convert(network(), photos, time=0.5, calibration=FAST)


@pytest.mark.parametrize("form", times.FORMS)
def test_time_is_measured_in_the_deployed_form(photos, form):
    if form == "native" and not ops.ready():
        pytest.skip(f"no native kernels here: {load().reason}")
    elastic = work.elasticize(network())
    (ratio,) = search.time_ratios([elastic], network(), photos[:1], form)
    assert 0 < ratio.low <= ratio.median <= ratio.high


def test_changed_answers_stay_within_the_tolerance(photos):
    base = network()
    many = torch.nn.functional.interpolate(torch.randn(40, 3, 9, 9), (48, 40), mode="bilinear")
    elastic = convert(base, many, tolerance=0.3, calibration=Calibration(photos=20, refit=Refit(least=1000)))
    report = elastic.conversion_report
    assert report.changed <= 0.3
    assert report.changed == pytest.approx(1 - same_answers(elastic, base, [many[20:]]))
    with pytest.raises(ValueError, match="hold out"):
        convert(base, photos[:1], tolerance=0.3)


def test_answers_of_every_task(monkeypatch):
    own, other = (
        torch.tensor([[1.0, -2.0], [-1.0, 3.0], [0.1, 0.2]]),
        torch.tensor([[1.0, 0.5], [-1.0, 3.0], [0.2, 0.1]]),
    )
    parts = [torch.tensor([0, 1]), torch.tensor([2])]  # batches of unlike sizes

    def alike(task: str, shape: tuple[int, ...] = ()) -> float:
        maps = [logits.view(3, 2, *[1] * len(shape)).expand(3, 2, *shape) for logits in (own, other)]
        return same_answers(*((lambda part, m=m: m[part]) for m in maps), parts, task)

    assert alike("classification") == pytest.approx(2 / 3)
    assert alike("multilabel") == pytest.approx(5 / 6)
    assert alike("segmentation", (3, 5)) == pytest.approx(2 / 3)
    near = replace(
        task_spec("multilabel"), name="near", agreement=lambda one, two: float((one - two).abs().lt(1).all())
    )
    monkeypatch.setitem(spec._known, "near", near)
    assert alike("near") == pytest.approx(1 / 3)  # a task of one's own says what is alike
    with pytest.raises(ValueError, match="not <class 'list'>"):
        same_answers(lambda part: [own], lambda part: own, parts)


def test_photos_in_every_form(photos, tmp_path):
    net = network()
    expected = collect(photos, 6, None, net, 0)
    assert torch.equal(expected, photos[:6])
    labels = torch.zeros(12)
    data = torch.utils.data.TensorDataset(photos, labels)
    forms = [
        list(photos),
        data,
        torch.utils.data.DataLoader(data, 4),
        [{"image": photos[:4], "target": 1}, {"image": photos[4:]}],
        lambda: (batch for batch in photos.split(5)),
    ]
    for form in forms:
        assert torch.equal(collect(form, 6, None, net, 0), expected)
    for number in range(3):
        Image.new("RGB", (60, 50), (40 * number, 90, 10)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    assert collect(tmp_path, 8, None, net, 0).shape == (3, 3, 224, 224)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"budget": 1.5}, "budget must lie between 0 and 1, got 1.5"),
        ({"budget": 0.8, "time": 0.8}, "budget and time exclude each other"),
        ({"budget": 0.2}, "a budget of 0.2 cannot be met"),
        ({"budget": 0.8, "spec": {1: ElasticSpec()}}, "one spec for all"),
        ({"time": 0.8, "form": "fpga"}, "choose from native, bf16, openvino"),
        ({"photos": []}, "no photos"),
        ({"photos": [torch.zeros(3, 8, 8), torch.zeros(3, 9, 8)]}, "different sizes"),
        ({"photos": torch.full((2, 3, 32, 32), torch.nan)}, "not finite"),
        ({"photos": ["a.jpg"]}, "got str"),
        ({"photos": torch.zeros(8, 8)}, r"got \(8, 8\)"),
    ],
)
def test_what_cannot_be(photos, arguments, word):
    with pytest.raises(ValueError, match=word):
        convert(network(), **{"photos": photos, "calibration": FAST, **arguments})


def test_a_network_that_is_elastic_already(photos):
    with pytest.raises(ValueError, match="elastic already"):
        convert(work.elasticize(network()), photos)


def test_equal_seeds_give_equal_networks_and_little_memory_changes_nothing(photos):
    few = Refit(least=500)
    first, second = (convert(network(), photos, calibration=Calibration(memory=m, refit=few)) for m in (4e9, 0))
    for key, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[key], value, rtol=1e-4, atol=1e-5)
    third = convert(network(), photos, calibration=Calibration(refit=few))
    assert all(torch.equal(value, third.state_dict()[key]) for key, value in first.state_dict().items())


def test_a_conversion_that_was_stopped_goes_on(photos, tmp_path):
    """The same weights as in one go, with the finished blocks taken up; the files are gone at the end, and those of
    another conversion are left alone."""
    few = Refit(least=500)
    whole = convert(network(), photos, calibration=Calibration(refit=few))
    stopped = Calibration(refit=few, keep=tmp_path)

    def stop(what, done, total):
        if (what, done) == ("refit", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(network(), photos, calibration=stopped, progress=stop)
    (file,) = tmp_path.iterdir()
    convert(network(), photos, calibration=Calibration(refit=Refit(least=600), keep=tmp_path))
    assert list(tmp_path.iterdir()) == [file]
    steps = []
    resumed = convert(network(), photos, calibration=stopped, progress=lambda *step: steps.append(step))
    assert not list(tmp_path.iterdir())
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, rtol=1e-4, atol=1e-5)
    for own, other in zip(resumed.conversion_report.blocks, whole.conversion_report.blocks, strict=True):
        assert own.error == pytest.approx(other.error, rel=1e-3)
    with pytest.raises(KeyboardInterrupt):
        convert(network(), photos, calibration=stopped, progress=stop)
    file.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="remove it to begin anew"):
        convert(network(), photos, calibration=stopped)


class Overwriting(torch.nn.Module):
    """Writes over what its convolution has read: it runs, and torch has no gradients of it."""

    def __init__(self):
        super().__init__()
        self.conv, self.mix = torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        y = x.clone()
        y[:, :4] = self.conv(y[:, :4])
        return x + self.mix(y)


def test_an_aim_needs_gradients():
    stem, head = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Linear(8, 4)
    tail = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head]
    base = torch.nn.Sequential(stem, Overwriting(), torch.nn.MaxPool2d(2), *tail).eval()
    images = torch.randn(4, 3, 32, 32)
    assert convert(base, images, calibration=FAST).conversion_report.blocks
    with pytest.raises(ValueError, match="gradients cannot be had inside of the network, which an aim needs"):
        convert(base, images, budget=0.9, calibration=FAST)


class Complex(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.complex = torch.nn.Conv2d(3, 8, 3, padding=1, dtype=torch.complex64)
        self.real = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        return self.real(self.complex(x.to(torch.complex64)).abs()).flatten(1)


def test_complex_weights_stay_what_they_are():
    base = Complex().eval()
    converted = convert(base, torch.randn(4, 3, 32, 32), calibration=FAST)
    assert converted.conversion_report.blocks
    assert torch.equal(converted.complex.weight, base.complex.weight)
    assert in_precision(Complex(), torch.bfloat16).complex.weight.is_complex()
