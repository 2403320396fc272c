"""What enters one block after another of a network, for all calibration photos, kept where memory allows."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from elastic_cnn.conversion.probe import Call, Flow, call_of, run


class Feed:
    """The calls of a block on batches of photos. Move it along the blocks in the order of running.

    Where a block takes nothing but the output of the one before, that one is run on its stored inputs; elsewhere the
    network runs from the photos up to the block. memory: bytes to store at most; what needs more is computed when it is
    asked for, again and again.
    """

    def __init__(self, network: nn.Module, images: Sequence[Tensor], flow: Flow, memory: float) -> None:
        self.network, self.images, self.flow, self.memory = network, images, flow, memory
        self.name: str | None = None
        self._stored: list[Call] | None = None
        self._next: list[Call] | None = None

    @property
    def block(self) -> nn.Module:
        assert self.name is not None
        return self.network.get_submodule(self.name)

    @property
    def stores(self) -> bool:
        """Whether the block's calls are kept."""
        return self._stored is not None

    def learn(self, ends: list[Tensor], activation: nn.Module | None) -> None:
        """The outputs of the present block are known: `activation` of `ends`, batch by batch, or `ends` themselves."""
        self._next = [Call((end if activation is None else activation(end.clone()),), {}) for end in ends]

    def forget(self) -> None:
        """The outputs that were told are not those of the block any more."""
        self._next = None

    @torch.no_grad()
    def move(self, name: str) -> None:
        """Go to the block of this name, which runs after the present one."""
        known, self._next = self._next, None
        if self._stored is not None and self.name is not None and (self.name, name) in self.flow.chained:
            if known is not None:
                self._stored = known
            else:
                for number, call in enumerate(self._stored):  # one by one: not twice in memory
                    self._stored[number] = Call((run(self.block, call),), {})
            self.name = name
            return
        self._stored, self.name = None, name
        first = call_of(self.network, self.block, self.images[0])
        if first.size * len(self.images) <= self.memory:
            self._stored = [first, *(call_of(self.network, self.block, batch) for batch in self.images[1:])]

    def calls(self) -> Iterator[Call]:
        """The block's call on each batch of photos."""
        if self._stored is not None:
            yield from self._stored
            return
        for batch in self.images:
            yield call_of(self.network, self.block, batch)
