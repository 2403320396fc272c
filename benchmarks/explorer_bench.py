"""The explorer with a generated table: build time and memory, and what the browser takes for the first paint, sorting,
filtering and scrolling.

    python benchmarks/explorer_bench.py --rows 50000 --out runs/explorer_bench

Photos are drawn shapes (256 x 256 JPEG); `--distinct` of them are drawn, and further rows are hard links to these under
names of their own, each of which is read and decoded by itself. Chromium runs headless without a GPU.
"""

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from elastic_cnn.policy.explorer import ExplorerOptions, build_explorer
from elastic_cnn.policy.explorer.sprites import PictureOptions
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.policy.table import PolicyInfo, write_part

SHAPES = ("circle", "cross", "diamond", "ring", "square", "star", "stripes", "triangle")
STAGES = ((56, 6), (28, 8), (14, 3))  # resolution and elastic blocks: 17, as in ResNeXt50+Elastic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--distinct", type=int, default=2_000)
    parser.add_argument("--map", default="pca", choices=("pca", "tsne"))
    parser.add_argument("--picture", type=int, default=0, help="side of the detail view's pictures (0: none)")
    parser.add_argument("--out", default="runs/explorer_bench", type=Path)
    parser.add_argument("--most", type=int, default=500_000, help="photos shown; a sample of larger tables")
    parser.add_argument("--keep", action="store_true", help="measure the explorer that lies there")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, object] = {"rows": args.rows, "cpus": os.cpu_count()}
    if not args.keep:
        results |= build(args)
    results |= measure(args.out / "explorer" / "index.html")
    print(json.dumps(results, indent=2))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


