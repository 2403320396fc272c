"""`elastic serve RUN`: a page to drop photos on, and the same over HTTP, on the fastest form of this machine."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from elastic_cnn.extras import require

if TYPE_CHECKING:
    from elastic_cnn.serve.engine import Engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file or a run folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="(default: 8000; 0: any free one)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, a network each (default: 1)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of each worker (default: its share)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes a photo (default: 5)")
    parser.add_argument("--max-mb", type=float, default=20, metavar="MB", help="largest photo (default: 20)")
    parser.add_argument("--max-photos", type=int, default=16, metavar="N", help="photos a request (default: 16)")
    parser.add_argument("--max-waiting", type=int, default=16, metavar="N", help="requests at once (default: 16)")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a name it has; repeatable")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16: faster, outputs a little different")
    parser.add_argument("--compile", action="store_true", help="also compile the network (about a minute)")
    parser.epilog = "There is no login: whoever reaches the address may ask. GET /openapi.json describes the interface."


def run(args: argparse.Namespace) -> None:
    require("starlette", "serve")
    from elastic_cnn.serve.engine import ServeOptions
    from elastic_cnn.serve.run import LOOPBACK, serve

    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port is 0 to 65535, not {args.port}")
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    local = args.host in LOOPBACK
    hosts = (*LOOPBACK, *args.allow_host) if local or args.allow_host else ("*",)
    threads = args.threads or max(1, (os.cpu_count() or 1) // args.workers)
    options = ServeOptions(
        args.checkpoint, hosts, args.top, int(args.max_mb * 2**20), args.max_photos, args.max_waiting, threads,
        args.compile, args.bf16,
    )  # fmt: skip

    def started(url: str, engine: "Engine") -> None:
        if not local:
            print("warning: others on your network can reach this server; it has no login", file=sys.stderr)
        print(f"{engine.subject.name}: {url} (Ctrl+C ends it)", flush=True)

    serve(options, args.host, args.port, args.workers, started)
