"""The demo's report: one HTML file from `Results`, and the table for the terminal."""

from html import escape

import numpy as np

from elastic_cnn.demo import charts, svg, verdict
from elastic_cnn.demo.page import (
    bars,
    chart,
    figure,
    page,
    paragraph,
    picture,
    section,
    seed_buttons,
    table,
)
from elastic_cnn.demo.results import NetworkResult, Results, SizeBin
from elastic_cnn.measure.paired import paired_difference
from elastic_cnn.measure.tables import text_table

IN_THREE_SENTENCES = (
    "The designer of a convolutional network usually fixes at which resolution each layer works. An Elastic layer "
    "divides its channels over two branches, one at full and one at half resolution, and adds them up again, so that "
    "every layer can look for fine and coarse structure alike, and which branch responds depends on the image: a "
    "learned scale policy. The half-resolution branch needs a quarter of the multiply-adds, and what that saves pays "
    "for more layers: both networks here cost the same."
)
SCORE = (
    "A block's score is the mean activation of its full-resolution branch less that of its half-resolution branch: "
    "high means fine detail, low means coarse."
)
TILES = 14


def render(results: Results) -> str:
    """The whole report as HTML; no file or address outside of it is needed."""
    return page(
        f"Elastic demo: {results.name}",
        [
            _opening(results),
            _verdict(results),
            _samples(results),
            *([_errors_by_size(results)] if results.bins else []),
            _curves(results),
            _conversion(results),
            _policy_by_size(results) if results.sizes is not None else _no_sizes(),
            _map(results),
            _examples(results),
            _details(results),
        ],
        charts=True,
    )


def terminal_table(results: Results) -> str:
    """The main figures: parameters, multiply-adds, error overall and by object size, images a second."""
    header, rows = _table(results)
    return text_table(header, rows)


def sentences(results: Results) -> list[str]:
    """What the demo found, the headline first."""
    sizes = [verdict.by_size(results.bins)] if results.bins else []
    return [verdict.headline(results), *sizes, verdict.speed(results), verdict.conversion(results)]


def _table(results: Results, sizes: bool = True) -> tuple[list[str], list[list[str]]]:
    bins = results.bins if sizes else []
    header = ["network", "parameters", "multiply-adds", "error", *(f"{part.label} px" for part in bins), "images/s"]
    rows = []
    for kind, network in (("base", results.base), ("elastic", results.elastic)):
        parts = [np.mean(getattr(part, kind)) for part in bins]
        errors = [_spread(network), *(verdict.percent(float(value)) for value in parts)]
        costs = [f"{network.parameters / 1e6:.3f}M", f"{network.macs / 1e6:.1f}M"]
        rows.append([network.title, *costs, *errors, f"{results.speed.images_per_s[kind]:.0f}"])
    return header, rows


def _spread(network: NetworkResult) -> str:
    spread = network.spread
    deviation = "" if spread.deviation is None else f" \N{PLUS-MINUS SIGN} {100 * spread.deviation:.1f}"
    return f"{100 * spread.mean:.1f}%{deviation}"


def _opening(results: Results) -> str:
    what = "handwritten digits of known size" if results.sizes is not None else f"the photos in {results.name}"
    lead = paragraph(IN_THREE_SENTENCES, "lead")
    seeds = len(results.base.runs)
    return f"<header id='what'><h1>Elastic: every layer learns at which scale to look</h1>{lead}</header>" + paragraph(
        f"Here both small networks were trained on {what} by the same recipe, from {seeds} seed{'s' * (seeds != 1)} "
        f"each, and compared on {len(results.labels):,} images that none has seen.",
        "faint",
    )


def _verdict(results: Results) -> str:
    header, rows = _table(results, sizes=False)
    content = [f"<p><strong>{escape(verdict.headline(results))}</strong></p>", table(header, rows, ["base", "elastic"])]
    if results.bins:
        content.append(paragraph(verdict.by_size(results.bins)))
    content.append(paragraph(verdict.speed(results)))
    if results.explorer is not None:
        text = f"Explore all {len(results.labels):,} images and their scale policies"
        content.append(f'<p><a class="button" href="{escape(results.explorer)}">{escape(text)}</a></p>')
    note = (
        "Runs of one seed see the same images in the same order and are compared as a pair; \N{PLUS-MINUS SIGN} is the "
        "standard deviation over the seeds. More or fewer errors are claimed only where both intervals over the seeds "
        f"leave out 0. The images are the same for all seeds. Multiply-adds are those of one {results.image_size}"
        f"\N{MULTIPLICATION SIGN}{results.image_size} image; images a second were measured with the networks in turns."
    )
    return section("verdict", "Base against Elastic", *content, paragraph(note, "note"), kind="verdict")


