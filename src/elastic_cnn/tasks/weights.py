"""The network of a recipe: created by name, initialised, and given what fits of other weights."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from torch import nn

from elastic_cnn.data.sampler import Samples
from elastic_cnn.tasks.distill import Teacher, refuse_teacher
from elastic_cnn.tasks.elastic_start import make_elastic
from elastic_cnn.tasks.network_sources import (
    DOWNLOAD,
    NetworkSource,
    cannot_be_had,
    find_source,
    hub_that_answers,
    is_source,
)
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.tasks.strict import Refused, concerning
from elastic_cnn.tasks.weight_files import read_state_dict, wrappings
from elastic_cnn.text import printable
from elastic_cnn.zoo.card_rules import check_arguments
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, load_checkpoint, means_checkpoint, read_card
from elastic_cnn.zoo.factory import create_model


@dataclass(frozen=True)
class Published:
    """How published weights are asked for. asked: the words of whoever asks; file: how a file of weights is given
    instead; elastic: how a network that has such weights is made elastic afterwards, where that is another step.
    offline: what to do where they cannot be had from here; by default to download a file, and give it."""

    asked: str
    file: str
    elastic: str = ""
    offline: str = ""


RECIPE = Published(
    "weights=timm", "give weights=FILE", " and make it elastic (network=resnet50 weights=timm elastic=true)"
)


TRAINED = "give a trained network's checkpoint or run folder (teacher=RUN_DIR)"


@dataclass(frozen=True)
class WeightsReport:
    """What `load_weights` did, as names of tensors: loaded, new in the network, reshaped, unused in the file."""

    source: str
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]

    def has_classifier(self, network: nn.Module) -> bool:
        """Whether the classifier of a timm network is the file's; True of networks that do not name theirs."""
        heads = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        return not any(name.startswith(tuple(f"{head}." for head in heads)) for name in (*self.new, *self.reshaped))

    def __str__(self) -> str:
        parts = [f"weights from {self.source}: {len(self.loaded)} tensors loaded"]
        for label, names in (("new", self.new), ("of another shape, so new", self.reshaped), ("unused", self.unused)):
            if names:
                shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
                parts.append(f"{label}: {shown}")
        return printable("; ".join(parts))


def load_weights(network: nn.Module, source: str | Path) -> WeightsReport:
    """Load what fits by name and shape from a checkpoint, a run folder or a file of weights (.safetensors, .pth, ...).

    A network whose backbone is a part of it (`backbone.conv1.weight`) takes a plain classifier's weights there, and a
    plain classifier takes those of a network that wraps its like (`model.conv1.weight` beside `loss.weight`).
    Raises `ValueError` where the file is not readable, holds code, or fits in less than half of the network's backbone.
    """
    file = read_state_dict(source)
    own = network.state_dict()
    wrapper, prefix = _fitting(own, file.tensors)
    inner = {name.removeprefix(wrapper): t for name, t in file.tensors.items() if name.startswith(wrapper)}
    state = {prefix + name: tensor for name, tensor in inner.items()}
    loaded = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    network.load_state_dict({**own, **loaded})
    report = WeightsReport(
        source=file.source,
        loaded=tuple(loaded),
        new=tuple(name for name in own if name not in state),
        reshaped=tuple(name for name in state if name in own and name not in loaded),
        unused=(
            *(name for name in state if name not in own),
            *(name for name in file.tensors if not name.startswith(wrapper)),
        ),
    )
    if len(loaded) < len(own if not prefix else [name for name in own if name.startswith(prefix)]) / 2:
        raise ValueError(f"the weights do not fit this network. {report}")
    return report


