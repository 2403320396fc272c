"""An elastic block beside the trained one that it was made of, on the same photos, each on what its network gives
it."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from elastic_cnn.conversion.feed import Feed
from elastic_cnn.conversion.probe import Call, Seen, run, tapped
from elastic_cnn.conversion.sites import Plan, Site


class Error:
    """Mean squared difference over variance, from sums over batches."""

    def __init__(self) -> None:
        self.difference = self.count = self.square = 0.0
        self.total: Tensor | None = None  # a channel

    def add(self, own: Tensor, other: Tensor) -> None:
        """Both (N, C, H, W)."""
        self.difference += float((own - other).square().sum())
        self.square += float(other.square().sum())
        total = other.sum((0, 2, 3)).double()
        self.total = total if self.total is None else self.total + total
        self.count += other.numel() / other.shape[1]

    @property
    def value(self) -> float:
        mean_square = 0.0 if self.total is None else float(self.total.square().sum()) / self.count
        return self.difference / max(self.square - mean_square, 1e-30)


class Pair:
    """feeds: of the elastic and of the trained network, at the block. memory: bytes for what the trained block shows,
    beyond which it runs again at every pass."""

    def __init__(self, plan: Plan, feeds: tuple[Feed, Feed], memory: float) -> None:
        self.plan, self.feeds, self.memory = plan, feeds, memory
        self._shown: list[Seen] | None = None

    def passes(self, site: Site | None) -> Iterator[tuple[Seen, Seen]]:
        """For each batch of photos what the elastic and what the trained block shows: `end`, the block's output (or
        what its last activation function is given). Of the elastic one also the input of each piece of `site`, by its
        number, and `output`; of the trained one what each site's layer put out, by the site's name."""
        inputs = {} if site is None else {str(number): piece.conv for number, piece in enumerate(site.pieces)}
        outputs = {} if site is None else {"output": site.output}
        for call, other in zip(self.feeds[0].calls(), self._trained(), strict=True):
            yield _see(self.feeds[0].block, self.plan.ends[0], call, inputs, outputs), other

    def error(self) -> float:
        """The present error of the block's output. Both feeds learn the outputs, which are what comes next."""
        error, ends = Error(), []
        keep = self.feeds[0].stores
        for own, other in self.passes(None):
            error.add(own["end"], other["end"])
            if keep:
                ends.append(own["end"])
        if keep:
            self.feeds[0].learn(ends, self.plan.ends[0])
        if self._shown is not None:
            self.feeds[1].learn([seen["end"] for seen in self._shown], self.plan.ends[1])
        return error.value

    def _trained(self) -> Iterator[Seen]:
        if self._shown is not None:
            yield from self._shown
            return
        feed, end = self.feeds[1], self.plan.ends[1]
        targets = {site.name: site.target for site in self.plan.sites if site.scale is None}
        shown: list[Seen] = []
        for call in feed.calls():
            seen = _see(feed.block, end, call, {}, targets)
            if feed.stores and _size(seen) * len(feed.images) <= self.memory:
                shown.append(seen)
            yield seen
        if len(shown) == len(feed.images):
            self._shown = shown


def _size(seen: Seen) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in seen.values())


def _see(
    block: nn.Module,
    end: nn.Module | None,
    call: Call,
    inputs: Mapping[str, nn.Module],
    outputs: Mapping[str, nn.Module],
) -> Seen:
    """Run the block; its `end` and what enters and leaves these modules."""
    before = {} if end is None else {"end": end}
    after = {"end": block} if end is None else {}
    with tapped({**inputs, **before}, {**outputs, **after}) as seen:
        run(block, call)
    return seen
