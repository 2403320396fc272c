"""The policy table: one Parquet row an image, with the network's answer and its score at every elastic block.

| column | type | meaning |
|---|---|---|
| `id` | int64 | the image's number in its data set; unique, ascending |
| `path` | string | relative to `data_root`, with `/` |
| `label` | string, list<string> for multi-label and segmentation | null where unknown |
| `prediction` | the same | the most probable class; all above the threshold; all of the mask, the largest first |
| `confidence` | float32 | probability of the most probable class |
| `correct` | bool | prediction equals label (as sets, for multi-label); null where the label is unknown |
| `base_prediction`, `base_confidence`, `base_correct` | as above | of the network compared against |
| `iou` | float32, for segmentation | mean IoU of the classes in the photo's mask or the prediction; null for none |
| `object_sizes` | list<float32> | sizes of the image's objects (`PolicyInfo.size_unit`); null where unknown |
| `top_classes`, `top_probabilities` | list<string>, list<float32> | the most probable classes, best first, if any |
| `features` | `PolicyInfo.features` float32 | what the classifier saw (`policy/features.py`), if it was collected |
| `score:NAME` | float32 | Equation 5 at block NAME; one column a block, in order of execution |

The schema's metadata holds `PolicyInfo` as JSON under the key `elastic_cnn`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from elastic_cnn.extras import require
from elastic_cnn.files import atomic_write, naming
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.tasks.spec import task_names, task_spec

VERSION = 1
METADATA_KEY = b"elastic_cnn"
SCORE = "score:"


@dataclass(frozen=True)
class PolicyInfo:
    """What all rows of a policy table share.

    task: `classification`, `multilabel`, `segmentation`. classes: the network's, in order. blocks: in order of
    execution.
    network, checkpoint: name and file; against: the checkpoint of `base_*`, None without one.
    data_root: the folder (or shards) that paths are relative to. input: how photos were prepared (size, mean, ...).
    features: numbers a row in the column `features`, 0 for no such column. top: whether the columns `top_*` are there.
    palette: the colours of the classes in masks (red, green, blue), of segmentation alone.
    size_unit: the unit of `object_sizes`. source: what tells this collection from another (resuming compares it).
    """

    task: str
    classes: tuple[str, ...]
    blocks: tuple[BlockInfo, ...]
    network: str = ""
    checkpoint: str = ""
    data_root: str = ""
    input: dict[str, Any] = field(default_factory=dict)
    against: str | None = None
    size_unit: str = "pixels"
    source: dict[str, Any] = field(default_factory=dict)
    features: int = 0
    top: bool = False
    palette: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.task not in (known := task_names(lambda spec: spec.photos is not None or spec.per_pixel)):
            raise ValueError(f"a policy table is of the task {' or '.join(known)}, not {self.task!r}")

    @property
    def score_columns(self) -> list[str]:
        return [SCORE + block.name for block in self.blocks]

    def to_json(self) -> str:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values["blocks"] = [block.to_dict() for block in self.blocks]
        return json.dumps({"version": VERSION, **values}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "PolicyInfo":
        """The inverse of `to_json`; unknown fields are ignored. `ValueError` says what is wrong."""
        try:
            values = json.loads(text)
            version = values.pop("version")
            blocks = tuple(BlockInfo(**{**block, "scales": tuple(block["scales"])}) for block in values.pop("blocks"))
            known = {entry.name for entry in fields(cls)}
            values = {name: value for name, value in values.items() if name in known}
            values["classes"] = tuple(map(str, values["classes"]))
            values["palette"] = tuple(tuple(map(int, colour)) for colour in values.get("palette", ()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"its description is not one of a policy table ({error!r})") from error
        if version != VERSION:
            raise ValueError(f"it has version {version!r}, not {VERSION}: update elastic-cnn, or collect anew")
        return cls(**values, blocks=blocks)


def has_lists(task: str) -> bool:
    """Whether a photo may have several labels: names of classes, or classes of pixels."""
    spec = task_spec(task)
    return spec.several or spec.per_pixel


def schema_of(info: PolicyInfo, base: bool | None = None) -> Any:
    """The Arrow schema of a table with this description; `base`: with `base_*` columns, by default as it says."""
    pa = require("pyarrow", "figures")
    if not info.blocks and not info.features:
        raise ValueError("a policy table needs at least one elastic block (or, of a plain network, its features)")
    answer = pa.list_(pa.string()) if has_lists(info.task) else pa.string()
    columns = [("id", pa.int64()), ("path", pa.string()), ("label", answer)]
    base = info.against is not None if base is None else base
    for prefix in ("", "base_") if base else ("",):
        columns += [(f"{prefix}prediction", answer), (f"{prefix}confidence", pa.float32())]
        columns += [(f"{prefix}correct", pa.bool_())]
    if task_spec(info.task).per_pixel:
        columns.append(("iou", pa.float32()))
    columns.append(("object_sizes", pa.list_(pa.float32())))
    if info.top:
        columns += [("top_classes", pa.list_(pa.string())), ("top_probabilities", pa.list_(pa.float32()))]
    if info.features:
        columns.append(("features", pa.list_(pa.float32(), info.features)))
    columns += [(name, pa.float32()) for name in info.score_columns]
    names = [name for name, _ in columns]
    if len(set(names)) != len(names):
        raise ValueError(f"block names must differ from one another, got {[block.name for block in info.blocks]}")
    return pa.schema(columns, metadata={METADATA_KEY: info.to_json().encode()})


def write_part(path: str | Path, rows: Sequence[Mapping[str, Any]], info: PolicyInfo) -> None:
    """Write rows (column name -> value; `scores`: a sequence of one number a block) as one row group, atomically."""
    pq, pa = require("pyarrow.parquet", "figures"), require("pyarrow", "figures")
    schema = schema_of(info)
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in schema.names if not name.startswith(SCORE)}
    scores = np.asarray([row["scores"] for row in rows], np.float32).reshape(len(rows), len(info.blocks))
    columns |= {name: scores[:, i] for i, name in enumerate(info.score_columns)}
    table = pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def merge_parts(parts: Iterable[str | Path], path: str | Path, info: PolicyInfo) -> int:
    """Concatenate part files, in the order given, into one table; one part in memory at a time. Returns the rows.

    `ValueError` where a part is of another collection, or ids do not ascend.
    """
    pq = require("pyarrow.parquet", "figures")
    schema, rows, last = schema_of(info), 0, None
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for part in parts:
            table = _open(part).read()
            if not table.schema.equals(schema):
                raise ValueError(f"{part} is of another collection than {path}: remove it, or choose another output")
            ids = table["id"].to_numpy()
            if len(ids) and ((np.diff(ids) <= 0).any() or (last is not None and ids[0] <= last)):
                raise ValueError(f"{part} repeats images of an earlier part: remove the parts and collect anew")
            last = ids[-1] if len(ids) else last
            rows += len(ids)
            if len(ids):
                writer.write_table(table.replace_schema_metadata(schema.metadata))
    return rows


@dataclass(frozen=True)
class PolicyTable:
    """A policy table in memory: `info`, and the Arrow table `rows` with the columns of the schema."""

    info: PolicyInfo
    rows: Any

    def __len__(self) -> int:
        return self.rows.num_rows

    @cached_property
    def scores(self) -> np.ndarray:
        """(N, blocks) float32."""
        columns = [self.rows[name].to_numpy() for name in self.info.score_columns]
        if not columns:  # of a plain network
            return np.zeros((len(self), 0), np.float32)
        return np.stack(columns, axis=1).astype(np.float32, copy=False)

    @cached_property
    def features(self) -> np.ndarray:
        """(N, D) float32: what the classifier saw. `ValueError` where they were not collected."""
        if not self.info.features:
            raise ValueError("this table holds no features (it is of an earlier version): collect it anew")
        flat = self.rows["features"].combine_chunks().flatten().to_numpy()
        return flat.reshape(len(self), self.info.features)

    def take(self, rows: np.ndarray) -> "PolicyTable":
        """The table of these rows alone."""
        return PolicyTable(self.info, self.rows.take(rows))

    def column(self, name: str) -> list[Any]:
        """A column as Python values, None where null."""
        return self.rows[name].to_pylist()

    @property
    def has_base(self) -> bool:
        """Whether a base network's answers stand beside."""
        return "base_prediction" in self.rows.column_names

    def labels(self) -> list[str | None]:
        """One class a row: the label or, where it is unknown, None; the first of several labels."""
        if has_lists(self.info.task):
            return [label[0] if label else None for label in self.column("label")]
        return self.column("label")

    def gained(self) -> np.ndarray:
        """(N,) bool: right here and wrong in the base network. `ValueError` without a base network."""
        return self._differing(True, False)

    def lost(self) -> np.ndarray:
        """(N,) bool: wrong here and right in the base network. `ValueError` without a base network."""
        return self._differing(False, True)

    def _differing(self, right: bool, base_right: bool) -> np.ndarray:
        if not self.has_base:
            raise ValueError("this table has no answers of a base network: collect it with --against BASE_CHECKPOINT")
        pairs = zip(self.column("correct"), self.column("base_correct"), strict=True)
        return np.array([here is right and base is base_right for here, base in pairs], bool)


