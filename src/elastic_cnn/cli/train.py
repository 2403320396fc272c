"""`elastic train RECIPE --data DIR`: train a network by a recipe."""

import argparse
import json
import os
import sys
from dataclasses import replace
from typing import Any

from elastic_cnn.cli.data_arguments import add_data_arguments, data_of, places_of
from elastic_cnn.cli.next_step import how_to_test, next_line
from elastic_cnn.extras import require
from elastic_cnn.tasks.settings import LOGGERS, Settings, default_workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Any key of the recipe can be set on the command line: epochs=2 optimizer.lr=0.01 options.mixup=0.2 "
        "accumulate=2 precision=bf16-mixed compile=true. The run folder holds best.safetensors, last.safetensors, "
        "last.ckpt (for --resume), recipe.yaml, train.csv, val.csv, summary.json and tensorboard/. "
        "`elastic train --resume -o RUN_DIR` goes on with a run, `--extend epochs=8` beyond its end."
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help="a recipe of the package by name, or a .yaml file; --resume needs none",
    )
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="keys of the recipe to change")
    _accept_overrides_anywhere(parser)
    add_data_arguments(parser, "folder with train/ and val/, hfds/NAME, wds/DIR or wds/URL", ", {split} for the split")
    parser.add_argument(
        "--split", type=float, metavar="PART", help="the part to test on of a folder or list that nobody divided (0.2)"
    )
    parser.add_argument(
        "--network", metavar="NAME", help="the network, in place of the recipe's; also hf-hub:OWNER/NAME"
    )
    parser.add_argument(
        "--elastic", action="store_true", help="make the network elastic first, on the photos, as `convert` does"
    )
    parser.add_argument("--find-lr", action="store_true", help="look for the learning rate first, by a range test")
    parser.add_argument(
        "--classes-from",
        choices=("folder", "top", "path"),
        help="name classes by the folder that holds their photos (default), by the outermost folder above them, or by "
        "the whole path (birds/owl)",
    )
    parser.add_argument("-o", "--out", metavar="RUN_DIR", help="folder for everything that the run writes")
    parser.add_argument(
        "--check-data", action="store_true", help="say what is found, read every photo once, and train nothing"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in RUN_DIR (starts it where there is none)"
    )
    parser.add_argument(
        "--extend",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="go on with the run in RUN_DIR for longer: epochs=8 (in all), patience=3",
    )
    parser.add_argument(
        "--allow-other-data", action="store_true", help="with --resume: go on though the photos are not the same"
    )
    parser.add_argument("--overwrite", action="store_true", help="start anew where RUN_DIR holds a run")
    parser.add_argument("--strict", action="store_true", help="an unreadable image is an error, not left out")
    parser.add_argument(
        "--checkpoint-every", type=int, default=0, metavar="STEPS", help="save the state each STEPS (and each epoch)"
    )
    parser.add_argument(
        "--logger", action="append", default=[], choices=LOGGERS, help="also tell Weights & Biases or MLflow"
    )
    add_machine_arguments(parser)
    parser.add_argument(
        "--nodes", type=int, default=1, metavar="N", help="machines (torchrun and SLURM start the processes)"
    )
    parser.add_argument("--strategy", default="auto", help="Lightning's: auto, ddp, ddp_find_unused_parameters_true")


def _accept_overrides_anywhere(parser: argparse.ArgumentParser) -> None:
    """Overrides may also stand after options; argparse alone takes positional arguments in one place."""
    parse = parser.parse_known_args

    def parse_known_args(args=None, namespace=None):
        namespace, rest = parse(args, namespace)
        late = [text for text in rest if "=" in text and not text.startswith("-")]
        namespace.overrides = [*namespace.overrides, *late]
        return namespace, [text for text in rest if text not in late]

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """What training and testing share: devices, workers, bars."""
    parser.add_argument(
        "--accelerator", default="auto", choices=("auto", "cpu", "gpu", "mps"), help="what to compute on"
    )
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="processes on this machine, one a device (DDP)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read images, for each device")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> None:
    require("lightning", "train")
    from elastic_cnn.tasks import training
    from elastic_cnn.tasks.console import Console
    from elastic_cnn.tasks.run_folder import SAME_ANSWERS
    from elastic_cnn.tasks.strict import told_with_file

    args.resume = args.resume or bool(args.extend)
    if args.resume and args.overwrite:
        raise ValueError("--resume and --overwrite exclude each other")
    if args.allow_other_data and not args.resume:
        raise ValueError("--allow-other-data goes with --resume")
    if args.check_data:
        check(args)
        return
    if args.out is None:
        raise ValueError("-o is missing: name a folder for everything that the run writes (-o runs/mine)")
    restarted = was_restarted()
    recipe, source, data = recipe_and_data(args)
    settings = replace(
        machine_settings(args),
        nodes=args.nodes,
        strategy=args.strategy,
        resume=args.resume or restarted,
        overwrite=args.overwrite and not restarted,
        strict=args.strict,
        checkpoint_every=args.checkpoint_every,
        allow_other_data=args.allow_other_data,
        extend=bool(args.extend),
        find_rate=args.find_lr,
        loggers=tuple(args.logger),
    )
    console = Console(settings.progress)
    try:
        with told_with_file(source):
            summary = training.train(recipe, data, args.out, settings, console=console)
    except training.Interrupted as interrupted:
        print(f"elastic: {interrupted}", file=sys.stderr)
        raise SystemExit(interrupted.code) from interrupted
    console.line("\n".join(summary.lines()))
    if summary.metric == SAME_ANSWERS:  # without labels there is nothing to test on
        console.line(next_line("export", args.out, "--format", "onnx"))
    else:
        console.line(how_to_test(recipe.task, args.out))


