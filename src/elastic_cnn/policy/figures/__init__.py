"""The figures of a policy table, as functions that return matplotlib figures, and `draw_all`, which writes them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from elastic_cnn.measure.correlations import standardised
from elastic_cnn.policy.embedding import MINIMUM, embed
from elastic_cnn.policy.figures.categories import Opener, figure_categories, sort_categories
from elastic_cnn.policy.figures.maps import figure_block_maps, figure_gain_density, figure_photo_map
from elastic_cnn.policy.figures.photo import PhotoPolicy, figure_photos
from elastic_cnn.policy.figures.sizes import figure_sizes, policy_by_size
from elastic_cnn.policy.figures.style import save
from elastic_cnn.policy.names import readable
from elastic_cnn.policy.table import PolicyTable

__all__ = [
    "PhotoPolicy",
    "draw_all",
    "extreme_photos",
    "figure_block_maps",
    "figure_categories",
    "figure_gain_density",
    "figure_photo_map",
    "figure_photos",
    "figure_sizes",
    "policy_by_size",
    "save",
    "sort_categories",
]


def extreme_photos(table: PolicyTable, open_photo: Opener, count: int = 3) -> list[PhotoPolicy]:
    """The photos that the network saw at the finest scale, then those at the coarsest (`count` each, or fewer).

    Scores are compared in deviations from their mean at each block, so that no block outweighs the others.
    """
    means = standardised(table.scores.astype(np.float64)).mean(axis=1)  # (N,)
    order = np.argsort(-means, kind="stable")
    count = min(count, len(order) // 2)
    labels, predictions = table.column("label"), table.column("prediction")
    found = []
    for row in [*order[:count], *order[len(order) - count :]]:
        photo = open_photo(int(row))
        if photo is not None:
            name = labels[row] if labels[row] is not None else predictions[row]
            caption = ", ".join(map(readable, [name] if isinstance(name, str) else name or []))
            found.append(PhotoPolicy(photo, table.scores[row], caption))
    return found


def _finds_photos(table: PolicyTable, open_photo: Opener, tries: int = 10) -> bool:
    """Whether any of a few photos from all over the table can be opened."""
    return any(open_photo(int(row)) is not None for row in np.linspace(0, len(table) - 1, tries))


def draw_all(
    table: PolicyTable,
    out: str | Path,
    open_photo: Opener | None = None,
    *,
    seed: int = 0,
    formats: tuple[str, ...] = ("png", "svg"),
    note: Callable[[str], object] = lambda line: None,
) -> list[Path]:
    """Write every figure that the table allows into the folder `out`; returns the files. `note` hears what is left out.

    `figure1_photos`, `figure5_categories`, `figure6_photos`, `figure6_blocks`, `figure6_gain` (gains and losses),
    `policy_by_size`. `ValueError` for a table without a policy.
    """
    out = Path(out)
    blocks = table.info.blocks
    if not blocks:
        raise ValueError("this table is of a network without elastic blocks: there is no policy to draw")
    if open_photo is not None and not _finds_photos(table, open_photo):
        note(f"no photos in the figures: none was found in {table.info.data_root}")
        open_photo = None
    makers: dict[str, Callable[[], object]] = {"figure5_categories": lambda: figure_categories(table, open_photo)}
    if len(table) < MINIMUM:
        note(f"no t-SNE: the table has {len(table)} images, it needs {MINIMUM}")
    else:
        coordinates = embed(table.scores, seed=seed)
        if open_photo is not None:
            opener = open_photo
            extremes = extreme_photos(table, opener)
            if extremes:
                makers["figure1_photos"] = lambda: figure_photos(extremes, blocks, table.scores)
            makers["figure6_photos"] = lambda: figure_photo_map(coordinates, opener)
        makers["figure6_blocks"] = lambda: figure_block_maps(table, coordinates)
        makers["figure6_gain"] = lambda: figure_gain_density(table, coordinates)
    makers["policy_by_size"] = lambda: figure_sizes(table)
    written = []
    for name, make in sorted(makers.items()):
        try:
            figure = make()
        except ValueError as reason:
            note(f"no {name}: {reason}")
            continue
        written += save(figure, out / name, formats)
    return written
