"""`elastic study STUDY.yaml ...`: run what is missing of studies; `elastic study report`: tables and pictures anew."""

import argparse
import sys
from pathlib import Path

from elastic_cnn.extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "A study is a YAML file: networks x seeds x recipes x data, and what is compared (docs/studies.md). Runs whose "
        "record is in the folder of results are not repeated; an interrupted run goes on where it was. Several "
        "processes, also of several commands, share the work. `elastic study report` needs no training."
    )
    parser.add_argument("studies", metavar="STUDY.yaml", nargs="+", help="studies to run, or the word report")
    parser.add_argument("--data", default=".", metavar="DIR", help="the folder in which the studies' data folders lie")
    parser.add_argument(
        "--results", default="studies/results", metavar="DIR", help="folder of the records (%(default)s)"
    )
    parser.add_argument(
        "--work", default="runs/studies", metavar="DIR", help="folder of weights and states (%(default)s)"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="runs at a time, each in a process")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads of each process")
    parser.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "gpu"), help="what to compute on")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="run again what was run with another configuration; report: replace any file at PAGE.md",
    )
    parser.add_argument("--only", metavar="NAME,...", help="run these networks of the studies alone")
    parser.add_argument("--list", action="store_true", help="say which runs are done and which are missing, run none")
    parser.add_argument(
        "-o", "--out", default="docs/results.md", metavar="PAGE.md", help="report: the page to write (%(default)s)"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> None:
    require("lightning", "train")
    if args.studies[0] == "report":
        from elastic_cnn.study.report import write_report

        if len(args.studies) > 1:
            raise ValueError("`elastic study report` takes no study: it reports on all of the folder of results")
        for path in write_report(args.results, args.out, args.overwrite):
            print(path)
        return
    from elastic_cnn.study import processes, runner
    from elastic_cnn.study.checks import check
    from elastic_cnn.study.grid import load_study
    from elastic_cnn.study.results import collect
    from elastic_cnn.tasks.training import Interrupted

    for name in ("processes", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value} must be at least 1")
    studies = [load_study(path) for path in args.studies]
    place = runner.Place(
        Path(args.results),
        Path(args.work),
        args.data,
        args.accelerator,
        args.overwrite,
        False if args.no_progress else None,
        () if args.only is None else tuple(name.strip() for name in args.only.split(",")),
    )
    if args.list:
        for line in runner.list_runs(studies, place):
            print(line)
        return
    check(studies, place)
    if args.processes > 1:
        code = processes.start_processes(_arguments(args), args.processes)
        if code:
            raise SystemExit(code)
    else:
        processes.set_threads(args.threads)
        try:
            failed = runner.run_missing(studies, place)
        except Interrupted as interrupted:
            print(f"elastic: {interrupted}", file=sys.stderr)
            raise SystemExit(interrupted.code) from interrupted
        if failed:
            raise ValueError(f"{len(failed)} run(s) failed: {'; '.join(failed)}")
    print(collect(args.results))


def _arguments(args: argparse.Namespace) -> list[str]:
    """The arguments for each of several processes."""
    given = [*args.studies, "--data", args.data, "--results", args.results, "--work", args.work]
    given += ["--accelerator", args.accelerator, "--no-progress"]
    given += ["--threads", str(args.threads)] if args.threads else []
    given += ["--only", args.only] if args.only else []
    return given + (["--overwrite"] if args.overwrite else [])
