"""Equation 5 of the paper: the scale policy of an image, one score a block.

    score = mean(a_high) - mean(a_low)

where `a` is a branch's activation (after its 3x3 convolution, norm in eval mode, and ReLU) and the mean runs over its
channels and positions. High scores mean fine detail, low ones coarse. Where a branch ends in a convolution with nothing
after it (networks that became elastic one convolution at a time), the positive part of its output is taken. A block of
more than one low-resolution branch takes the mean of their means, each branch counted once, whatever its share of the
channels.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from elastic_cnn.nn import Branch, ElasticBranches

_WANTED = "images must be a batch of float images (N, C, H, W), normalised as the network's card says"


@dataclass(frozen=True)
class BlockInfo:
    """One elastic block: its name in the network, the scale of each branch, its stage as surgery counted it (1, 2, ...;
    None where it did not), and height and width of its high-resolution activation (None before the network ran)."""

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
            "make it elastic first (elasticize, or one of the zoo's elastic networks); "
            "`elastic explore CHECKPOINT --data DIR` shows the answers of any network"
        )
    stages = _stages(network)
    blocks = []
    for name, module in found:
        short = name.removesuffix("branches").removesuffix(".") or name
        scales = tuple(branch.scale for branch in (module.high, *module.low))
        blocks.append(_Block(BlockInfo(_plain_name(short), scales, _stage_of(name, stages)), module))
    return blocks


def _stages(network: nn.Module) -> dict[str, int]:
    """{name of a converted block: stage}, from the reports of every network that surgery made, parts included."""
    stages: dict[str, int] = {}
    for prefix, module in network.named_modules():
        report: Any = getattr(module, "elastic_report", None)
        for name, stage in (report.stages if report is not None else {}).items():
            stages[f"{prefix}.{name}".lstrip(".")] = stage
    return stages


def _stage_of(name: str, stages: dict[str, int]) -> int | None:
    """Of the block that the branches of this name stand in."""
    while name and name not in stages:
        name = name.rpartition(".")[0]
    return stages.get(name)


def _plain_name(name: str) -> str:
    """Without what `torch.compile` and parallel wrappers put before it."""
    for wrapper in ("_orig_mod.", "module."):
        name = name.removeprefix(wrapper)
    return name


class PolicyRecorder:
    """What `record_policy` yields: the scores and blocks of the network's latest forward, in order of execution.

    A block that a network calls several times in one forward has the mean of its calls, where each saw all images.
    """

    def __init__(self, blocks: list[_Block]):
        self._blocks = blocks
        # {block: {branch: [(N,) of each call]}}; insertion is order of execution
        self._means: dict[int, dict[int, list[Tensor]]] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._outside: set[int] = set()  # blocks called again while the network itself was not
        self._mapped: set[int] = set()  # blocks called under torch.vmap, whose tensors cannot be kept
        self._running = False

    def _begin(self, *_: Any) -> None:
        self._means, self._sizes, self._outside, self._mapped, self._running = {}, {}, set(), set(), True

    def _end(self, *_: Any) -> None:
        self._running = False

    def _observer(self, block: int, branch: int) -> Callable[..., None]:
        def observe(module: nn.Module, inputs: Any, activation: Tensor) -> None:  # activation: (N, C, H, W)
            dtype = torch.float64 if activation.dtype == torch.float64 else torch.float32
            if torch._C._functorch.is_batchedtensor(activation):
                self._mapped.add(block)
                return
            if isinstance(module, (nn.Conv2d, nn.ModuleList)):  # no activation of its own
                activation = activation.relu()
            means = self._means.setdefault(block, {}).setdefault(branch, [])
            if means and not self._running:
                self._outside.add(block)
            means.append(activation.detach().mean(dim=(1, 2, 3), dtype=dtype))
            if branch == 0 and len(means) == 1:
                self._sizes[block] = (activation.shape[-2], activation.shape[-1])

        return observe

    def _check(self) -> None:
        if self._mapped:
            raise ValueError(
                f"these blocks run under torch.vmap, where no image's activation can be kept, so that no image has a "
                f"score there: {self._names(self._mapped)}; call them on a batch instead"
            )
        if not self._means:
            raise ValueError("no elastic block ran yet: call the network inside record_policy, then read the scores")
        if self._outside:
            raise ValueError(
                f"these blocks ran more than once, so their score is ambiguous: {self._names(self._outside)}; "
                "call the recorded network itself, once for each reading"
            )
        lengths = {block: {len(m) for calls in means.values() for m in calls} for block, means in self._means.items()}
        most = max((sizes for sizes in lengths.values()), key=max)
        if odd := {block for block, sizes in lengths.items() if sizes != {max(most)}}:
            raise ValueError(
                f"these blocks did not see every image once a call (regions, crops, windows), so that no image has a "
                f"score there: {self._names(odd)}"
            )

    def _names(self, blocks: Iterable[int]) -> str:
        return ", ".join(self._blocks[block].info.name for block in sorted(blocks))

    def scores(self) -> Tensor:
        """The latest forward's scores: (N, blocks) float32 on the network's device, blocks in order of execution.

        Blocks that did not run have no column. `ValueError` where no elastic block ran, or one has no score an image.
        """
        self._check()
        columns = []
        for means in self._means.values():
            mean = {branch: torch.stack(calls).mean(dim=0) for branch, calls in means.items()}  # (N,) each
            low = torch.stack([value for branch, value in mean.items() if branch > 0])  # (low branches, N)
            columns.append(mean[0] - low.mean(dim=0))
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


def _uncompiled(network: nn.Module) -> AbstractContextManager[Any]:
    """Compiled code does not see hooks: where there is any, it runs as it was written."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
        for module in network.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def is_elastic(network: nn.Module) -> bool:
    """Whether the network has a scale policy: a block of several resolutions."""
    return any(isinstance(module, ElasticBranches) for module in network.modules())


