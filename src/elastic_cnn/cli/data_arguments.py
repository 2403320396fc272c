"""Where the data lies, as arguments: a folder, or an annotation file in COCO's format and a folder of photos."""

import argparse
import os


def add_data_arguments(parser: argparse.ArgumentParser, what: str, split: str = "") -> None:
    """`--data`, and `--annotations` and `--images` in its place. split: what `{split}` in a file's name stands for."""
    parser.add_argument("--data", metavar="DIR", help=what)
    parser.add_argument(
        "--annotations", metavar="FILE", help=f"multi-label: annotations in COCO's format, wherever they lie{split}"
    )
    parser.add_argument("--images", metavar="DIR", help=f"multi-label: the folder of their photos{split}")


def data_of(args: argparse.Namespace) -> str:
    """The data folder: `--data`, or that of the photos. `ValueError` where neither is given."""
    data = args.data or args.images
    if data is None or (args.data is None and args.annotations is None):
        raise ValueError("the data is missing: give --data DIR, or --annotations FILE --images DIR")
    return str(data)


def data_or_own(args: argparse.Namespace, checkpoint: str) -> tuple[str, dict[str, str]]:
    """The data that is named and its places, else those of the run that a checkpoint lies in."""
    from elastic_cnn.tasks.run_folder import data_of_run
    from elastic_cnn.zoo.checkpoint import checkpoint_file

    checkpoint_file(checkpoint)  # one that is missing is told so, not that its data is
    named = args.data is not None or args.images is not None or args.annotations is not None
    try:
        return (data_of(args), places_of(args)) if named else data_of_run(checkpoint)
    except ValueError as error:
        if named:
            raise
        raise ValueError("the data is missing: give --data DIR, or --annotations FILE --images DIR") from error


def has_own_data(checkpoint: str) -> bool:
    """Whether a checkpoint lies in, or is, the folder of a run that knows its data."""
    from elastic_cnn.tasks.run_folder import data_of_run

    try:
        data_of_run(checkpoint)
    except ValueError:
        return False
    return True


def places_of(args: argparse.Namespace) -> dict[str, str]:
    """`annotations` and `images` as they were given, independent of the working folder; what was not is left out."""
    given = {"annotations": args.annotations, "images": args.images}
    return {name: os.path.abspath(path) for name, path in given.items() if path}
