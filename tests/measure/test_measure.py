"""Medians with intervals, turns, tables and the description of the machine."""

import platform
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elastic_cnn import __version__
from elastic_cnn.measure import machine
from elastic_cnn.measure.medians import median_of, ratio_of
from elastic_cnn.measure.tables import markdown_table, text_table
from elastic_cnn.measure.turns import in_turns, timer

times = st.lists(st.floats(0.1, 10), min_size=2, max_size=20)


@given(times)
def test_the_interval_holds_the_median(values):
    spread = median_of(values)
    assert spread.median == statistics.median(values)
    assert min(values) <= spread.low <= spread.median <= spread.high <= max(values)


@given(times, st.floats(0.5, 2))
def test_what_slows_whole_rounds_falls_out_of_ratios(values, factor):
    spread = ratio_of([factor * value for value in values], values)
    assert spread.low == pytest.approx(factor)
    assert spread.high == pytest.approx(factor)


def test_intervals_are_those_of_the_bootstrap():
    """For 1..101 the median's interval is that of the binomial's order statistics: 51 -+ 1.96 sqrt(101) / 2."""
    spread = median_of([float(value) for value in range(1, 102)])
    assert spread.low == pytest.approx(51 - 9.85, abs=3)
    assert spread.high == pytest.approx(51 + 9.85, abs=3)


def test_turns_alternate_and_leave_out_the_warm_up():
    log: list[float] = []

    def took(seconds):
        return lambda: log.append(seconds) or seconds

    timers = [took(1.0), took(2.0), took(4.0)]
    assert in_turns(timers, 3, warm_up=2, seconds=1e9, reverse=True) == [[1.0] * 3, [2.0] * 3, [4.0] * 3]
    assert log[:6] == [1, 2, 4, 4, 2, 1]
    assert len(log) == 15
    assert len(in_turns(timers[:1], 100, warm_up=2, seconds=3)[0]) == 5  # time is up, yet 5 rounds
    log.clear()
    assert len(in_turns(timers, 2)[0]) == 2
    assert log == [1, 2, 4] * 3  # without `reverse` always in order


def test_a_timer_reads_its_clock_before_and_after_the_call():
    clock = iter([3.0, 7.5])
    calls = []
    assert timer(lambda: calls.append(1), lambda: next(clock))() == 4.5
    assert calls == [1]


def test_tables():
    header, rows = ["network", "ms"], [["a|b", 12], ["c", "-"]]
    assert text_table(header, rows).splitlines() == ["network  ms", "-------  --", "a|b      12", "c         -"]
    assert markdown_table(header, rows) == "| network | ms |\n| --- | --- |\n| a\\|b | 12 |\n| c | - |"
    assert markdown_table(header, rows, left=1).splitlines()[1] == "| --- | ---: |"
    assert text_table(header, []).splitlines() == ["network  ms", "-------  --"]
    long = [["x" * 200 + end, 1] for end in ("a", "b")]
    shown = text_table(header, long).splitlines()
    assert max(map(len, shown)) == 60 + 2 + 2
    assert shown[2].startswith("xxx")
    assert "x...x" in shown[2]
    assert shown[2].endswith("a   1")
    assert shown[3].endswith("b   1")
    assert "x" * 200 + "a" in markdown_table(header, long)


def test_the_machine_is_described(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc.so")
    found = machine.describe_machine()
    assert found["versions"]["python"] == platform.python_version()
    assert found["allocator"]["LD_PRELOAD"] == "libtcmalloc.so"
    line = machine.machine_line(found)
    assert f"{found['processor']}, {found['cores']} cores" in line
    assert "allocator set by LD_PRELOAD" in line
    assert machine.device_line(torch.device("cpu")).startswith(f"{machine.processor()}, ")
    assert machine.versions_line().startswith(f"elastic-cnn {__version__}, Python {platform.python_version()}, torch ")
    assert machine.versions_line("numpy", "no-such-package").endswith(f", numpy {machine.versions(['numpy'])['numpy']}")