def record_if_elastic(network: nn.Module) -> AbstractContextManager[PolicyRecorder | None]:
    """`record_policy` of a network that has a policy; None within the block, and nothing changed, for another."""
    return record_policy(network) if is_elastic(network) else nullcontext()


@contextmanager
def record_policy(network: nn.Module) -> Iterator[PolicyRecorder]:
    """Record Equation 5 while `network` runs, so that one forward gives the logits and the policy:

        with record_policy(network) as policy, torch.no_grad():
            logits = network(images)  # (N, classes)
            scores = policy.scores()  # (N, blocks)

    The network is in eval mode inside; the training mode of each of its modules is restored and the hooks are removed
    at the end, also after an error. Each call of the network starts anew; only a mean per image, block and branch is
    kept, in float32 whatever the activations' precision. A compiled network runs uncompiled
    inside. `ValueError` where the network has no elastic block.
    """
    blocks = _find_blocks(network)
    recorder = PolicyRecorder(blocks)
    modes = [(module, module.training) for module in network.modules()]
    handles: list[RemovableHandle] = []
    try:
        handles.append(network.register_forward_pre_hook(recorder._begin))
        handles.append(network.register_forward_hook(recorder._end, always_call=True))
        for number, block in enumerate(blocks):
            for index, branch in enumerate(block.branches):
                probe = branch.transform.get_submodule(branch.probe)
                handles.append(probe.register_forward_hook(recorder._observer(number, index)))
        network.eval()
        with _uncompiled(network):
            yield recorder
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training


def scale_policy(network: nn.Module, images: Tensor) -> Tensor:
    """The scale policy (Equation 5) of `images` (N, C, H, W): (N, blocks) float32, blocks in order of execution.

    Positive where the block's high-resolution branch responds more. No gradient is kept; the network is put in eval
    mode and back. `ValueError` where the network has no elastic block or `images` is no batch.
    """
    _check_images(images)
    with record_policy(network) as policy, torch.no_grad():
        try:
            network(images)
        except RuntimeError as error:
            _check_channels(network, images, error)
            raise
        return policy.scores()


def _check_images(images: object) -> None:
    """`ValueError`, in a sentence, where `images` is no batch (N, C, H, W) of floating-point numbers."""
    if not isinstance(images, Tensor):
        raise ValueError(f"{_WANTED}, not {type(images).__name__}: prepare photos by `elastic_cnn.data.eval_transform`")
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise ValueError(f"{_WANTED}, got one of shape {shape}")
    if not images.is_floating_point():
        raise ValueError(f"{_WANTED}, got {images.dtype}: divide by 255, subtract the mean, divide by the deviation")


def _check_channels(network: nn.Module, images: Tensor, error: RuntimeError) -> None:
    """After a network failed: `ValueError` where the images have not the channels of its first convolution."""
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    shape = tuple(images.shape)
    if first is not None and shape[1] != first.in_channels:
        order = "; its channels come last: use permute(0, 3, 1, 2)" if shape[3] == first.in_channels else ""
        raise ValueError(f"{_WANTED}; this network takes C = {first.in_channels}, got shape {shape}{order}") from error


def block_info(network: nn.Module, images: Tensor | None = None) -> list[BlockInfo]:
    """The network's elastic blocks: name, scales, stage and, where `images` (N, C, H, W) are given, resolution.

    With `images` the network runs once and the order is that of execution (as in `scale_policy`); without, it is the
    order of definition. `ValueError` where the network has no elastic block.
    """
    if images is None:
        return [block.info for block in _find_blocks(network)]
    with record_policy(network) as policy, torch.no_grad():
        network(images)
        return policy.blocks
