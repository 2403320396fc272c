"""The first hour with another person's photos: its commands, run as typed, and the page of what they say.

`python tests/first_hour/hour.py -o docs/first_hour.md` writes the page anew; the test compares a run with it.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

from photos import COUNTS, make_photos

QUICK = r"""\
    weights=null network_kwargs='{stem_width: 8, channels: [8, 8, 16, 16]}' image_size=64 convert.photos=16 \
    epochs=5 batch_size=8 optimizer.lr=0.01 optimizer.options.layer_decay=1 fused=never"""
CODES = (0, 0, 0, 2, 0, 0, 0)  # of the steps
STEPS = (  # (what she thinks, the command, options that are not shown)
    (
        """\
`photos` came on a stick: a folder a kind, nothing divided into training and test. Look at what is there before
anything is trained: every photo is read once.""",
        "elastic train finetune --data photos --check-data",
        "--workers 0",
    ),
    (
        """\
Three files are no photos, and a telephone's HEIC photo needs one more package (pillow-heif); the photo that was turned,
and that of a print shop (CMYK), are read like all others. Nothing has to be moved: a fifth of each class is held out
for the test, and rare classes count the more.

The lines below the first make this page quick to check: a very small network, from random weights. With photos of yours
leave them out, and name a network such as `resnet50`.""",
        f"elastic train finetune --data photos --network resnet10t --elastic -o runs/flowers {QUICK}",
        "--workers 0 --accelerator cpu",
    ),
    (
        "The run has kept what it tests on (`runs/flowers/split.csv`), so that the data need not be named again.",
        "elastic eval runs/flowers -o runs/flowers/report",
        "--workers 0 --accelerator cpu",
    ),
    (
        """\
`runs/flowers/report/index.html` is the page to send to a colleague: classes with intervals, confusions,
calibration, the worst mistakes as pictures. The intervals of so few photos are wide; that is the answer. Now photos
that nobody has named yet. One is broken: its reason stands in the table, and the command ends with exit code 2.""",
        "elastic predict runs/flowers holiday -o answers.csv",
        "",
    ),
    (
        "The network is elastic: at which scale did its blocks look at each photo?",
        "elastic policy runs/flowers",
        "--workers 0",
    ),
    (
        "The same photos to search, sort and filter, in a page that opens from disk:",
        "elastic explore runs/flowers/policy",
        "--workers 1",
    ),
    (
        "And a file for programs that know nothing of this package:",
        "elastic export runs/flowers -o flowers.onnx --fixed-size",
        "",
    ),
)
HEAD = """\
# The first hour

From another person's folder of photos to a report, every command with what it says. Each ends with what to do next.
The photos are drawn ([tests/first_hour](../tests/first_hour/photos.py)), with what such folders hold: classes of very
different size, photos turned by EXIF, in CMYK and with a palette, torn and empty files, a web page saved as `.jpg`, a
HEIC photo. `tests/first_hour/hour.py` writes the page; a test runs the same commands and compares, figures aside.

```sh
pip install ".[train,figures,export]"
```
"""
TAIL = """
Where to go on: [photos of your own](finetune.md) says what the recipe does and how to change it, [data](data.md) which
folders and files are read, [the explorer](explorer.md) what can be seen, [serving](serving.md) how programs ask,
[choosing](choosing.md) which network to take, [troubleshooting](troubleshooting.md) what the commonest errors mean.
"""


def run(place: Path) -> list[tuple[str, int, str]]:
    """Every command in the folder `place`, with photos made there: (command, exit code, what it said)."""
    from elastic_cnn.cli import main

    make_photos(place)
    said = []
    with contextlib.chdir(place) if hasattr(contextlib, "chdir") else _chdir(place):
        for _, command, hidden in STEPS:
            words = shlex.split(f"{command} {hidden}".replace("\\\n", " "))[1:]
            stream = io.StringIO()
            with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                code = main(words)
            said.append((command, code, stream.getvalue().replace(f"{place}/", "")))
    return said


@contextlib.contextmanager
def _chdir(place: Path):
    before = os.getcwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


def page(said: list[tuple[str, int, str]]) -> str:
    """The page of a run."""
    parts = [HEAD]
    for (thought, _, _), (command, code, text) in zip(STEPS, said, strict=True):
        exit_code = f"(exit code {code})\n" if code else ""
        parts.append(f"\n{thought}\n\n```sh\n{command}\n```\n\n```text\n{text}{exit_code}```\n")
    return "".join([*parts, TAIL])


def without_figures(text: str) -> list[str]:
    """The lines of a page, with what varies from machine to machine as `#`: all numbers but counts of files. Of the
    rows of the test's table, whose order is that of the errors, the classes alone, by name."""
    lines = []
    for line in text.splitlines():
        exact = line.startswith(("train: ", "val: ", "elastic: ", "(exit", "#")) or " can be read" in line
        if row := re.match(rf"({'|'.join(COUNTS)}) +\d", line):
            lines.append(row[1])
            continue
        words = line if exact else re.sub(r"-{5,}|[-+]?\d+(?:[.,]\d+)?(?:e[-+]?\d+)?", "#", line)
        lines.append(" ".join(words.split()))
    places = [number for number, line in enumerate(lines) if line in COUNTS]
    for place, name in zip(places, sorted(lines[number] for number in places), strict=True):
        lines[place] = name
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", required=True, type=Path)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        said = run(Path(folder).resolve())
    text = page(said)
    if [code for _, code, _ in said] != list(CODES):
        sys.exit(f"not written: a step ended otherwise than it should\n{text}")
    out.write_text(text)
