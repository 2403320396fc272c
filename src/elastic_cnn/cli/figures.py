"""`elastic figures POLICY`: draw the figures of a policy table again."""

import argparse
from pathlib import Path

from elastic_cnn.extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", metavar="POLICY", help="a policy table, or the folder that `elastic policy` wrote")
    parser.add_argument("-o", "--out", metavar="OUT", help="folder to write (default: figures, beside the table)")
    parser.add_argument("--data", metavar="DIR", help="where the photos are now, if not where they were")
    parser.add_argument("--seed", type=int, default=0, help="of the t-SNE (default: 0)")
    parser.add_argument(
        "--format", action="append", choices=("png", "svg", "pdf"), help="may be repeated (default: png and svg)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the figures in OUT")


def run(args: argparse.Namespace) -> None:
    require("matplotlib", "figures")
    from elastic_cnn.files import refuse_output
    from elastic_cnn.policy.figures import draw_all
    from elastic_cnn.policy.photos import open_path_or_none
    from elastic_cnn.policy.table import policy_file, read_policy

    path = policy_file(args.policy)
    out = Path(args.out) if args.out else path.parent / "figures"
    refuse_output(out, args.overwrite, folder=True)
    table = read_policy(path)
    if not len(table):
        raise ValueError(f"{path} has no rows: collect it anew, from a folder that holds photos")
    opener = open_path_or_none(args.data or table.info.data_root, table.column("path"))
    formats = tuple(dict.fromkeys(args.format or ("png", "svg")))
    for written in draw_all(table, out, opener, seed=args.seed, formats=formats, note=print):
        print(written)
