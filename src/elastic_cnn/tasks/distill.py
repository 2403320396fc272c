"""Distillation: train a network towards the answers of a trained one, its teacher, with labels mixed in or without.

The teacher sees what the network sees, mixed and cropped as it is, normalised by its own mean and deviation. For class
scores the loss is the divergence of both networks' probabilities at a temperature (Hinton et al., 2015; times its
square), for multi-label scores label by label. The outputs of elastic blocks can be drawn towards those
of the teacher's blocks of the same names, too.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.tasks.strict import concerning
from elastic_cnn.tasks.task import Batch
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard


@dataclass(frozen=True)
class Distill:
    """labels: part of the loss that the labels have; the teacher has the rest. temperature: at which probabilities are
    compared. blocks: how much is added for each elastic block's output, per variance of the teacher's, averaged over
    the blocks. `ValueError` for values that make no sense."""

    labels: float = 0.0
    temperature: float = 2.0
    blocks: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.labels < 1:
            raise ValueError(f"distill.labels={self.labels} must lie in 0..1; at 1 there is nothing to distill")
        if self.temperature <= 0:
            raise ValueError(f"distill.temperature={self.temperature} must be positive")
        if not self.blocks >= 0:
            raise ValueError(f"distill.blocks={self.blocks} must not be negative")


class Teacher:
    """A trained network beside one in training, whose every forward pass it notes."""

    @concerning("teacher")
    def __init__(
        self,
        name: str,
        taught: tuple[nn.Module, NetworkCard],
        card: NetworkCard,
        network: nn.Module,
        options: Distill,
    ) -> None:
        """name: of the teacher, for messages; taught: its network and card. card, network: of what is in training."""
        self.network, own = taught
        refuse_teacher(name, own, card)
        self.network.requires_grad_(False)
        self._inputs = card.input, own.input
        self.task, self.options = card.task, options
        self._seen: tuple[Tensor, Any] | None = None
        network.register_forward_hook(self._note)
        self._own: dict[str, Tensor] = {}
        self._teacher_outputs: dict[str, Tensor] = {}
        if options.blocks:
            self._watch(network)

    def _watch(self, network: Any) -> None:
        """Note the outputs of elastic blocks, and of those of the same names in the teacher."""
        report = getattr(network, "elastic_report", None)
        if report is None:
            raise ValueError("distill.blocks compares elastic blocks with the teacher's, and the network has none")
        modules, taught = dict(network.named_modules()), dict(self.network.named_modules())
        if missing := [name for name in report.converted if name not in taught]:
            raise ValueError(f"distill.blocks needs the network's blocks in the teacher, which has no {missing[0]}")

        def note(seen: dict[str, Tensor], name: str) -> Any:
            return lambda block, _, output: seen.__setitem__(name, output) if torch.is_grad_enabled() else None

        def note_teacher(name: str) -> Any:
            return lambda block, _, output: self._teacher_outputs.__setitem__(name, output)

        for name in report.converted:
            modules[name].register_forward_hook(note(self._own, name))
            taught[name].register_forward_hook(note_teacher(name))

    def _note(self, network: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if network.training:
            self._seen = args[0], output

    def mix(self, loss: Tensor) -> Tensor:
        """The loss of the training step that just ran, with the teacher's part."""
        if self._seen is None:
            raise ValueError("the task did not call its network in the training step: there is nothing to distill")
        images, logits = self._seen
        self._seen = None
        self.network.to(images.device)
        with torch.no_grad():
            target = self.network(renormalised(images, *self._inputs))
        own = distillation_loss(logits, target, self.task, self.options.temperature)
        if self.options.blocks:
            own = own + self.options.blocks * self._block_loss()
        return own if self.options.labels == 0 else torch.lerp(own, loss, self.options.labels)

    @torch.no_grad()
    def label(self, batch: Batch) -> Batch:
        """A batch of photos without labels -> the same, its targets (N,) the classes that the teacher answers."""
        self.network.to(batch["image"].device)
        return {**batch, "target": self.network(renormalised(batch["image"], *self._inputs)).argmax(1)}

    def _block_loss(self) -> Tensor:
        """(): squared difference of the blocks' outputs over the teacher's variance, mean over the blocks."""
        losses = []
        for name, target in self._teacher_outputs.items():
            own = self._own.pop(name)
            if own.shape != target.shape:
                raise ValueError(
                    f"distill.blocks: {name} puts out {tuple(own.shape)}, the teacher's {tuple(target.shape)}"
                )
            losses.append((own.float() - target.float()).square().mean() / target.float().var().clamp_min(1e-12))
        self._teacher_outputs.clear()
        return torch.stack(losses).mean()


def refuse_teacher(name: str, own: NetworkCard, card: NetworkCard) -> None:
    """`ValueError` where a network with the card `own` cannot teach one with the card `card`."""
    if own.task != card.task or own.classes != card.classes:
        raise ValueError(
            f"teacher={name} answers another question than the data asks: {own.task} with "
            f"{len(own.classes)} classes, where the data has {len(card.classes)} ({card.task}): "
            "name a teacher of the data's classes, or, where the data's folders are no classes, options.labels=none"
        )
    if task_spec(card.task).teaching is None:
        raise ValueError(f"teacher={name}: the task {card.task} says no loss between two networks' answers")
    if len(own.input.mean) != len(card.input.mean):
        raise ValueError(
            f"teacher={name} takes images of {len(own.input.mean)} channels, the network {len(card.input.mean)}"
        )


def renormalised(images: Tensor, own: InputSpec, other: InputSpec) -> Tensor:
    """(N, C, H, W) normalised as `own` says -> as `other` says; the very same images where that is the same."""
    if (own.mean, own.std) == (other.mean, other.std):
        return images
    mean, std, to_mean, to_std = (
        images.new_tensor(values).view(-1, 1, 1) for values in (own.mean, own.std, other.mean, other.std)
    )
    return (images * std + mean - to_mean) / to_std


def distillation_loss(logits: Any, target: Tensor, task: str, temperature: float) -> Tensor:
    """(), from logits of both networks, (N, classes) or (N, classes, H, W); an auxiliary head's are left out."""
    logits = logits[0] if isinstance(logits, tuple) else logits
    own, other = logits.float() / temperature, target.float() / temperature
    loss: Tensor = task_spec(task).code("teaching")(own, other)
    return loss * temperature**2


def by_classes(logits: Tensor, target: Tensor) -> Tensor:
    """(), the mean divergence of the class probabilities of images or pixels: logits (N, classes, ...)."""
    return F.kl_div(logits.log_softmax(1), target.log_softmax(1), log_target=True, reduction="none").sum(1).mean()


def by_labels(logits: Tensor, target: Tensor) -> Tensor:
    """(), the mean cross-entropy of each label's probability: logits (N, classes)."""
    return F.binary_cross_entropy_with_logits(logits, target.sigmoid())
