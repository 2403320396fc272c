"""One of two processes of a distributed run is killed: the job ends and names it, or torchrun starts it anew."""

import os
import random
import re
import signal
import socket
import sys
import time
from pathlib import Path

from fault_machine import PATIENCE, Fault, children
from fault_world import World, differences, ended, rows, wait_for

from elastic_cnn.tasks.run_folder import read_state

LOCAL = ("--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
SUMMARY = re.compile(r"rank +: (\d+) \(local_rank: \d+\)\s+exitcode +: -9 \(pid: \d+\)  \(SIGKILL\)")
OBSERVED = re.compile(r"failed \(exitcode: -9\) local_rank: (\d+) \(pid: \d+\)")  # what torchrun says before a restart
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", *LOCAL)


def rank_of(pid: int) -> str | None:
    """The rank of a process that torchrun has started."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((word[5:].decode() for word in words if word.startswith(b"RANK=")), None)


def run_pair_forked(world: World, out: Path) -> list[int]:
    """Two forked processes with the variables that torchrun sets, without the time that its starts take: exit codes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"TORCHELASTIC_RUN_ID": "pair", "GROUP_RANK": "0"}
    started = [world.start(out, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    with ended(started[0]), ended(started[1]):
        return [process.wait(PATIENCE) for process in started]


def rank_killed(world: World, whole: Path, rng: random.Random, count: int, restarts: int = 0) -> Fault:
    """Kill rank 0 or 1 in turn. Without restarts the job must end, name the rank, and resume; with them it goes on."""
    fault = Fault("one of two processes killed" + (", torchrun --max-restarts" if restarts else ""))
    launcher = (*TORCHRUN, "--max-restarts", str(restarts))
    for number in range(count):
        out, rank = world.root / f"rank{restarts}{number}", str(number % 2)
        with ended(world.start(out, launcher=launcher)) as process:
            ready = rng.randrange(1, 8)
            wait_for(lambda out=out, least=ready: len(rows(out / "train.csv")) >= least, process)
            time.sleep(rng.uniform(0, 0.2))
            os.kill(next(pid for pid in children(process.pid) if rank_of(pid) == rank), signal.SIGKILL)
            code = process.wait(PATIENCE)
        fault.runs += 1
        named = SUMMARY.search(world.said(out)) or OBSERVED.search(world.said(out))
        fault.said = " ".join(named[0].split()) if named else ""
        if bool(code) == bool(restarts) or named is None or named[1] != rank:
            fault.lost.append(f"{out.name}: exit code {code}, said {world.said(out)[-300:]!r}")
        read_state(out / "last.ckpt")
        if not restarts and (code := world.run(out, "--resume", launcher=launcher)):
            fault.lost.append(f"{out.name}: the resumed run ended with {code}: {world.said(out)[-1500:]}")
        fault.lost += [f"{out.name}: {what}" for what in differences(out, whole)]
    return fault