def build(args: argparse.Namespace) -> dict[str, object]:
    """Generate, build, and tell time and peak memory of the build."""
    shutil.rmtree(args.out, ignore_errors=True)
    generate(args.out, args.rows, args.distinct)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    options = ExplorerOptions(
        map=args.map, most=args.most, pictures=PictureOptions(picture=args.picture, workers=os.cpu_count() or 1)
    )
    report = build_explorer(args.out / "policy.parquet", args.out / "explorer", options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = sum(path.stat().st_size for path in (args.out / "explorer" / "data").iterdir())
    return {
        "build_s": round(time.perf_counter() - start, 1),
        "map": report.map,
        "peak_mib": round(peak / 1024),
        "peak_before_build_mib": round(before / 1024),
        "picture_mib": round(report.bytes / 2**20, 1),
        "data_mib": round(data / 2**20, 1),
    }


def generate(folder: Path, rows: int, distinct: int) -> None:
    """Photos of shapes and a policy table that follows their sizes: small shapes, high resolution."""
    rng = np.random.default_rng(0)
    distinct = min(rows, distinct)
    kinds, sizes = rng.integers(len(SHAPES), size=distinct), rng.uniform(12, 110, size=distinct)
    for name in SHAPES:
        (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
    table = []
    phase = rng.normal(size=(len(SHAPES), sum(count for _, count in STAGES)))
    for row in range(rows):
        source = row % distinct
        name = SHAPES[kinds[source]]
        path = folder / "photos" / name / f"{name}_{row:06d}.jpg"
        if row < distinct:
            draw(name, sizes[source], rng).save(path, quality=88)
        else:
            first = folder / "photos" / name / f"{name}_{source:06d}.jpg"
            os.link(first, path)
        table.append(_row(row, name, sizes[source], phase, rng, path.relative_to(folder / "photos").as_posix()))
    blocks = [BlockInfo(f"layer{s + 1}.{i}", (1, 2), s + 1, r, r) for s, (r, n) in enumerate(STAGES) for i in range(n)]
    info = PolicyInfo("classification", SHAPES, tuple(blocks), "resnext50_elastic (generated)", against="base")
    info = PolicyInfo(**{**vars(info), "data_root": str((folder / "photos").resolve())})
    write_part(folder / "policy.parquet", table, info)


def _row(row: int, name: str, size: float, phase: np.ndarray, rng: np.random.Generator, path: str) -> dict:
    label = SHAPES.index(name)
    depth = np.linspace(0, 1, phase.shape[1])
    scores = (60 - size) / 160 * (1 - 0.6 * depth) + 0.09 * np.sin(3 * depth + label) + 0.05 * phase[label]
    right, base_right = rng.random() < 0.82, rng.random() < 0.78
    other = SHAPES[(label + 1 + rng.integers(len(SHAPES) - 1)) % len(SHAPES)]
    return {
        "id": row,
        "path": path,
        "label": name,
        "prediction": name if right else other,
        "confidence": float(rng.beta(6, 2) if right else rng.beta(3, 3)),
        "correct": bool(right),
        "base_prediction": name if base_right else other,
        "base_confidence": float(rng.beta(6, 2)),
        "base_correct": bool(base_right),
        "object_sizes": [float(size)],
        "scores": scores + rng.normal(scale=0.05, size=len(scores)),
    }


def draw(name: str, size: float, rng: np.random.Generator, side: int = 256) -> Image.Image:
    """A shape of about `size` pixels on a ground of soft colours."""
    corners = rng.integers(40, 216, size=(2, 2, 3)).astype(np.uint8)
    image = Image.fromarray(corners).resize((side, side), Image.Resampling.BICUBIC)
    noise = rng.normal(scale=6, size=(side, side, 1))
    image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    x, y = rng.uniform(size, side - size, size=2) if size < side / 2 else (side / 2, side / 2)
    color = tuple(int(c) for c in rng.integers(0, 256, size=3))
    pen = ImageDraw.Draw(image)
    if name == "circle":
        pen.ellipse([x - size, y - size, x + size, y + size], fill=color)
    elif name == "ring":
        pen.ellipse([x - size, y - size, x + size, y + size], outline=color, width=max(2, int(size / 4)))
    elif name == "cross":
        pen.rectangle([x - size, y - size / 4, x + size, y + size / 4], fill=color)
        pen.rectangle([x - size / 4, y - size, x + size / 4, y + size], fill=color)
    elif name == "stripes":
        for i in range(-2, 3):
            pen.rectangle(
                [x - size, y + i * size / 2.5 - size / 8, x + size, y + i * size / 2.5 + size / 8], fill=color
            )
    else:
        count, inner = {"diamond": (4, 1), "square": (4, 1), "triangle": (3, 1), "star": (5, 0.42)}[name]
        turn = math.pi / 4 if name == "square" else -math.pi / 2
        steps = count * (1 if inner == 1 else 2)
        radius = [size if inner == 1 or i % 2 == 0 else size * inner for i in range(steps)]
        points = [
            (x + r * math.cos(turn + 2 * math.pi * i / steps), y + r * math.sin(turn + 2 * math.pi * i / steps))
            for i, r in enumerate(radius)
        ]
        pen.polygon(points, fill=color)
    return image


SCROLL = """async () => {
  const grid = document.getElementById("grid");
  grid.scrollTop = 0;
  const times = [];
  let last = await new Promise(requestAnimationFrame);
  for (let i = 0; i < 240; i++) {
    grid.scrollTop += 60;
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times;
}"""

# From the change to the frame after it is drawn: two frames are asked for, since the first runs before the paint.
CHANGE = """async (patch) => {
  const app = ElasticExplorer.app;
  const start = performance.now();
  app.state.set(patch);
  const script = performance.now() - start;
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return { filter: app.timing.filter, sort: app.timing.sort, script, painted: performance.now() - start };
}"""

CHANGES = {
    "sort_block": {"sort": "b8", "descending": True},
    "sort_category": {"sort": "category"},
    "sort_mean": {"sort": "mean"},
    "filter_gain": {"outcome": "gain"},
    "filter_class": {"outcome": "all", "category": "star"},
    "filter_confidence": {"category": "", "low": 30, "high": 80},
    "search": {"low": 0, "high": 100, "query": "star_01"},
    "search_again": {"query": "ring"},
    "lasso": {"query": "", "lasso": [0.2, 0.2, 0.8, 0.25, 0.7, 0.9, 0.4, 0.6, 0.1, 0.7]},
    "histogram_range": {
        "lasso": [],
        "sort": "table",
        "chart": "b3",
        "brush": [{"key": "b3", "low": -0.1, "high": 0.2}],
    },
    "confusion_cell": {"brush": [], "cell": [0, 1]},
    "legend_classes": {"cell": [], "among": [0, 2, 5]},
}


def measure(index: Path) -> dict[str, object]:
    """Open the explorer from disk five times; change it and scroll it once."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no chromium found: install it, or measure on another machine")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        paints = []
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(index.resolve().as_uri())
            page.wait_for_selector("html[data-ready='1']")
            while not page.evaluate("performance.getEntriesByName('first-contentful-paint').length"):
                page.wait_for_timeout(20)
            entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            cards = "performance.getEntriesByName('cards')[0].startTime"
            paints.append((page.evaluate(entry), page.evaluate(cards)))
            if len(paints) < 5:
                page.close()
        page.wait_for_timeout(1500)
        changes = {name: page.evaluate(CHANGE, patch) for name, patch in CHANGES.items()}
        page.evaluate(CHANGE, {"among": [], "sort": "b3"})
        page.wait_for_timeout(1000)
        frames = sorted(page.evaluate(SCROLL))
        heap = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize : 0")
        version = browser.version
        browser.close()
    return {
        "chromium": version,
        "first_paint_ms": round(statistics.median(paint for paint, _ in paints)),
        "cards_painted_ms": round(statistics.median(cards for _, cards in paints)),
        "cards_painted_worst_ms": round(max(cards for _, cards in paints)),
        "changes_ms": {name: {k: round(v, 1) for k, v in times.items()} for name, times in changes.items()},
        "frame_ms_mean": round(statistics.mean(frames), 2),
        "frame_ms_p95": round(frames[int(0.95 * len(frames))], 2),
        "frames_per_s": round(1000 / statistics.mean(frames), 1),
        "heap_mib": round(heap / 2**20),
    }


if __name__ == "__main__":
    main()
