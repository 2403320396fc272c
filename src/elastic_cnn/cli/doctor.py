"""`elastic doctor`: which kernels run on this machine and why, and what would make it faster."""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elastic_cnn.kernels.doctor import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--require", action="store_true", help="exit with code 1 where a native kernel does not run")


def run(args: argparse.Namespace) -> None:
    from elastic_cnn.kernels.doctor import KERNELS, as_dict, diagnose

    findings = diagnose()
    if args.json:
        print(json.dumps(as_dict(findings), indent=2))
    else:
        _print_lines(findings)
    if args.require and not all(finding.ok for finding in findings if finding.topic.startswith(KERNELS)):
        raise SystemExit(1)


def _print_lines(findings: "list[Finding]") -> None:
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"{'ok' if finding.ok else '--'}  {finding.topic:{width}}  {finding.text}")
        if finding.advice:
            print(f"    {'':{width}}  to gain: {finding.advice}")
