"""A teacher in place of labels: the loss against its definition, and runs that start from a conversion."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE

from elastic_cnn import elasticize
from elastic_cnn.tasks import weights
from elastic_cnn.tasks.distill import Distill, Teacher, distillation_loss, renormalised
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.training import load_recipe, train
from elastic_cnn.tasks.weights import classes_of_published, classes_to_keep, load_teacher
from elastic_cnn.zoo import create_model
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, load_checkpoint, save_checkpoint

QUIET = Settings("cpu", workers=0, progress=False)


def test_the_loss_is_zero_for_the_teacher_itself_and_has_the_gradient_of_its_definition():
    wished = torch.randn(5, 4, dtype=torch.float64)
    for task in ("classification", "segmentation"):
        assert float(distillation_loss(wished, wished, task, 2.0)) == pytest.approx(0, abs=1e-6)
    logits = torch.randn(5, 4, requires_grad=True)
    distillation_loss(logits, wished.float(), "classification", 3.0).backward()
    # d/dz of T^2 KL(p || q) is T (q - p), averaged over the batch
    expected = 3.0 * ((logits / 3).softmax(1) - (wished.float() / 3).softmax(1)) / 5
    torch.testing.assert_close(logits.grad, expected.detach(), atol=1e-6, rtol=1e-5)
    labels = torch.randn(5, 4, requires_grad=True)
    distillation_loss(labels, wished.float(), "multilabel", 1.0).backward()
    torch.testing.assert_close(labels.grad, (labels.sigmoid() - wished.float().sigmoid()).detach() / 20)


def test_a_conversion_is_trained_towards_its_base_without_labels(recipe_path, photos, whole, tmp_path):
    """A network made elastic, its classifier disturbed, comes back towards the base; what it is stays in the card."""
    base, card = load_checkpoint(whole[0])
    start: Any = elasticize(base)
    with torch.no_grad():
        start.fc.weight += torch.randn_like(start.fc.weight)
    converted = save_checkpoint(tmp_path / "fast.safetensors", start, card)
    keys = ["network=null", "network_kwargs={}", f"weights={converted}", f"teacher={whole[0]}"]
    keys += ["optimizer.lr=0.05", "ema=null", "epochs=4", "options.mixup=0", "schedule.warmup_epochs=0"]
    train(load_recipe(recipe_path, keys), photos, tmp_path / "run", QUIET)
    trained, own = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert own.elastic == load_checkpoint(converted)[1].elastic
    images = torch.randn(8, 3, 32, 32)

    def distance(network):
        with torch.no_grad():
            return float(distillation_loss(network(images), base(images), "classification", 2.0))

    assert distance(trained) < 0.5 * distance(load_checkpoint(converted)[0])


@pytest.mark.parametrize("names", [("aardvark", "blue", "green", "red", "zebra"), ("red", "green", "blue")])
def test_without_labels_a_network_keeps_its_classes(recipe_path, photos, tmp_path, names):
    """Its classifier is its own, the photos' classes are among it; with labels, or without a teacher, it is new."""
    kwargs = {"num_classes": len(names), "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    card = NetworkCard("resnet26", kwargs, classes=names, input=InputSpec(size=(32, 32)))
    base = str(save_checkpoint(tmp_path / "base.safetensors", create_model("resnet26", **kwargs), card))
    keys = ["network=null", "network_kwargs={}", f"weights={base}", "epochs=1", "options.mixup=0", "ema=null"]
    taught = [*keys, f"teacher={base}"]
    assert classes_to_keep(load_recipe(recipe_path, taught)) == names
    assert classes_to_keep(load_recipe(recipe_path, keys)) == ()
    assert classes_to_keep(load_recipe(recipe_path, [*taught, "distill.labels=0.5"])) == ()
    train(load_recipe(recipe_path, [*taught, "optimizer.lr=1e-30"]), photos, tmp_path / "run", QUIET)
    trained, own = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert own.classes == names
    assert torch.equal(trained.fc.weight, load_checkpoint(base)[0].fc.weight)


def test_a_teacher_by_name(monkeypatch):
    """timm's published network and ImageNet's classes; where they cannot be had, a sentence."""
    asked = []

    def create(name, arguments, published):
        asked.append((name, published))
        return create_model(name, layers=(1, 1, 1, 1), channels=(8, 8, 16, 16))

    monkeypatch.setattr(weights, "create_network", create)
    network: Any = create_model("resnet26", layers=(1, 1, 1, 1), channels=(8, 8, 16, 16))
    card = NetworkCard("resnet26", classes=classes_of_published(network))
    assert (len(card.classes), card.classes[0]) == (1000, "n01440764")
    teacher = Teacher("resnet26", load_teacher("resnet26"), card, network, Distill())
    ((name, published),) = asked
    assert (name, published.asked) == ("resnet26", "teacher=resnet26")
    assert "teacher=RUN_DIR" in published.file  # a file of weights alone does not say what its answers mean
    assert "timm.create_model('resnet26', pretrained=True)" in published.offline
    assert HF_HUB_CACHE in published.offline
    assert not teacher.network.training
    for count in (0, 5, 11821):  # the head is no published one
        assert classes_of_published(create_model("resnet26", num_classes=count)) == ()
    with pytest.raises(ValueError, match="another question"):
        Teacher("resnet26", load_teacher("resnet26"), replace(card, classes=card.classes[:5]), network, Distill())


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        (["distill.labels=1"], "nothing to distill"),
        (["distill.temperature=0"], "must be positive"),
        (["distill.blocks=-1"], "must not be negative"),
        (["teacher=WHOLE", "distill.blocks=1"], "the network has none"),
        (["teacher=nowhere.safetensors"], "no checkpoint at nowhere"),
        (["network=null", "network_kwargs={}", "weights=WHOLE", "init=he_fan_in"], "taken as it is"),
    ],
)
def test_what_cannot_be(recipe_path, photos, whole, tmp_path, keys, word):
    keys = [key.replace("WHOLE", str(whole[0])) for key in keys]
    with pytest.raises(ValueError, match=word):
        train(load_recipe(recipe_path, keys), photos, tmp_path / "run", QUIET)


