"""Run an elastic network over a data set and stream its policy to Parquet.

The images are dealt to the processes in chunks of consecutive numbers. A finished chunk is a part file, written whole
or not at all, so a run that was killed goes on after its finished parts, with any number of processes, and does none of
their images again. At the end the first process joins the parts into one table. Memory holds one chunk of rows and the
batches under way, whatever the size of the data set.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from elastic_cnn.data.sampler import Samples, UnreadableSample, make_loader
from elastic_cnn.files import refuse_to_overwrite
from elastic_cnn.policy.answers import Answer, interpret
from elastic_cnn.policy.features import FeatureRecorder, record_features
from elastic_cnn.policy.processes import Processes
from elastic_cnn.policy.scores import PolicyRecorder, is_elastic, record_policy
from elastic_cnn.policy.table import PolicyInfo, merge_parts, read_info, write_part

_PART = re.compile(r"part-(\d+)\.parquet")


class Photos(Samples, Protocol):
    """The data set: `photos[i]["image"]` is a float tensor (3, H, W); `path(i)` is relative to the data's root."""

    def label(self, index: int, target: int | None = None) -> str | list[str] | None:
        """The class, or the classes for multi-label; None where unknown. `target`: the sample's value of that name."""
        ...

    def object_sizes(self, index: int) -> list[float] | None:
        """Sizes of the image's objects, in `PolicyInfo.size_unit`; None where unknown."""
        ...


@dataclass(frozen=True)
class Collection:
    """What a collection did. `rows`: images in the table; `unreadable`: (path, reason) of those left out by this run;
    `resumed`: images found done already; `seconds`: of this run."""

    path: Path
    info: PolicyInfo
    rows: int
    resumed: int
    unreadable: list[tuple[str, str]]
    seconds: float


@dataclass(frozen=True)
class Settings:
    """How to run: images a batch, images a part file, worker processes that read images, device, precision (`32` or
    `bf16`, `16` by autocast), whether an unreadable image is an error."""

    batch_size: int = 64
    part_size: int = 512
    workers: int = 2
    device: str = "cpu"
    precision: str = "32"
    strict: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.part_size < 1 or self.workers < 0:
            raise ValueError(f"batch_size and part_size must be positive, workers not negative, got {self}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; choose from {', '.join(PRECISIONS)}")


PRECISIONS = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}


