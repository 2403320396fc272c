"""Timing of things that are compared: they take turns, so that what slows the machine for a while slows all of them."""

import time
from collections.abc import Callable, Sequence

FEWEST = 5  # rounds, however long they take

Timer = Callable[[], float]  # runs once, returns the seconds that count


def timer(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Timer:
    """A `Timer` of `run` by a clock: elapsed time, or `time.process_time`, which other processes hardly change."""

    def timed() -> float:
        began = clock()
        run()
        return clock() - began

    return timed


def in_turns(
    timers: Sequence[Timer], rounds: int, *, warm_up: int = 1, seconds: float | None = None, reverse: bool = False
) -> list[list[float]]:
    """Seconds of each timer, round by round: `(len(timers), rounds)`; the first `warm_up` rounds are left out.

    seconds: end early when that much has been timed, after at least five rounds. reverse: every second round runs
    backwards, so that none always follows the same one.
    """
    times: list[list[float]] = [[] for _ in timers]
    spent = 0.0
    for number in range(warm_up + rounds):
        places = range(len(timers))
        for place in reversed(places) if reverse and number % 2 else places:
            took = timers[place]()
            spent += took
            if number >= warm_up:
                times[place].append(took)
        if seconds is not None and spent > seconds and number >= warm_up + FEWEST - 1:
            break
    return times
