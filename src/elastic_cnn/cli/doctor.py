"""`elastic doctor`: which kernels run on this machine and why, and what would make it faster."""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(args: argparse.Namespace) -> None:
    from elastic_cnn.kernels.doctor import as_dict, diagnose

    findings = diagnose()
    if args.json:
        print(json.dumps(as_dict(findings), indent=2))
        return
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"{'ok' if finding.ok else '--'}  {finding.topic:{width}}  {finding.text}")
        if finding.advice:
            print(f"    {'':{width}}  to gain: {finding.advice}")
