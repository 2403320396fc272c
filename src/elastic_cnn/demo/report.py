"""The demo's report: one HTML file from `Results`, and the table for the terminal."""

from html import escape

import numpy as np

from elastic_cnn.demo import charts
from elastic_cnn.demo.page import bars, chart, page, paragraph, picture, section, table
from elastic_cnn.demo.results import Results, SizeBin
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
            _curves(results),
            *([_errors_by_size(results)] if results.bins else []),
            _policy_by_size(results) if results.sizes is not None else _no_sizes(),
            _map(results),
            _examples(results),
            _details(results),
        ],
    )


def terminal_table(results: Results) -> str:
    """The main figures: parameters, multiply-adds, error overall and by object size, images a second."""
    header, rows = _table(results)
    return text_table(header, rows)


def verdict(results: Results) -> str:
    """What the comparison says, and no more than it says."""
    difference = results.difference
    points = abs(100 * difference.value)
    interval = (
        f"95% interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f} points, p = {_p(difference.p_value)}"
    )
    if not _learnt(results):
        return f"Neither network has learnt enough to be compared: train for longer (difference: {interval})."
    if not difference.clear:
        lead = "ahead" if difference.value > 0 else "behind" if difference.value < 0 else "level"
        text = f"No clear difference in this run: Elastic is {lead} by {points:.1f} points, which chance could do"
        if difference.value == 0:
            text = "No difference in this run: both networks err equally often"
        return f"{text} ({interval})."
    if difference.value > 0:
        return f"Elastic wins this run: {points:.1f} points less error at the same cost ({interval})."
    return f"Elastic loses this run: {points:.1f} points more error than the base at the same cost ({interval})."


def _learnt(results: Results) -> bool:
    """Whether the better network errs at most three quarters as often as guessing would."""
    guessing = 1 - 1 / len(results.classes)
    return min(results.base_error.value, results.elastic_error.value) <= 0.75 * guessing


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _table(results: Results, sizes: bool = True) -> tuple[list[str], list[list[str]]]:
    bins = results.bins if sizes else []
    header = ["network", "parameters", "multiply-adds", "error", *(f"{part.label} px" for part in bins), "images/s"]
    rows = []
    for network, total in ((results.base, results.base_error), (results.elastic, results.elastic_error)):
        parts = [part.base if network is results.base else part.elastic for part in bins]
        errors = [f"{100 * error.value:.1f}%" for error in (total, *parts)]
        costs = [f"{network.parameters / 1e6:.3f}M", f"{network.macs / 1e6:.1f}M"]
        rows.append([network.title, *costs, *errors, f"{network.images_per_s:.0f}"])
    return header, rows


def _opening(results: Results) -> str:
    what = "handwritten digits of known size" if results.sizes is not None else f"the photos in {results.name}"
    lead = paragraph(IN_THREE_SENTENCES, "lead")
    return f"<header id='what'><h1>Elastic: every layer learns at which scale to look</h1>{lead}</header>" + paragraph(
        f"Here both small networks were trained on {what} by the same recipe, from the same seed, and compared on "
        f"{len(results.labels):,} images that neither has seen.",
        "faint",
    )


def _verdict(results: Results) -> str:
    header, rows = _table(results, sizes=False)
    difference = results.difference
    pairs = (
        f"Of {len(results.labels):,} images, Elastic alone is right on {difference.only_elastic:,} and the base "
        f"alone on {difference.only_base:,} (McNemar's exact test). This is one run with one seed: training "
        "from another seed moves either error too, which the interval does not include."
    )
    content = [f"<p><strong>{escape(verdict(results))}</strong></p>", table(header, rows, ["base", "elastic"])]
    content.append(paragraph(pairs, "note"))
    if results.bins:
        content.append(paragraph(_size_summary(results.bins), "note"))
    content.append(
        paragraph(
            f"Multiply-adds are those of one {results.image_size}\N{MULTIPLICATION SIGN}{results.image_size} image; "
            f"images a second were measured in testing, the networks taking turns. {_speed(results)}",
            "note",
        )
    )
    return section("verdict", "Base against Elastic", *content, kind="verdict")


def _speed(results: Results) -> str:
    """Equal multiply-adds are not equal time."""
    ratio = results.elastic.images_per_s / results.base.images_per_s
    if 0.97 < ratio < 1.03:
        return "Both are equally fast here."
    if ratio > 1:
        return f"Elastic runs {ratio:.2f} times as fast as the base here."
    return f"Equal multiply-adds are not equal time: Elastic runs at {100 * ratio:.0f}% of the base's speed here."


def _size_summary(bins: list[SizeBin]) -> str:
    """Where the difference lies, in words."""
    better = [part.label for part in bins if part.elastic.value < part.base.value]
    if len(better) == len(bins):
        return "Elastic makes fewer errors in every size range."
    if not better:
        return "Elastic makes fewer errors in no size range."
    return f"Elastic makes fewer errors at {', '.join(better)} pixels, and no fewer in the other size ranges."


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
    pair = [
        _draw(
            results, charts.error_curve, "validation error over epochs", "Error on validation images, after each epoch."
        ),
        _draw(results, charts.loss_curve, "training loss over epochs", "Loss in training, label smoothing included."),
    ]
    seconds = f"{results.base.train_seconds:.0f} s for the base, {results.elastic.train_seconds:.0f} s for Elastic"
    text = f"{results.train_images:,} images, {results.epochs} epochs; {seconds}."
    return section("curves", "Training", paragraph(text), f'<div class="pair">{"".join(pair)}</div>')


def _errors_by_size(results: Results) -> str:
    figure = _draw(
        results, charts.error_by_size, "error by object size",
        "Error by the true height of the digit, with Wilson's 95% binomial intervals; n is the number of images.",
    )  # fmt: skip
    header = ["height, px", "images", "base, 95% interval", "Elastic, 95% interval"]
    rows = [[part.label, f"{len(part.members):,}", *_cells(part)] for part in results.bins]
    return section(
        "sizes", "Error by object size", f'<div class="pair">{figure}{table(header, rows, [""] * len(rows))}</div>'
    )


def _cells(part: SizeBin) -> list[str]:
    cells = []
    for error in (part.base, part.elastic):
        cells.append(f"{100 * error.value:.1f}% ({100 * error.low:.1f}\N{EN DASH}{100 * error.high:.1f})")
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
        answer = int(network.predictions[index])
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
        "seed": str(results.seed),
        "data": f"{results.name}: {results.train_images:,} images to train on, {len(results.labels):,} to compare on",
        "time": f"{results.seconds / 60:.1f} minutes in all",
        **results.machine,
        "networks": f"{results.base.network} and {results.elastic.network}, the last epoch's weights",
    }
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{f'<code>{escape(text)}</code>' if name == 'command' else escape(text)}</dd>"
        for name, text in entries.items()
    )
    notes = "".join(paragraph(note, "note") for note in results.notes)
    source = (
        "Elastic: Wang, Kembhavi, Farhadi, Yuille and Rastegari, “ELASTIC: Improving CNNs with Dynamic Scaling "
        "Policies”, CVPR 2019. Under the same seed on the same kind of machine all but the times comes out the same."
    )
    return section("details", "How this was made", f"<dl>{items}</dl>", notes, paragraph(source, "note"))