def _conversion(results: Results) -> str:
    found = results.converted
    note = (
        f"{found.blocks} blocks, calibrated on {found.photos} of the training images, without their labels: half of "
        "each block's channels, those that change least at half resolution, go there, and what reads them is refitted. "
        f"The converted network runs at {results.speed.images_per_s['converted']:.0f} images a second, the base at "
        f"{results.speed.images_per_s['base']:.0f} ({results.speed.form})."
    )
    text = verdict.conversion(results)
    return section("conversion", "The trained base, converted", paragraph(text), paragraph(note, "note"))


def _samples(results: Results) -> str:
    if results.sizes is None:
        chosen = np.linspace(0, len(results.labels) - 1, min(2 * TILES, len(results.labels))).astype(int)
        tiles = "".join(_tile(results, index) for index in chosen)
        return section("samples", "Samples", f'<div class="tiles many">{tiles}</div>')
    rows = []
    for part in results.bins:
        tiles = "".join(_tile(results, int(index)) for index in part.members[:TILES])
        rows.append(f'<div class="size">{part.label} px</div><div class="tiles">{tiles}</div>')
    text = (
        "Real handwritten digits (scikit-learn's 1,797 scans) pasted at log-uniform sizes over generated clutter. The "
        "one whole digit is to be recognised; pieces of other digits distract. No scan seen here was used in training."
    )
    return section("samples", "Samples by size", paragraph(text), f'<div class="strip">{"".join(rows)}</div>')


def _tile(results: Results, index: int) -> str:
    label = results.classes[results.labels[index]]
    size = "" if results.sizes is None else f", {results.sizes[index]:.0f} pixels"
    return picture(results.images[index], f"{label}{size}")


def _draw(results: Results, draw: charts.Chart, alt: str, caption: str) -> str:
    return chart(draw(results, charts.LIGHT), draw(results, charts.DARK), alt, caption)


def _curves(results: Results) -> str:
    networks = (("base", results.base), ("elastic", results.elastic))
    errors, losses = (
        [
            svg.Line(
                kind, run.seed, [(x, factor * y) for x, y in getattr(run, what)], f"{network.title}, seed {run.seed}"
            )
            for kind, network in networks
            for run in network.runs
            if getattr(run, what)
        ]
        for what, factor in (("errors", 100), ("losses", 1))
    )
    pair = [
        figure(
            svg.lines(errors, "epoch", "validation error", "%", "validation error over epochs, a curve a run"),
            "Error on validation images, after each epoch; a curve a run. Point at a run to find its seed everywhere.",
        ),
        figure(
            svg.lines(losses, "epochs done", "training loss", "", "training loss over epochs, a curve a run", 2),
            "Loss in training, label smoothing included.",
        ),
    ]
    seconds = [sum(run.train_seconds for run in network.runs) for _, network in networks]
    text = (
        f"{results.train_images:,} images, {results.epochs} epochs, {results.precision}; {seconds[0]:.0f} s for all "
        f"runs of the base, {seconds[1]:.0f} s for all of Elastic."
    )
    buttons = seed_buttons([run.seed for run in results.base.runs])
    return section("curves", "Training", paragraph(text), buttons, f'<div class="pair">{"".join(pair)}</div>')


def _errors_by_size(results: Results) -> str:
    marks = []
    for place, part in enumerate(results.bins):
        for kind, network in (("base", results.base), ("elastic", results.elastic)):
            values = [100 * value for value in getattr(part, kind)]
            interval = paired_difference(values, [0.0] * len(values))
            t = None if interval.t_low is None or interval.t_high is None else (interval.t_low, interval.t_high)
            seeds = list(zip([run.seed for run in network.runs], values, strict=True))
            marks.append(svg.Mark(kind, place, interval.mean, t, seeds, f"{network.title}, {part.label} px"))
    chart = svg.intervals(
        marks, [part.label for part in results.bins], "height of the digit, pixels", "error", "%",
        "error by object size",
    )  # fmt: skip
    caption = "Error by the true height of the digit: mean over the seeds with Student's 95% interval, and every seed."
    header = ["height, px", "images", "base", "Elastic", "differ\u00adence, points", "bootstrap 95%", "t 95%"]
    rows = [[part.label, f"{len(part.members):,}", *_cells(part)] for part in results.bins]
    shown = figure(chart, caption) + table(header, rows, [""] * len(rows))
    return section("sizes", "Error by object size", f'<div class="pair">{shown}</div>')


def _cells(part: SizeBin) -> list[str]:
    difference = part.difference
    cells = [verdict.percent(float(np.mean(values))) for values in (part.base, part.elastic)]
    cells.append(f"{100 * difference.mean:+.1f}")
    for low, high in ((difference.low, difference.high), (difference.t_low, difference.t_high)):
        cells.append("" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}")
    return cells


