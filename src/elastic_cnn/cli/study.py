"""`elastic study STUDY.yaml ...`: run what is missing, and report; `new`: a study to edit; `report`: the page alone."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_cnn.extras import require

if TYPE_CHECKING:
    from elastic_cnn.study.grid import Study

PAGE = "report.md"
DEFAULTS: dict[str, Any] = {
    "data": ".", "results": "studies/results", "work": "runs/studies", "processes": 1, "threads": None,
    "accelerator": "auto", "overwrite": False, "only": None, "list": False, "out": None, "no_progress": False,
}  # fmt: skip
TAKEN = {  # what does something beside the word; another argument is refused
    "new": {"overwrite"},
    "report": {"results", "out", "overwrite"},
    "--list": {"data", "results", "work", "only", "list", "accelerator", "overwrite", "no_progress"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "A study is a YAML file: networks x seeds x recipes x data, and what is compared (docs/studies.md). "
        "`elastic study new BIRDS.yaml` writes one to edit. Runs whose record is in the folder of results are not "
        "repeated; an interrupted run goes on where it was. Several processes and commands share the work. "
        "`elastic study report [STUDY.yaml ...]` needs no training."
    )
    parser.set_defaults(**DEFAULTS)  # which the arguments below take as theirs
    add = parser.add_argument
    add("studies", metavar="STUDY.yaml", nargs="+", help="studies to run, or first the word new or report")
    add("--data", metavar="DIR", help="the folder in which the studies' data folders lie (.)")
    add("--results", metavar="DIR", help=f"folder of the records ({DEFAULTS['results']})")
    add("--work", metavar="DIR", help=f"folder of weights and states ({DEFAULTS['work']})")
    add("--processes", type=int, metavar="N", help="runs at a time, each in a process (1)")
    add("--threads", type=int, metavar="N", help="processor threads of each process")
    add("--accelerator", choices=("auto", "cpu", "gpu"), help="what to compute on (auto)")
    add("--gpu", dest="accelerator", action="store_const", const="gpu", help="--accelerator gpu")
    add("--overwrite", action="store_true",
        help="run again what was run with another configuration; report and new: replace any file")  # fmt: skip
    add("--only", metavar="NAME,...", help="run these networks of the studies alone")
    add("--list", action="store_true", help="say which runs are done and which are missing, run none")
    add("-o", "--out", metavar="PAGE.md", help=f"the report (RESULTS/{PAGE}); where_it_helps.md beside it")
    add("--no-progress", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> None:
    word = args.studies[0] if args.studies[0] in ("new", "report") else "--list" if args.list else ""
    _refuse_ignored(args, word)
    if word == "new":
        _new(args)
        return
    require("lightning", "train")
    from elastic_cnn.study.grid import load_study

    names = args.studies[1:] if word == "report" else args.studies
    studies = [load_study(path) for path in names]
    if word == "report":
        _report(args, studies)
    else:
        _run(args, studies)


def _refuse_ignored(args: argparse.Namespace, word: str) -> None:
    """`ValueError` for arguments that would do nothing."""
    given = [name for name, default in DEFAULTS.items() if getattr(args, name) != default]
    if word and (ignored := [name for name in given if name not in TAKEN[word]]):
        flags = ", ".join("-o" if name == "out" else f"--{name.replace('_', '-')}" for name in ignored)
        raise ValueError(f"`elastic study {word}` makes no use of {flags}: leave it out")


def _new(args: argparse.Namespace) -> None:
    from elastic_cnn.study.template import write_template

    if len(args.studies) != 2:
        raise ValueError("`elastic study new` takes the name of one study to write: elastic study new BIRDS.yaml")
    path = write_template(args.studies[1], args.overwrite)
    print(f"{path}: edit it, then run: elastic study {path} --data DIR")


def _page(args: argparse.Namespace) -> Path:
    return Path(args.out) if args.out is not None else Path(args.results) / PAGE


def _report(args: argparse.Namespace, studies: "list[Study]") -> None:
    from elastic_cnn.study.report import write_report
    from elastic_cnn.study.where import check_pictures, write_pictures

    check_pictures(_page(args), args.overwrite)
    for write in (write_report, write_pictures):
        for path in write(args.results, _page(args), args.overwrite, studies):
            print(path)


def _run(args: argparse.Namespace, studies: "list[Study]") -> None:
    from elastic_cnn.study import processes, runner
    from elastic_cnn.study.checks import check
    from elastic_cnn.study.report import check_page
    from elastic_cnn.study.where import check_pictures
    from elastic_cnn.tasks.training import Interrupted

    for name in ("processes", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value} must be at least 1")
    storage = runner.Storage(
        Path(args.results),
        Path(args.work),
        args.data,
        args.accelerator,
        args.overwrite,
        False if args.no_progress else None,
        () if args.only is None else tuple(name.strip() for name in args.only.split(",")),
    )
    if args.list:
        for line in runner.list_runs(studies, storage):
            print(line)
        return
    check(studies, storage)
    check_page(_page(args), args.overwrite)
    check_pictures(_page(args), args.overwrite)
    if args.processes > 1:
        code = processes.start_processes(_arguments(args), args.processes)
        if code:
            raise SystemExit(code)
    else:
        processes.set_threads(args.threads)
        try:
            failed = runner.run_missing(studies, storage)
        except Interrupted as interrupted:
            print(f"elastic: {interrupted}", file=sys.stderr)
            raise SystemExit(interrupted.code) from interrupted
        if failed:
            raise ValueError(f"{len(failed)} run(s) failed: {'; '.join(failed)}")
    _report(args, studies)


def _arguments(args: argparse.Namespace) -> list[str]:
    """The arguments for each of several processes."""
    given = [*args.studies, "--data", args.data, "--results", args.results, "--work", args.work]
    given += ["--accelerator", args.accelerator, "--no-progress", "--out", str(_page(args))]
    given += ["--threads", str(args.threads)] if args.threads else []
    given += ["--only", args.only] if args.only else []
    return given + (["--overwrite"] if args.overwrite else [])