def check(args: argparse.Namespace) -> None:
    """Read the data that would be trained on, and say how to go on."""
    from elastic_cnn.tasks.check_data import check_data
    from elastic_cnn.tasks.console import Console
    from elastic_cnn.tasks.strict import told_with_file

    if args.recipe is None or args.resume:
        raise ValueError("--check-data goes with a recipe: elastic train finetune --data DIR --check-data")
    args.out = args.out or "runs/mine"
    given = [args.recipe, *args.overrides]
    for name in ("data", "annotations", "images", "split", "network", "classes_from"):
        if (value := getattr(args, name)) is not None:
            given += [f"--{name.replace('_', '-')}", value]
    recipe, source, data = recipe_and_data(args)
    settings = replace(machine_settings(args), strict=args.strict)
    console = Console(settings.progress)
    with told_with_file(source):
        check_data(recipe, data, settings, console)
    console.line(next_line("train", *given, *(["--elastic"] if args.elastic else []), "-o", args.out))


def recipe_and_data(args: argparse.Namespace) -> tuple[Any, Any, str]:
    """The recipe with what the command line changes in it, where its values stand, and where the data lies; those of
    the run where it goes on.

    `ValueError` where neither is named and there is no run to go on with.
    """
    from elastic_cnn.tasks.recipe import read_recipe
    from elastic_cnn.tasks.run_folder import RunFolder

    folder, name = RunFolder(args.out), args.recipe
    if name is not None and "=" in name:  # a key: there is no recipe before it
        args.overrides, name = [name, *args.overrides], None
    overrides = [*(("elastic=true", "convert={}") if args.elastic else ()), *args.overrides, *args.extend]
    if args.extend:
        if name is not None:
            raise ValueError(f"--extend goes on with the run's own recipe: leave {name} out")
        check_extension(args.extend, folder)
    if name is None and not args.resume:
        raise ValueError("name a recipe (`elastic train finetune --data DIR -o RUN_DIR`), or --resume a run")
    if args.network is not None:
        overrides.append(f"network={args.network}")
    if args.split is not None:
        overrides.append(f"options.split={args.split}")
    overrides += [f"options.{key}={json.dumps(path)}" for key, path in places_of(args).items()]
    if args.classes_from is not None:
        overrides.append(f"options.classes_from={args.classes_from}")
    if name is None:
        folder.recipe()  # says what is missing
    recipe, source = read_recipe(folder.recipe_yaml if name is None else name, overrides)
    own = name is None and args.data is None and args.images is None
    return recipe, source, folder.data() if own else data_of(args)


def check_extension(changes: list[str], folder: Any) -> None:
    """`ValueError` where a run cannot go on with these keys changed."""
    for change in changes:
        key, _, value = change.partition("=")
        if key not in folder.EXTENDABLE:
            raise ValueError(
                f"--extend {change}: a run goes on with {', '.join(folder.EXTENDABLE)} changed, nothing else"
            )
        if key == "epochs" and value.isdecimal() and int(value) <= (before := folder.recipe().epochs):
            raise ValueError(f"--extend {change}: the run has {before} epochs already: give more, in all")


def was_restarted() -> bool:
    """Whether a launcher starts this run again after a failure: `torchrun --max-restarts`, SLURM's requeue."""
    return any(os.environ.get(name, "0") != "0" for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def machine_settings(args: argparse.Namespace) -> Settings:
    """`Settings` from the arguments of `add_machine_arguments`."""
    workers = default_workers() if args.workers is None else args.workers
    return Settings(args.accelerator, args.devices, workers=workers, progress=False if args.no_progress else None)