def _fitting(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> tuple[str, str]:
    """What to take away from the names of `state`, and what to put before them, for most to be in the network."""
    prefixes = {""} | {f"{name.split('.')[0]}." for name in own} | {".".join(name.split(".")[:2]) + "." for name in own}
    choices = [(wrapper, prefix) for wrapper in wrappings(state) for prefix in prefixes]
    return max(
        sorted(choices, key=lambda choice: (len(choice[0]) + len(choice[1]), choice)),
        key=lambda choice: sum(
            name.startswith(choice[0]) and choice[1] + name[len(choice[0]) :] in own for name in state
        ),
    )


def he_fan_in(network: nn.Module) -> None:
    """He's initialisation: normal, deviation sqrt(2 / fan-in), for all convolutions (paper and released code)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


def make_network(
    recipe: Recipe, classes: tuple[str, ...], samples: Samples | None = None, /, **input_changes: Any
) -> tuple[nn.Module, NetworkCard]:
    """The recipe's network for `classes`, initialised under the recipe's seed, and its card.

    samples: of the training data, for a recipe that converts on photos. input_changes: fields of the card's `InputSpec`
    to set (crop_pct, crop_mode). Prints what was not loaded. Raises `ValueError` where no network is named, it is
    unknown or its arguments do not fit.
    """
    if recipe.network is None and recipe.weights and means_checkpoint(recipe.weights):
        return _from_checkpoint(recipe, classes, samples, **input_changes)
    if recipe.network is None:
        raise ValueError("the recipe names no network: give --network NAME (`resnext_small_elastic`, ...)")
    if (given := recipe.network_kwargs.get("num_classes", len(classes))) != len(classes):
        text = f"network_kwargs.num_classes={given}: the data has {len(classes)} classes: leave it out"
        raise Refused(text, "network_kwargs", "num_classes")
    with concerning("network"):
        found = find_source(recipe.network) if is_source(recipe.network) else NetworkSource(recipe.network)
    arguments = {**found.arguments, **recipe.network_kwargs, "num_classes": len(classes)}
    published = recipe.weights == "timm" or (found.config is not None and recipe.weights is None)
    if published and recipe.init == "he_fan_in":
        raise Refused("init=he_fan_in would overwrite weights=timm: leave one of them out", "init")
    try:
        check_arguments(found.network, arguments)
    except ValueError as error:
        text = f"{error}: name the architecture, and give weights=FILE or weights=timm"
        raise Refused(text, "network_kwargs") from error
    torch.manual_seed(recipe.seed)
    with concerning("network"):
        network = create_network(found.network, arguments, RECIPE if published else None, found.config)
    if recipe.init == "he_fan_in":
        he_fan_in(network)
    if recipe.weights is not None and not published:
        with concerning("weights"):
            print(load_weights(network, recipe.weights))
    card = NetworkCard(
        found.network, arguments, recipe.task, classes, make_input_spec(recipe, network, **input_changes)
    )
    check_teacher(recipe, card)
    return make_elastic(recipe, network, card, samples)


def _from_checkpoint(
    recipe: Recipe, classes: tuple[str, ...], samples: Samples | None, /, **input_changes: Any
) -> tuple[nn.Module, NetworkCard]:
    """The very network that `recipe.weights` holds, converted ones too, and its card for this run.

    For other classes, or another task with answers for images, its classifier is new. `ValueError` where it cannot be,
    or the recipe asks for what would build another network.
    """
    with concerning("weights"):
        network, card = load_checkpoint(str(recipe.weights))
        if recipe.network_kwargs or recipe.init != "timm" or (recipe.elastic and card.elastic is not None):
            raise ValueError(
                "without network=NAME the checkpoint's network is taken as it is: leave out elastic, init, kwargs"
            )
        if card.task != recipe.task or card.classes != classes:
            network, card = _with_new_classifier(recipe, network, card, classes)
    conversion = {key: card.info[key] for key in ("conversion",) if key in card.info}
    spec = make_input_spec(recipe, network, **input_changes)
    card = replace(card, input=spec, info=conversion)
    check_teacher(recipe, card)
    return make_elastic(recipe, network.train(), card, samples)


def _with_new_classifier(
    recipe: Recipe, network: Any, card: NetworkCard, classes: tuple[str, ...]
) -> tuple[nn.Module, NetworkCard]:
    if task_spec(card.task).per_pixel or task_spec(recipe.task).per_pixel or not hasattr(network, "reset_classifier"):
        raise ValueError(
            f"{recipe.weights} is for {card.task} with {len(card.classes)} classes, the data has {len(classes)} "
            f"({recipe.task}): name the architecture (network=NAME) to train it with a new classifier"
        )
    torch.manual_seed(recipe.seed)
    network.reset_classifier(len(classes))
    print(f"{recipe.weights} is for {card.task} with {len(card.classes)} classes: its classifier is new")
    return network, replace(
        card, task=recipe.task, classes=classes, kwargs={**card.kwargs, "num_classes": len(classes)}
    )


def classes_to_keep(recipe: Recipe) -> tuple[str, ...]:
    """The classes of the checkpoint that a run starts from, where a teacher alone says what is right: the network goes
    on telling all of them apart, though the photos are of some. None otherwise."""
    alone = recipe.teacher is not None and recipe.distill.labels == 0 and recipe.network is None
    if not (alone and recipe.weights and means_checkpoint(recipe.weights)):
        return ()
    card = read_card(recipe.weights)
    return card.classes if card.task == recipe.task else ()


def classes_of_published(network: nn.Module) -> tuple[str, ...]:
    """ImageNet's classes (synset ids, as its folders are named) that a network by name with published weights answers;
    none for a network of other classes, or of another number of them than the weights were published with."""
    config: Any = getattr(network, "pretrained_cfg", None)
    same = config is not None and getattr(network, "num_classes", None) == config["num_classes"]
    subset = infer_imagenet_subset(network) if same else None
    return () if subset is None else tuple(ImageNetInfo(subset).label_names())


def classes_of_file(source: str) -> tuple[str, ...]:
    """The classes that the card of a checkpoint or run folder names; none for a file without a card."""
    try:
        return read_card(source).classes
    except ValueError:  # weights alone
        return ()


@concerning("teacher")
def check_teacher(recipe: Recipe, card: NetworkCard) -> None:
    """Before a conversion, which takes minutes: `ValueError` where the recipe's teacher cannot be had, or does not fit
    the network with this card. Otherwise `make_teacher` says so, at once."""
    if recipe.convert is not None and recipe.teacher is not None:
        refuse_teacher(recipe.teacher, load_teacher(recipe.teacher)[1], card)


@concerning("teacher")
def load_teacher(source: str) -> tuple[nn.Module, NetworkCard]:
    """A checkpoint, or a network by name with timm's published weights, to learn from."""
    if means_checkpoint(source):
        return load_checkpoint(source)
    fetch = f"python -c \"import timm; timm.create_model('{source}', pretrained=True)\""
    published = Published(
        f"teacher={source}", TRAINED, offline=f"run {fetch} where they can, and copy what it leaves in its folder "
        f"{HF_HUB_CACHE} into this one's (HF_HUB_CACHE names another), or {TRAINED}",
    )  # fmt: skip
    network = create_network(source, {}, published).eval()
    spec = InputSpec(**configured_input(network, "mean", "std"))
    return network, NetworkCard(source, classes=classes_of_published(network), input=spec)


def make_teacher(recipe: Recipe, card: NetworkCard, network: nn.Module) -> Teacher | None:
    """The recipe's teacher beside the network in training, whose card this is; None where it names none."""
    if recipe.teacher is None:
        return None
    return Teacher(recipe.teacher, load_teacher(recipe.teacher), card, network, recipe.distill)


def create_network(
    name: str, arguments: dict[str, Any], published: Published | None = None, config: Any = None
) -> nn.Module:
    """The network, with timm's published weights where `published` asks for them, in the words of whoever asks.

    config: what timm says of weights that do not go by the network's name (`network_sources.find_source`). `ValueError`
    names the network and says what to do where it cannot be built, there are no such weights, or they cannot be had
    from here.
    """
    wanted = {"pretrained": True, **({} if config is None else {"pretrained_cfg": config})}
    local = config is not None and config.get("source") == "local-dir"
    try:
        with hub_that_answers() if published and not local else nullcontext():
            return create_model(name, **arguments, **(wanted if published else {}))
    except (TypeError, AttributeError, AssertionError, RuntimeError) as error:
        if published and "pretrained weights" in str(error).lower():
            raise ValueError(
                f"{published.asked}: there are no published weights of {name}: {published.file}, or take a network "
                f"that has them{published.elastic}"
            ) from error
        raise Refused(f"{name} cannot be built with {arguments}: {error}", "network_kwargs") from error
    except OSError as error:  # of the connection, or of the cache
        if not published:
            raise
        what = f"{published.asked}: the published weights of {name}"
        raise cannot_be_had(what, error, published.offline or f"{DOWNLOAD} {published.file}") from error


def make_input_spec(recipe: Recipe, network: nn.Module | None = None, **changes: Any) -> InputSpec:
    """Input of the recipe's size; mean, deviation and interpolation as the network's configuration has them.

    A network of other than 3 channels (`network_kwargs.in_chans`) has the configuration's averages for each of them.
    changes: fields to set besides (crop_pct, crop_mode, max_value, background).
    """
    with concerning("image_size"):
        spec = InputSpec(size=recipe.size, **{**configured_input(network, "mean", "std"), **changes})
    return spec.of_channels(recipe.network_kwargs.get("in_chans", len(spec.mean)))


def configured_input(network: nn.Module | None, *keys: str) -> dict[str, Any]:
    """What timm's configuration of a network says of these keys and, where photos can be so resized here, of the
    interpolation; empty where it has none."""
    config = resolve_data_config(model=network) if hasattr(network, "pretrained_cfg") else {}
    known = {key: config[key] for key in keys if key in config}
    return known | {key: config[key] for key in ("interpolation",) if config.get(key) in ("bilinear", "bicubic")}
