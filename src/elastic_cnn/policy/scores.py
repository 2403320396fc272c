"""Equation 5 of the paper: the scale policy of an image, one score a block.

    score = mean(a_high) - mean(a_low)

where `a` is a branch's activation (after its 3x3 convolution, norm in eval mode, and ReLU) and the mean runs over its
channels and positions. High scores mean fine detail, low ones coarse. Where a branch ends in a convolution with nothing
after it (networks that became elastic one convolution at a time), the positive part of its output is taken. A block of
more than one low-resolution branch takes the mean of their means, each branch counted once, whatever its share of the
channels.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from elastic_cnn.nn import Branch, ElasticBranches

_STAGE = re.compile(r"(?:layer|level|stages?|blocks?|denseblock)[._]?(\d+)(?:[._]|$)")


@dataclass(frozen=True)
class BlockInfo:
    """One elastic block: its name in the network, the scale of each branch, the stage that its name tells (None where
    it does not), and height and width of its high-resolution activation (None before the network ran)."""

    name: str
    scales: tuple[int, ...]
    stage: int | None
    height: int | None = None
    width: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, as JSON holds them."""
        return {**asdict(self), "scales": list(self.scales)}


@dataclass
class _Block:
    info: BlockInfo
    module: ElasticBranches

    @property
    def branches(self) -> list[Branch]:
        return [self.module.high, *self.module.low]


def _find_blocks(network: nn.Module) -> list[_Block]:
    """The elastic blocks in order of definition. `ValueError` where there is none."""
    if getattr(network, "optimization_report", None) is not None:
        raise ValueError(
            "the network is optimized for inference, where its blocks no longer hold the activations of Equation 5; "
            "take the scale policy from the network that it was made from"
        )
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, ElasticBranches)]
    if not found:
        raise ValueError(
            f"{type(network).__name__} has no elastic block, so it has no scale policy; "
            "make it elastic first (elasticize, or one of the zoo's elastic networks)"
        )
    blocks = []
    for name, module in found:
        short = name.removesuffix("branches").removesuffix(".") or name
        match = _STAGE.search(short)
        scales = tuple(branch.scale for branch in (module.high, *module.low))
        blocks.append(_Block(BlockInfo(short, scales, int(match.group(1)) if match else None), module))
    return blocks


class PolicyRecorder:
    """What `record_policy` yields: the scores and blocks of the network's latest forward, in order of execution."""

    def __init__(self, blocks: list[_Block]):
        self._blocks = blocks
        self._means: dict[int, dict[int, Tensor]] = {}  # {block: {branch: (N,)}}; insertion is order of execution
        self._sizes: dict[int, tuple[int, int]] = {}
        self._repeated: set[int] = set()

    def _begin(self, *_: Any) -> None:
        self._means, self._sizes, self._repeated = {}, {}, set()

    def _observer(self, block: int, branch: int) -> Callable[..., None]:
        def observe(module: nn.Module, inputs: Any, activation: Tensor) -> None:  # activation: (N, C, H, W)
            dtype = torch.float64 if activation.dtype == torch.float64 else torch.float32
            if isinstance(module, (nn.Conv2d, nn.ModuleList)):  # no activation of its own
                activation = activation.relu()
            means = self._means.setdefault(block, {})
            if branch in means:
                self._repeated.add(block)
            means[branch] = activation.detach().mean(dim=(1, 2, 3), dtype=dtype)
            if branch == 0:
                self._sizes[block] = (activation.shape[-2], activation.shape[-1])

        return observe

    def _check(self) -> None:
        if not self._means:
            raise ValueError("no elastic block ran yet: call the network inside record_policy, then read the scores")
        if self._repeated:
            names = ", ".join(self._blocks[block].info.name for block in sorted(self._repeated))
            raise ValueError(
                f"these blocks ran more than once in one forward, so their score is ambiguous: {names}; "
                "call the recorded network itself, once for each reading"
            )

    def scores(self) -> Tensor:
        """The latest forward's scores: (N, blocks) float32 on the network's device, blocks in order of execution.

        `ValueError` where no elastic block ran, or one ran more than once.
        """
        self._check()
        columns = []
        for means in self._means.values():
            low = torch.stack([mean for branch, mean in means.items() if branch > 0])  # (low branches, N)
            columns.append(means[0] - low.mean(dim=0))
        return torch.stack(columns, dim=1).float()  # (N, blocks)

    @property
    def blocks(self) -> list[BlockInfo]:
        """The blocks of the latest forward, with their resolution there; in the order of the columns of `scores`."""
        self._check()
        infos = []
        for block in self._means:
            height, width = self._sizes[block]
            infos.append(replace(self._blocks[block].info, height=height, width=width))
        return infos