class _Chunks:
    """Batches of (epoch, index) over chunks of consecutive indices; no batch reaches over the end of its chunk."""

    def __init__(self, chunks: Sequence[range], batch_size: int) -> None:
        self.chunks, self.batch_size = chunks, batch_size

    def __len__(self) -> int:
        return sum(-(-len(chunk) // self.batch_size) for chunk in self.chunks)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for chunk in self.chunks:
            for start in range(0, len(chunk), self.batch_size):
                yield [(0, index) for index in chunk[start : start + self.batch_size]]


def collect(
    network: nn.Module,
    photos: Photos,
    out: str | Path,
    info: PolicyInfo,
    *,
    base: nn.Module | None = None,
    base_classes: Sequence[str] = (),
    settings: Settings | None = None,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
    plain: bool = False,
) -> Collection:
    """Write `out/policy.parquet`: the policy and answers of `network` (and the answers of `base`) for all photos.

    info: the table's description; its blocks are replaced by those that run, with their resolutions. `progress` is
    called with the number of images done since its last call. Under `torchrun` every process takes a share; all return
    the same. Finished parts in `out/parts` are kept and not done again; `overwrite` removes them and a finished table.

    plain: also take a network without elastic blocks; its table holds answers and features, and no policy.

    Raises `ValueError` where the network has no elastic block (and `plain` is not set), there are no photos, the table
    exists, `out/parts` holds another collection's parts, or no image could be read; `UnreadableSample` when strict.
    """
    settings, out, started = settings or Settings(), Path(out), time.monotonic()
    processes = Processes.join(settings.device)
    device = processes.device
    networks = [module.to(device) for module in (network, base) if module is not None]
    if len(photos) == 0:
        raise ValueError(f"no photos in {info.data_root}")
    blocks, width = _what_runs(networks[0], info, device, plain)
    info = replace(info, blocks=blocks, features=width, top=True)
    info = PolicyInfo.from_json(info.to_json())  # as it will be read from parts
    runner = _Runner(networks, photos, info, [info.classes, tuple(base_classes)], device, settings.precision)
    parts = out / "parts"
    size = settings.part_size
    todo, resumed = processes.from_first(lambda: _plan(out, len(photos), size, info, overwrite))
    chunks = [range(start, min(start + size, len(photos))) for start in todo[processes.rank :: processes.count]]
    unreadable = _run(runner, chunks, parts, settings, progress or (lambda count: None))
    unreadable = [pair for pairs in processes.gather(unreadable) for pair in pairs]

    def join() -> int:
        rows = merge_parts(_sorted_parts(parts), out / "policy.parquet", info)
        if rows == 0:
            (out / "policy.parquet").unlink()
            raise ValueError(f"none of the {len(photos)} images could be read; the first: {': '.join(unreadable[0])}")
        for part in _sorted_parts(parts):
            part.unlink()
        parts.rmdir()
        return rows

    rows = processes.from_first(join)
    return Collection(out / "policy.parquet", info, rows, resumed, unreadable, time.monotonic() - started)


def _what_runs(network: nn.Module, info: PolicyInfo, device: torch.device, plain: bool) -> tuple[tuple, int]:
    """The blocks in order of execution, with their resolutions at the size of the network's input, and the width of
    the features. No blocks for a network without any, where `plain` allows it."""
    height, width = info.input["size"]
    images = torch.zeros(1, len(info.input.get("mean", "rgb")), height, width, device=device)
    with _watched(network, plain) as (policy, features), torch.no_grad():
        width = features.features(network(images)).shape[1]
        return (() if policy is None else tuple(policy.blocks)), width


@contextmanager
def _watched(network: nn.Module, plain: bool) -> Iterator[tuple[PolicyRecorder | None, FeatureRecorder]]:
    """The network in eval mode with its policy (None for a network without elastic blocks, with `plain`) and features
    recorded; mode and hooks are put back at the end."""
    with ExitStack() as stack:
        policy = None
        if is_elastic(network) or not plain:
            policy = stack.enter_context(record_policy(network))
        else:
            stack.callback(network.train, network.training)
            network.eval()
        yield policy, stack.enter_context(record_features(network))


def _sorted_parts(parts: Path) -> list[Path]:
    return sorted(path for path in parts.iterdir() if _PART.fullmatch(path.name))


def _plan(out: Path, count: int, size: int, info: PolicyInfo, overwrite: bool) -> tuple[list[int], int]:
    """The first indices of the chunks to do, and how many images are done. `ValueError` for another run's results."""
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for path in (out / "policy.parquet", *_sorted_parts(parts)):
            path.unlink(missing_ok=True)
    refuse_to_overwrite(out / "policy.parquet", "choose another output, or pass --overwrite to collect anew")
    done = set()
    for path in _sorted_parts(parts):
        found = read_info(path)
        if found != info:
            changed = [name for name in vars(info) if getattr(info, name) != getattr(found, name)]
            raise ValueError(
                f"{path} is from a collection with another {', '.join(changed)}: pass --overwrite to start anew, "
                "or choose another output"
            )
        match = _PART.fullmatch(path.name)
        assert match is not None
        done.add(int(match.group(1)))
    todo = [start for start in range(0, count, size) if start not in done]
    return todo, sum(min(size, count - start) for start in done)


def _run(
    runner: "_Runner", chunks: Sequence[range], parts: Path, settings: Settings, progress: Callable[[int], object]
) -> list[tuple[str, str]]:
    """Do the chunks of this process, writing a part for each; returns the unreadable ones."""
    unreadable: list[tuple[str, str]] = []
    if not chunks:
        return unreadable
    batches = _Chunks(chunks, settings.batch_size)
    loader = iter(
        make_loader(
            runner.photos,
            batches,  # type: ignore[arg-type]
            seed=0,
            workers=settings.workers,
            pin_memory=runner.device.type == "cuda",
        )
    )
    with runner.at_work():
        for chunk in chunks:
            rows: list[dict[str, Any]] = []
            for start in range(0, len(chunk), settings.batch_size):
                batch = _checked(next(loader), settings.strict)
                rows += runner.rows(batch)
                unreadable += batch["unreadable"]
                progress(len(chunk[start : start + settings.batch_size]))
            write_part(parts / f"part-{chunk.start:09d}.parquet", rows, runner.info)
    return unreadable


def _checked(batch: dict[str, Any], strict: bool) -> dict[str, Any]:
    """The batch, where it holds no error of a worker and, if strict, no unreadable image."""
    if "error" in batch:
        raise ValueError(batch["error"])
    if strict and batch["unreadable"]:
        raise UnreadableSample(*batch["unreadable"][0])
    return batch


class _Runner:
    """The networks at work: a collated batch -> rows of the table."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        photos: Photos,
        info: PolicyInfo,
        classes: Sequence[Sequence[str]],
        device: torch.device,
        precision: str,
    ) -> None:
        self.networks, self.photos, self.info, self.device = networks, photos, info, device
        self.classes = classes
        self.names = (info.checkpoint, info.against)
        self.dtype = PRECISIONS[precision]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Where `rows` can be asked for: all networks in eval mode, policy and features of the first recorded."""
        with ExitStack() as stack:
            self._policy, self._features = stack.enter_context(_watched(self.networks[0], not self.info.blocks))
            for network in self.networks[1:]:
                stack.callback(network.train, network.training)
                network.eval()
            yield

    def rows(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of the images that could be read."""
        if "image" not in batch:
            return []
        images: Tensor = batch["image"].to(self.device, non_blocking=True)  # (N, 3, H, W)
        autocast = torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()
        with torch.inference_mode(), autocast:
            logits = [network(images) for network in self.networks]
            features = self._features.features(logits[0])  # (N, D)
            scores = self._policy.scores().cpu() if self._policy else torch.zeros(len(images), 0)  # (N, blocks)
        answers = [
            interpret(each, self.info.task, classes, whose=name)
            for each, classes, name in zip(logits, self.classes, self.names, strict=False)
        ]
        indices = batch["index"].tolist()
        targets = batch["target"].tolist() if "target" in batch else [None] * len(indices)
        return [
            self._row(index, target, scores[i], features[i], [each[i] for each in answers])
            for i, (index, target) in enumerate(zip(indices, targets, strict=True))
        ]

    def _row(
        self, index: int, target: int | None, scores: Tensor, features: Tensor, answers: Sequence[Answer]
    ) -> dict[str, Any]:
        label = self.photos.label(index, target)
        row = {"id": index, "path": self.photos.path(index), "label": label, "scores": scores.tolist()}
        row["object_sizes"] = self.photos.object_sizes(index)
        row["features"] = features.tolist()
        row["top_classes"], row["top_probabilities"] = map(list, zip(*answers[0].ranked, strict=True))
        for prefix, answer, classes in zip(("", "base_"), answers, self.classes, strict=False):
            row[f"{prefix}prediction"] = answer.prediction
            row[f"{prefix}confidence"] = answer.confidence
            row[f"{prefix}correct"] = answer.is_right(label, frozenset(classes))
        return row
