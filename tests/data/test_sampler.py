"""Order and random numbers of samples: functions of (seed, epoch, index)."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elastic_cnn.data.sampler import TestBatches, TrainBatches, UnreadableSample, collate, make_loader, seed_generators


class Drawn:
    """Samples that show what the global generators give; those in `broken` cannot be read."""

    def __init__(self, length: int, broken: tuple[int, ...] = ()) -> None:
        self.length, self.broken = length, broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        if index in self.broken:
            raise UnreadableSample(self.path(index), "no\nimage")
        draws = [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002
        return {"image": torch.tensor([index, *draws], dtype=torch.float64)}

    def path(self, index: int) -> str:
        return f"{index}.png"


def batches_of(steps: TrainBatches, epoch: int, step: int = 0) -> list[list[tuple[int, int]]]:
    steps.start_at(epoch, step)
    return list(steps)


@given(
    world=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    part=st.integers(1, 5),
    length=st.integers(1, 200),
    epoch=st.integers(0, 3),
    start=st.integers(0, 30),
)
def test_processes_and_parts_share_each_step(world, accumulate, part, length, epoch, start):
    size = world * accumulate * part
    if length < size:
        with pytest.raises(ValueError, match="exceeds"):
            TrainBatches(length, size, 7, accumulate=accumulate, world_size=world)
        return
    ranks = [TrainBatches(length, size, 7, accumulate=accumulate, rank=r, world_size=world) for r in range(world)]
    together = [batches_of(rank, epoch) for rank in ranks]
    seen = [key for batches in together for batch in batches for key in batch]
    steps = length // size
    assert len(set(seen)) == len(seen) == steps * size  # every sample at most once, the incomplete step left out
    assert {e for e, _ in seen} == {epoch}
    assert all(0 <= index < length for _, index in seen)
    one = TrainBatches(length, size, 7)  # the samples of a step do not depend on how it is divided
    for step, batch in enumerate(batches_of(one, epoch)):
        mine = slice(step * accumulate, (step + 1) * accumulate)
        assert sorted(batch) == sorted(key for batches in together for part_ in batches[mine] for key in part_)
    start = min(start, steps)  # going on in mid-epoch gives exactly what is left
    for rank, batches in zip(ranks, together, strict=True):
        assert batches_of(rank, epoch, start) == batches[start * accumulate :]
        assert len(rank) == len(batches) - start * accumulate


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [TrainBatches(50, 5, seed).order(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_batches_that_cannot_be_divided():
    with pytest.raises(ValueError, match=r"batch_size=10 .* 2 process\(es\) x accumulate=3"):
        TrainBatches(100, 10, 0, accumulate=3, world_size=2)


@given(length=st.integers(0, 60), size=st.integers(1, 9), world=st.integers(1, 5))
def test_test_batches_give_every_sample_once(length, size, world):
    ranks = [TestBatches(length, size, rank, world) for rank in range(world)]
    seen = [key for rank in ranks for batch in rank for key in batch]
    assert sorted(seen) == [(0, index) for index in range(length)]
    assert all(len(list(rank)) == len(rank) for rank in ranks)


@pytest.mark.parametrize("workers", [0, 2])
def test_random_numbers_depend_on_seed_epoch_and_index_alone(workers):
    def draws(seed: int, epoch: int, workers: int) -> dict[int, list[float]]:
        steps = TrainBatches(12, 4, seed)
        steps.start_at(epoch)
        loader = make_loader(Drawn(12), steps, seed=seed, workers=workers)
        rows = torch.cat([batch["image"] for batch in loader])
        return {int(row[0]): row[1:].tolist() for row in rows}

    reference = draws(3, 1, 0)
    random.seed(99)
    assert draws(3, 1, workers) == reference
    flat = [value for other in (reference, draws(3, 2, 0), draws(4, 1, 0)) for row in other.values() for value in row]
    assert len(set(flat)) == len(flat)  # another epoch or seed draws other numbers


def test_seeding_covers_all_generators():
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    seed_generators(1, 2, 3)
    first = draw()
    assert draw() != first
    seed_generators(1, 2, 3)
    assert draw() == first
    seed_generators(1, 3, 2)
    assert draw() != first


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_samples_are_left_out_and_named(workers):
    loader = make_loader(Drawn(5, broken=(1, 4)), TestBatches(5, 2), seed=0, workers=workers)
    found = list(loader)
    assert [batch["index"].tolist() if "index" in batch else [] for batch in found] == [[0], [2, 3], []]
    assert [batch["unreadable"] for batch in found] == [[("1.png", "no image")], [], [("4.png", "no image")]]


@pytest.mark.parametrize("workers", [0, 1])
def test_other_errors_of_workers_are_told_without_their_tracebacks(workers):
    class Wrong(Drawn):
        def __getitem__(self, index: int) -> dict:
            raise ValueError("of the wrong size")

    loader = make_loader(Wrong(2), TestBatches(2, 2), seed=0, workers=workers)
    if workers:
        assert list(loader) == [{"error": "0.png: of the wrong size"}]
    else:
        with pytest.raises(ValueError, match=r"^of the wrong size"):
            list(loader)


def test_nothing_but_broken_samples():
    assert collate([{"unreadable": ("a", "b")}]) == {"unreadable": [("a", "b")]}


@pytest.mark.parametrize("counts", [(30, 6, 3), (5, 5), (1, 40), (20, 1, 1, 1)])
def test_balanced_batches_draw_every_class_equally_often(counts):
    classes = np.repeat(np.arange(len(counts)), counts)
    batches = TrainBatches(len(classes), 4, seed=0, balance=list(classes))
    seen = np.zeros(len(classes), int)
    for epoch in range(3):
        order = batches.order(epoch)
        assert len(order) == len(classes)
        drawn = np.bincount(classes[order], minlength=len(counts))
        assert drawn.max() - drawn.min() <= 1
        for name in range(len(counts)):  # a class's photos take turns: none comes twice more often than another
            own = np.bincount(order, minlength=len(classes))[classes == name]
            assert own.max() - own.min() <= 1
        seen += np.bincount(order, minlength=len(classes))
    assert not np.array_equal(batches.order(0), batches.order(1))
    assert np.array_equal(batches.order(2), TrainBatches(len(classes), 4, seed=0, balance=list(classes)).order(2))
