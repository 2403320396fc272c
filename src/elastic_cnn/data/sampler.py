"""Which sample comes when, and with which random augmentation: functions of (seed, epoch, index) and of nothing else.

So the results depend neither on the number of workers nor on where a run was interrupted, and a run that goes on in the
middle of an epoch repeats no sample and skips none.
"""

import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

Key = tuple[int, int]  # epoch, index


class Samples(Protocol):
    """What a task reads its data from: a map-style data set whose samples are dicts with the key `image`.

    It may tell what it found: `found_line` (a line), `notices` (warnings), `counts` ({class: samples}).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def path(self, index: int) -> str:
        """Where the sample comes from, for messages."""
        ...


class UnreadableSample(OSError):
    """A sample's file is broken: the engine leaves it out with a warning and counts it, or stops in strict mode."""

    def __init__(self, path: str, reason: object) -> None:
        super().__init__(f"{path} cannot be read: {reason}")
        self.path = str(path)
        self.reason = " ".join(str(reason).split())

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.reason)


class SeededSamples(Dataset):
    """`samples` by (epoch, index), after seeding python's, numpy's and torch's generators from (seed, epoch, index).

    A sample gets its number as `index`; an unreadable one becomes `{"unreadable": (path, reason)}`. Other bad input met
    in a worker becomes `{"error": message}`, for the main process to raise: workers wrap exceptions in tracebacks.
    """

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples, self.seed = samples, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        seed_generators(self.seed, epoch, index)
        try:
            return {**self.samples[index], "index": index}
        except UnreadableSample as broken:
            return {"unreadable": (broken.path, broken.reason)}
        except (ValueError, OSError) as error:
            if get_worker_info() is None:
                raise
            return {"error": f"{self.samples.path(index)}: {error}"}

    def __getitems__(self, keys: Sequence[Key]) -> list[dict[str, Any]]:
        """A batch of samples; the data set may fetch their files together before (`prefetch`)."""
        prefetch = getattr(self.samples, "prefetch", None)
        if prefetch is not None:
            try:
                prefetch([index for _, index in keys])
            except OSError as error:
                if get_worker_info() is None:
                    raise
                return [{"error": str(error)}]
        return [self[key] for key in keys]


def seed_generators(*numbers: int) -> None:
    """Seed the global generators of python, numpy and torch (CPU) from a few whole numbers, none negative."""
    words = np.random.SeedSequence(numbers).generate_state(4, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]) & 0xFFFFFFFF)  # noqa: NPY002 (augmentations use the global generator)
    torch.default_generator.manual_seed(int(words[2]) & 0x7FFFFFFFFFFFFFFF)


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of the readable samples, with `unreadable`: the list of (path, reason) of the others.

    Holds `unreadable` alone when no sample could be read, and `error` alone when one was found.
    """
    for sample in samples:
        if "error" in sample:
            return sample
    unreadable = [sample["unreadable"] for sample in samples if "unreadable" in sample]
    readable = [sample for sample in samples if "unreadable" not in sample]
    batch = default_collate(readable) if readable else {}
    return {**batch, "unreadable": unreadable}


class TrainBatches:
    """The batches of one process for one epoch, as lists of (epoch, index).

    Every step takes the next `batch_size` samples of the epoch's permutation; they are dealt to the processes and,
    within a process, to `accumulate` batches. The permutation's incomplete end is left out (another end each epoch).
    balance: the class of each sample; an epoch then draws each class equally often, its samples in turn.

    Raises `ValueError` where the batch cannot be divided evenly or exceeds the number of samples.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        *,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        balance: Sequence[int] | None = None,
    ) -> None:
        if batch_size % (world_size * accumulate):
            raise ValueError(
                f"batch_size={batch_size} cannot be divided evenly over {world_size} process(es) x "
                f"accumulate={accumulate}"
            )
        if length < batch_size:
            whole = world_size * accumulate
            fitting = whole << (max(1, length // whole).bit_length() - 1)
            raise ValueError(f"batch_size={batch_size} exceeds the {length} training images: add batch_size={fitting}")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.accumulate, self.rank, self.world_size = accumulate, rank, world_size
        self.steps = length // batch_size
        self.balance = None if balance is None else np.asarray(balance)
        self._epoch = self._first_step = 0

    def start_at(self, epoch: int, step: int = 0) -> None:
        """The next iteration gives the batches of `epoch` from its optimizer step `step` on."""
        self._epoch, self._first_step = epoch, step

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch: (length,) whole numbers; with `balance` some come often, others never."""
        generator = np.random.default_rng([self.seed, epoch])
        if self.balance is None:
            return generator.permutation(self.length)
        classes = np.unique(self.balance)
        drawn = []
        for number, name in enumerate(generator.permutation(classes)):
            own = np.flatnonzero(self.balance == name)
            count = self.length // len(classes) + (number < self.length % len(classes))
            turns = [generator.permutation(own) for _ in range(-(-count // len(own)))]
            drawn.append(np.concatenate(turns)[:count] if count else own[:0])
        return generator.permutation(np.concatenate(drawn))

    def __len__(self) -> int:
        return (self.steps - self._first_step) * self.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = self._epoch, self.order(self._epoch)
        for step in range(self._first_step, self.steps):
            taken = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = taken.reshape(self.world_size, self.accumulate, -1)[self.rank]
            for part in mine:
                yield [(epoch, int(index)) for index in part]


class TestBatches:
    """Every sample once, in order, dealt to the processes in turn; numbers of batches may differ by one."""

    __test__ = False  # no test case, for pytest

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.mine = range(rank, length, world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.mine) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, len(self.mine), self.batch_size):
            yield [(0, index) for index in self.mine[start : start + self.batch_size]]


def make_loader(
    samples: Samples,
    batches: TrainBatches | TestBatches,
    *,
    seed: int,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """A loader of collated batches. Workers leave interrupts to the main process."""
    return DataLoader(
        SeededSamples(samples, seed),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_quiet_worker if workers else None,
        generator=torch.Generator().manual_seed(seed),
    )


@contextmanager
def closed(loader: DataLoader) -> Iterator[None]:
    """End the loader's workers with the block, also after one of them was killed.

    Left to the end of the process, those that live are ended by a signal, of which torch's watch makes a traceback.
    """
    try:
        yield
    finally:
        iterator: Any = loader._iterator  # there is no public way
        if iterator is not None:
            with suppress(RuntimeError):  # the watch, once more: the killed one has not been waited for
                iterator._shutdown_workers()
            loader._iterator = None


def _quiet_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