def test_outputs_of_blocks_are_drawn_to_the_teachers(whole):
    """The value against the definition, over all blocks; its gradient reaches the first block and not the
    classifier."""
    base, card = load_checkpoint(whole[0])
    network: Any = elasticize(base).train()
    names = network.elastic_report.converted
    images = torch.randn(3, 3, 32, 32)
    teacher, plain = (
        Teacher("base", load_checkpoint(whole[0]), card, network, Distill(blocks=weight)) for weight in (0.5, 0.0)
    )
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for each in (network, teacher.network):
        for name in names:
            each.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen[name].append(out))
    network(images)
    added = teacher.mix(torch.tensor(0.0)) - plain.mix(torch.tensor(0.0))
    parts = [float(((own - wished).square().mean() / wished.var()).detach()) for own, wished in seen.values()]
    assert float(added.detach()) == pytest.approx(0.5 * sum(parts) / len(parts), rel=1e-4)
    added.backward()
    assert network.get_submodule(names[0]).branches.high.transform[0].weight.grad.abs().max() > 0
    assert network.fc.weight.grad is None or network.fc.weight.grad.abs().max() < 1e-6


def test_a_teacher_sees_images_in_its_own_normalisation(whole):
    base, card = load_checkpoint(whole[0])
    own = replace(card.input, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
    pixels = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (own.mean, own.std))
    mean_, std_ = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (card.input.mean, card.input.std))
    images = (pixels - mean_) / std_
    torch.testing.assert_close(renormalised(images, card.input, own), (pixels - mean) / std)
    assert renormalised(images, card.input, card.input) is images
    teacher = Teacher(
        "base", (base.eval(), replace(card, input=own)), card, network := load_checkpoint(whole[0])[0], Distill()
    )
    network.train()(images.float())
    seen = []
    base.register_forward_hook(lambda block, args, output: seen.append(args[0]))
    teacher.mix(torch.tensor(0.0))
    torch.testing.assert_close(seen[0], ((pixels - mean) / std).float(), atol=1e-5, rtol=1e-5)
    grey = replace(card, input=own.of_channels(1))
    with pytest.raises(ValueError, match="images of 1 channels, the network 3"):
        Teacher("base", (base, grey), card, network, Distill())


def test_labels_count_as_much_as_asked(whole):
    base, card = load_checkpoint(whole[0])
    images = torch.randn(2, 3, 32, 32)
    teacher = Teacher("base", load_checkpoint(whole[0]), card, base.train(), Distill())
    base(images)
    assert torch.isfinite(teacher.mix(torch.tensor(torch.nan)))  # labels are not looked at
    with pytest.raises(ValueError, match="did not call its network"):
        teacher.mix(torch.tensor(0.0))
    mixed = Teacher("base", load_checkpoint(whole[0]), card, base, Distill(labels=0.25))
    base.eval()(images)
    base.train()(images)
    logits = mixed._seen[1]
    wished = mixed.network(images)
    expected = 0.25 * 8.0 + 0.75 * float(distillation_loss(logits, wished, card.task, 2.0).detach())
    assert float(mixed.mix(torch.tensor(8.0)).detach()) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="another question"):
        Teacher("base", load_checkpoint(whole[0]), replace(card, classes=("cat", "dog")), base, Distill())


@pytest.mark.parametrize("teacher", ["nowhere.safetensors", "resnet_of_nobody", "OTHER"])
@pytest.mark.parametrize("start", ["network", "weights"])
def test_a_teacher_that_cannot_teach_is_refused_before_a_conversion(
    recipe_path, photos, whole, tmp_path, monkeypatch, teacher, start
):
    monkeypatch.setattr(weights, "make_elastic", lambda *_: pytest.fail("converted"))
    kwargs = {"num_classes": 5, "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    card = NetworkCard("resnet26", kwargs, classes=tuple("abcde"), input=InputSpec(size=(32, 32)))
    other = save_checkpoint(tmp_path / "other.safetensors", create_model("resnet26", **kwargs), card)
    keys = ["elastic=true", "convert.budget=0.9", f"teacher={teacher.replace('OTHER', str(other))}"]
    if start == "weights":
        keys += ["network=null", "network_kwargs={}", f"weights={whole[0]}"]
    with pytest.raises(ValueError, match=rf"{teacher}|another question than the data asks: .* with 5 classes"):
        train(load_recipe(recipe_path, keys), photos, tmp_path / "run", QUIET)


def test_the_classes_without_photos_are_told_once_and_briefly(recipe_path, photos, tmp_path, capsys):
    names = tuple(sorted(["blue", "green", "red", *(f"n{number:04}" for number in range(60))]))
    kwargs = {"num_classes": len(names), "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    card = NetworkCard("resnet26", kwargs, classes=names, input=InputSpec(size=(32, 32)))
    base = save_checkpoint(tmp_path / "base.safetensors", create_model("resnet26", **kwargs), card)
    keys = ["network=null", "network_kwargs={}", f"weights={base}", f"teacher={base}", "epochs=1", "options.mixup=0"]
    train(load_recipe(recipe_path, [*keys, "ema=null"]), photos, tmp_path / "run", QUIET)
    told = [line for line in capsys.readouterr().err.splitlines() if "63 classes" in line]
    assert len(told) == 1
    assert "train has photos of 3 of the 63 classes" in told[0]