def policy_file(path: str | Path) -> Path:
    """The table at `path`: the file itself, or `policy.parquet` of a folder. `ValueError` where there is none."""
    path = Path(path)
    inside = path / "policy.parquet" if path.is_dir() else path
    if inside.is_file():
        return inside
    if (path / "parts").is_dir():
        raise ValueError(f"{path} holds an unfinished collection: repeat its `elastic policy` command to finish it")
    raise ValueError(f"no policy table at {path}: write one with `elastic policy CHECKPOINT --data DIR`")


def read_policy(path: str | Path) -> PolicyTable:
    """Read and check a policy table; `path` may be the folder that `elastic policy` wrote.

    Raises `ValueError`, naming the file, where it is missing, truncated, no policy table, of another version, lacks a
    column or has it twice or in another type, repeats an id, or holds scores that are missing or not finite.
    """
    path = policy_file(path)
    file = _open(path)
    info = read_info(path)
    found = file.schema_arrow
    with naming(path):
        expected = schema_of(info, base="base_prediction" in found.names)
        for column in expected:
            if column.name not in found.names:
                raise ValueError(f"column {column.name!r} is missing")
            if found.names.count(column.name) > 1:
                raise ValueError(f"there are several columns {column.name!r}: keep one of them")
            if found.field(column.name).type != column.type:
                raise ValueError(f"column {column.name!r} is {found.field(column.name).type}, should be {column.type}")
        table = PolicyTable(info, _read_rows(file, expected.names))
        ids = table.rows["id"]
        if ids.null_count or len(np.unique(ids.to_numpy())) != len(table):
            raise ValueError("ids are missing or repeated")
        if table.rows["path"].null_count:
            raise ValueError("paths are missing")
        if info.features and (table.rows["features"].null_count or not np.isfinite(table.features).all()):
            raise ValueError("features are missing or not finite")
        bad = np.flatnonzero(~np.isfinite(table.scores).all(axis=1))
        if len(bad):
            raise ValueError(f"scores of {len(bad)} rows are missing or not finite, first at row {bad[0]}")
    return table


def read_info(path: str | Path) -> PolicyInfo:
    """The description of a table or part, without reading rows. `ValueError` names the file and what is wrong."""
    metadata = _open(path).schema_arrow.metadata or {}
    with naming(path):
        if METADATA_KEY not in metadata:
            raise ValueError("a Parquet file, but not a policy table: `elastic policy` writes those")
        return PolicyInfo.from_json(metadata[METADATA_KEY])


def _open(path: str | Path) -> Any:
    pq, pa = require("pyarrow.parquet", "figures"), require("pyarrow", "figures")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file ({error}); it may be truncated") from error


def _read_rows(file: Any, names: list[str]) -> Any:
    pa = require("pyarrow", "figures")
    try:
        return file.read(columns=names)
    except (pa.ArrowException, OSError) as error:  # a page that cannot be decompressed is an OSError
        raise ValueError(f"its rows cannot be read ({error}): it is damaged, collect it anew") from error
