"""The `elastic` command: a thin function a subcommand, no logic; the library does the work.

Every subcommand is a module with `add_arguments(parser)` and `run(args)`, imported only when it is called.
"""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from typing import NoReturn

from elastic_cnn.files import standard_output_named
from elastic_cnn.hints import did_you_mean
from elastic_cnn.text import escape_what_streams_cannot_show, open_closed_streams, printable

__all__ = ["main"]
COMMANDS = {
    "train": "train a network by a recipe on your photos",
    "eval": "test a checkpoint on a split of the data",
    "predict": "say what photos show and at which scale an elastic network looked at them",
    "policy": "collect the scale policy of every photo in a table, and draw it",
    "figures": "draw the figures of a policy table again",
    "explore": "look at scale policies in a browser: a folder that opens from disk, and photos of your own",
    "serve": "answer over HTTP what photos show: a page to drop them on, and an interface for programs",
    "segment": "colour photos by what each pixel shows, whole or in tiles",
    "stress": "test a network at other resolutions than it was trained at, beside its base",
    "study": "run a grid of trainings over networks and seeds, and report it with intervals",
    "demo": "the whole idea in a few minutes: data, training, table and report, nothing to download",
    "convert": "turn a released checkpoint of the paper into one of this package",
    "elasticize": "make any network elastic, say what changed, and save it",
    "recalibrate": "estimate batch norm statistics anew on photos without labels",
    "summary": "parameters and multiply-adds of networks beside the paper's figures",
    "benchmark": "time a network beside its base: latency, training step, memory, in every form",
    "export": "write a trained network as a file for ONNX Runtime, OpenVINO or torch.export",
    "doctor": "say which kernels run on this machine and why, and what would make it faster",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 1 for a fault of the program, 2 for bad input, 130 when interrupted."""
    open_closed_streams()
    escape_what_streams_cannot_show()
    arguments = list(sys.argv[1:] if argv is None else argv)
    trace = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    try:
        with standard_output_named():
            args = make_parser(arguments).parse_args(arguments)
            args.run(args)
    except SystemExit as stop:  # argparse has printed what is wrong
        _let_go_of_errors()
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("elastic: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError) as error:
        if trace:
            raise
        return _fail(error, _one_line(error), 2)
    except Exception as error:
        if trace:
            raise
        message = f"{type(error).__name__}: {_one_line(error)} (a fault in the program; run again with --traceback)"
        return _fail(error, message, 1)
    return 0


def _fail(error: Exception, message: str, code: int) -> int:
    """Say what is wrong, of several processes in which, and to the launcher (`torchrun`) too."""
    environment = os.environ
    several = int(environment.get("WORLD_SIZE", "1")) > 1
    place = f" (process {environment.get('RANK', '?')} of {environment['WORLD_SIZE']})" if several else ""
    with suppress(OSError):
        print(f"elastic: error{place}: {message}", file=sys.stderr)
    _let_go_of_errors()
    report = environment.get("TORCHELASTIC_ERROR_FILE")
    if several and report and not isinstance(error, ConnectionError):  # that one is another process's failure
        _tell_launcher(error, report)
    return code


def _let_go_of_errors() -> None:
    """Where the disk behind standard error is full, the exit code is what is left to say: Python would have its own."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _tell_launcher(error: Exception, report: str) -> None:
    """Write torchrun's report, whole or not at all: it may end this process meanwhile, and fails on half a file."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    os.environ["TORCHELASTIC_ERROR_FILE"] = part = f"{report}.part"
    get_error_handler().record_exception(error)
    os.environ["TORCHELASTIC_ERROR_FILE"] = report
    os.replace(part, report)


def _one_line(error: BaseException) -> str:
    """Its message, without line breaks, and nothing in it that a terminal would obey (names from files of others)."""
    return printable(" ".join(str(error).split())) or type(error).__name__


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with arguments in one line, as with all other input; of a choice, with the nearest ones."""

    command = ""  # the one that the arguments name: what is wrong with its own may be noticed here

    def error(self, message: str) -> NoReturn:
        invalid = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        hint = did_you_mean(invalid[1], re.findall(r"'(.*?)'", invalid[2])) if invalid else ""
        if invalid and not self.command and _is_recipe(invalid[1]):
            hint = f"; {invalid[1]} is a recipe: elastic train {invalid[1]} --data DIR -o RUN_DIR"
        page = f"{self.prog} {self.command}".strip()
        self.exit(2, f"elastic: error: {' '.join(message.split())}{hint} (see `{page} --help`)\n")


def _is_recipe(name: str) -> bool:
    return name.isidentifier() and (files("elastic_cnn") / "recipes" / f"{name}.yaml").is_file()


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these arguments; only the command that they name is imported."""
    from elastic_cnn import __version__

    parser = _Parser(
        prog="elastic",
        description="Elastic networks: train, test, and see at which scale they look.",
        epilog="`elastic COMMAND --help` explains a command. --traceback shows where an error came from.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"elastic-cnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = arguments[0] if arguments else None
    parser.command = chosen if chosen in COMMANDS else ""
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".", allow_abbrev=False)
        if name == chosen:
            module = importlib.import_module(f"elastic_cnn.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
