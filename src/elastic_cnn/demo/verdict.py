"""The demo's sentences, each computed from intervals: fewer errors, or less time, are claimed where those say so."""

from elastic_cnn.demo.results import Results, SizeBin
from elastic_cnn.measure.medians import MedianInterval
from elastic_cnn.measure.paired import PairedDifference


def headline(results: Results) -> str:
    """What the comparison over seeds says, and no more than it says."""
    difference, seeds = results.difference, len(results.base.runs)
    if not _learnt(results):
        return f"Neither network has learnt enough to be compared: train for longer ({intervals(difference)})."
    if seeds == 1:
        return (
            f"One seed decides nothing: Elastic errs on {percent(results.elastic.errors[0])} of the images, the base "
            f"on {percent(results.base.errors[0])}."
        )
    base, elastic = percent(results.base.spread.mean), percent(results.elastic.spread.mean)
    points = f"{abs(100 * difference.mean):.1f} points"
    if difference.decided < 0:
        return (
            f"Elastic errs less at the same cost: {elastic} against {base} of the images, {points} fewer "
            f"({intervals(difference)})."
        )
    if difference.decided > 0:
        return (
            f"Elastic errs more at the same cost: {elastic} against {base} of the images, {points} more "
            f"({intervals(difference)})."
        )
    return (
        f"No clear difference: Elastic errs on {elastic}, the base on {base} of the images ({intervals(difference)})."
    )


def by_size(bins: list[SizeBin]) -> str:
    """In which size ranges the intervals lie apart."""
    better = [part.label for part in bins if part.difference.decided < 0]
    worse = [part.label for part in bins if part.difference.decided > 0]
    said = []
    for names, what in ((better, "fewer"), (worse, "more")):
        if len(names) == len(bins):
            return f"Elastic makes {what} errors in every size range, beyond both intervals."
        if names:
            said.append(f"{what} errors at {' and '.join(names)} pixels")
    if not said:
        return "In no single size range do both intervals tell the networks apart."
    return f"Beyond both intervals Elastic makes {', and '.join(said)}; the other size ranges decide nothing."


def speed(results: Results) -> str:
    """Equal multiply-adds are not equal time."""
    return f"In the form that is deployed ({results.speed.form}), {_time('Elastic', results.speed.time['elastic'])}."


def conversion(results: Results) -> str:
    """What became of the trained base, converted."""
    found = results.converted
    answers = f"gives the same answer on {percent(found.same)} of the images"
    errors = f"error {percent(found.base_error)} before and {percent(found.error)} after"
    return (
        f"The trained base (seed {found.seed}), made elastic in {found.seconds:.0f} seconds without labels or training,"
        f" {answers}, {errors}, with {found.macs_ratio:.3f} of the multiply-adds; "
        f"{_time('it', results.speed.time['converted'])}."
    )


def intervals(difference: PairedDifference) -> str:
    """Both 95% intervals over the seeds, in points."""
    if difference.low is None or difference.high is None or difference.t_low is None or difference.t_high is None:
        return "one seed, no interval"
    bootstrap = f"bootstrap {100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    student = f"Student's t {100 * difference.t_low:+.1f} to {100 * difference.t_high:+.1f}"
    return f"95% intervals over {difference.count} seeds: {bootstrap}, {student} points"


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _time(what: str, ratio: MedianInterval) -> str:
    shown = f"{ratio.median:.2f} times the base's time (95% interval {ratio.low:.2f} to {ratio.high:.2f})"
    if ratio.high < 1:
        return f"{what} is faster: {shown}"
    if ratio.low > 1:
        return f"{what} is slower: {shown}"
    return f"{what} is not told apart in speed: {shown}"


def _learnt(results: Results) -> bool:
    """Whether the better network errs at most three quarters as often as guessing would."""
    guessing = 1 - 1 / len(results.classes)
    return min(results.base.spread.mean, results.elastic.spread.mean) <= 0.75 * guessing
