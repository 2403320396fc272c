"""`make faults`: every fault on the real command line, and the table of docs/reliability.md.

python tests/faults [--kills 36] [--each 6] [--seed 0] [--forks] [-o docs/reliability.md]
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fault_kills import Kills, kill_and_resume, loop_seconds
from fault_machine import Fault, disk_full, file_limit, read_only, reader_killed
from fault_ranks import TORCHRUN, rank_killed
from fault_world import STEPS, World

from elastic_cnn.measure.tables import markdown_table

BEGIN, END = "<!-- table by make faults -->\n", "<!-- end of the table -->\n"


def main() -> int:
    """Run all faults; exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=36, help="kills at random moments (default: 36)")
    parser.add_argument("--each", type=int, default=6, help="runs of every other fault (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("-o", "--out", type=Path, help="a page that holds the table's marks, to put the table there")
    parser.add_argument("--forks", action="store_true", help="start commands in copies of this process: much faster")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        table, lost = run_all(World.make(Path(name), args.forks), args.kills, args.each, random.Random(args.seed))
    print(table)
    if args.out is not None:
        page = args.out.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        args.out.write_text(f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print("\n".join(lost) or "nothing lost", file=sys.stderr)
    return bool(lost)


def run_all(world: World, kills: int, each: int, rng: random.Random) -> tuple[str, list[str]]:
    """The table, and everything that was lost."""
    began = time.monotonic()
    whole, pair = world.root / "whole", world.root / "pair"
    seconds = loop_seconds(world, whole)
    if world.run(pair, launcher=TORCHRUN):
        raise RuntimeError(f"the unbroken run of two processes failed: {world.said(pair)}")
    killed = kill_and_resume(world, whole, seconds, kills, rng)
    note(f"{killed.count} kills", began)
    faults = []
    single: tuple[Callable[[World, Path, random.Random, int], Fault], ...] = (
        disk_full, file_limit, read_only, reader_killed
    )  # fmt: skip
    for function in single:
        faults.append(function(world, whole, rng, each))
        note(faults[-1].name, began)
    for restarts in (0, 2):
        faults.append(rank_killed(world, pair, rng, each, restarts))
        note(faults[-1].name, began)
    lost = killed.lost + [what for fault in faults for what in fault.lost]
    return format_table(killed, faults), lost


def note(what: str, began: float) -> None:
    print(f"{what} done after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def format_table(killed: Kills, faults: list[Fault]) -> str:
    """A row a fault: how often, what the user saw, how much was lost."""
    places = ", ".join(f"{place} {count}" for place, count in killed.places.most_common())
    rows = [
        (
            "killed by signal 9 at random moments, resumed, killed again",
            f"{killed.count} kills in {killed.chains} runs",
            f"where: {places}",
            len(killed.lost),
        )
    ]
    for fault in faults:
        seen = fault.said.replace("|", "/") if not fault.skipped else f"not run: {fault.skipped}"
        rows.append((fault.name, str(fault.runs), f"`{shown(seen)}`", len(fault.lost)))
    table = markdown_table(("fault", "times", "what was seen", "lost"), rows)
    return f"Made by `make faults` (runs of {STEPS} optimizer steps, a state after each):\n\n{table}"


def shown(line: str) -> str:
    """Without the path of the temporary folder."""
    return " ".join(word.rsplit("/", 1)[-1] if word.startswith(("/", "'/")) else word for word in line.split())


if __name__ == "__main__":
    sys.exit(main())