@contextmanager
def record_policy(network: nn.Module) -> Iterator[PolicyRecorder]:
    """Record Equation 5 while `network` runs, so that one forward gives the logits and the policy:

        with record_policy(network) as policy, torch.no_grad():
            logits = network(images)  # (N, classes)
            scores = policy.scores()  # (N, blocks)

    The network is in eval mode inside; the training mode of each of its modules is restored and the hooks are removed
    at the end, also after an error. Each call of the network starts anew; only a mean per image, block and branch is
    kept, in float32 whatever the activations' precision. `ValueError` where the network has no elastic block.
    """
    blocks = _find_blocks(network)
    recorder = PolicyRecorder(blocks)
    modes = [(module, module.training) for module in network.modules()]
    handles: list[RemovableHandle] = []
    try:
        handles.append(network.register_forward_pre_hook(recorder._begin))
        for number, block in enumerate(blocks):
            for index, branch in enumerate(block.branches):
                probe = branch.transform.get_submodule(branch.probe)
                handles.append(probe.register_forward_hook(recorder._observer(number, index)))
        network.eval()
        yield recorder
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training


def scale_policy(network: nn.Module, images: Tensor) -> Tensor:
    """The scale policy (Equation 5) of `images` (N, 3, H, W): (N, blocks) float32, blocks in order of execution.

    Positive where the block's high-resolution branch responds more. No gradient is kept; the network is put in eval
    mode and back. `ValueError` where the network has no elastic block or `images` is no batch.
    """
    check_images(network, images)
    with record_policy(network) as policy, torch.no_grad():
        network(images)
        return policy.scores()


def check_images(network: nn.Module, images: object) -> None:
    """`ValueError`, in a sentence, where `images` is no batch (N, C, H, W) of numbers that the network can take."""
    wanted = "images must be a batch of float images (N, C, H, W), normalised as the network's card says"
    if not isinstance(images, Tensor):
        raise ValueError(f"{wanted}, not {type(images).__name__}: prepare photos by `elastic_cnn.data.eval_transform`")
    shape = tuple(images.shape)
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    channels = None if first is None else first.in_channels
    if images.ndim != 4:
        raise ValueError(f"{wanted}, got one of shape {shape}")
    if not images.is_floating_point():
        raise ValueError(f"{wanted}, got {images.dtype}: divide by 255, subtract the mean, divide by the deviation")
    if channels is not None and shape[1] != channels:
        order = "; its channels come last: use permute(0, 3, 1, 2)" if shape[3] == channels else ""
        raise ValueError(f"{wanted}; this network takes C = {channels}, got shape {shape}{order}")


def block_info(network: nn.Module, images: Tensor | None = None) -> list[BlockInfo]:
    """The network's elastic blocks: name, scales, stage and, where `images` (N, 3, H, W) are given, resolution.

    With `images` the network runs once and the order is that of execution (as in `scale_policy`); without, it is the
    order of definition. `ValueError` where the network has no elastic block.
    """
    if images is None:
        return [block.info for block in _find_blocks(network)]
    with record_policy(network) as policy, torch.no_grad():
        network(images)
        return policy.blocks