def _policy_by_size(results: Results) -> str:
    policy = results.policy
    assert policy.correlations is not None
    rho, low, high = policy.correlations[policy.strongest]
    falls = sum(value < 0 for value, _, _ in policy.correlations)
    text = (
        f"{SCORE} No size was given in training: at "
        f"{policy.blocks[policy.strongest].name} the rank correlation of digit height and score is {rho:+.2f} "
        f"(95% interval {low:+.2f} to {high:+.2f}). "
        f"The score falls with size in {falls} of {len(policy.blocks)} blocks and rises in the others. "
        "Larger digits fill more of the image, so even a network with random weights has scores that go with size: the "
        "correlation shows that the policy depends on size, not how much of that was learnt."
    )
    if max(abs(value) for value, _, _ in policy.correlations) < 0.1:
        text = f"{SCORE} In this run no block's score follows the digit's size (no rank correlation reaches 0.1)."
    pair = [
        _draw(
            results, charts.correlations, "Spearman correlation of size and score by block",
            "Spearman's correlation of digit height and score at each elastic block (first to last), 95% intervals.",
        ),
        _draw(
            results, charts.score_by_size, "score by object size",
            "Mean score by digit height, each block in deviations from its own mean; the strongest block is bold.",
        ),
    ]  # fmt: skip
    return section(
        "policy", "The scale policy by true size", paragraph(text), f'<div class="pair">{"".join(pair)}</div>'
    )


def _no_sizes() -> str:
    text = (
        "The true sizes of the objects in these photos are not known, so error by size and scale policy by size are "
        "left out. The demo without --data shows them on digits of known size."
    )
    return section("policy", "The scale policy by true size", paragraph(text))


def _map(results: Results) -> str:
    count, blocks = len(results.policy.shown), len(results.policy.blocks)
    colour = "the true height of its digit" if results.sizes is not None else "its mean score"
    caption = (
        f"t-SNE of the scale policies of {count:,} images (seeded): each point is an image, placed by its "
        f"{blocks} scores and coloured by {colour}. Distances between far groups mean little."
    )
    figure = _draw(results, charts.policy_map, "t-SNE of the scale policies", caption)
    return section("map", "All policies at a glance", f'<div style="max-width:640px;margin:auto">{figure}</div>')


def _examples(results: Results) -> str:
    policy = results.policy
    if results.sizes is not None:
        order = np.argsort(results.sizes, kind="stable")
        text = "From the smallest to the largest digit."
    else:
        order = np.argsort(-policy.relative.mean(axis=1), kind="stable")
        text = "From the image seen at the finest scale to that at the coarsest."
    chosen = order[np.linspace(0, len(order) - 1, min(12, len(order))).round().astype(int)]
    names = [block.name for block in policy.blocks]
    cards = [_example(results, int(index), names) for index in chosen]
    legend = (
        f"{text} One bar a block, first to last: up, the block looks at finer scale than it does on average; down, at "
        "coarser (in standard deviations, cut at 3)."
    )
    return section(
        "examples", "Images beside their policy", paragraph(legend), f'<div class="examples">{"".join(cards)}</div>'
    )


def _example(results: Results, index: int, names: list[str]) -> str:
    label = int(results.labels[index])
    said = []
    for network, kind in ((results.base, "base"), (results.elastic, "elastic")):
        answer = int(network.runs[0].predictions[index])
        mark, state = ("\N{CHECK MARK}", "right") if answer == label else ("\N{BALLOT X}", "wrong")
        said.append(f'<span class="{kind}">{kind.capitalize()}</span>: {_text(results.classes[answer])} '
                    f'<span class="{state}" title="{state}">{mark}</span>')  # fmt: skip
    size = "" if results.sizes is None else f", {results.sizes[index]:.0f} px"
    head = f"<strong>{_text(results.classes[label])}</strong>{size}"
    return (
        f'<div class="example">{_tile(results, index)}<div class="side"><div class="said">{head}<br>'
        f"{' &nbsp; '.join(said)}</div>{bars(results.policy.relative[index], names)}</div></div>"
    )


def _text(value: str, longest: int = 22) -> str:
    return escape(value if len(value) <= longest else value[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}")


def _details(results: Results) -> str:
    entries = {
        "command": results.command,
        "seeds": ", ".join(str(run.seed) for run in results.base.runs),
        "data": f"{results.name}: {results.train_images:,} images to train on, {len(results.labels):,} to compare on",
        "time": f"{results.seconds / 60:.1f} minutes in all",
        **results.machine,
        "networks": f"{results.base.network} and {results.elastic.network}, the last epoch's weights",
        "policies": f"of the Elastic network of seed {results.elastic.runs[0].seed}",
    }
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{f'<code>{escape(text)}</code>' if name == 'command' else escape(text)}</dd>"
        for name, text in entries.items()
    )
    notes = "".join(paragraph(note, "note") for note in results.notes)
    source = (
        "Elastic: Wang, Kembhavi, Farhadi, Yuille and Rastegari, “ELASTIC: Improving CNNs with Dynamic Scaling "
        "Policies”, CVPR 2019. The same seeds, epochs and images on the same kind of machine give the same errors."
    )
    return section("details", "How this was made", f"<dl>{items}</dl>", notes, paragraph(source, "note"))
