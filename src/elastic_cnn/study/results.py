"""The results of studies as files: a small JSON a run, and one Parquet of all of them."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elastic_cnn.extras import require
from elastic_cnn.files import atomic_write, write_text
from elastic_cnn.study.grid import SOURCES, Run
from elastic_cnn.tasks import strict
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.training_form import excluded
from elastic_cnn.text import distinct_keys

VERSION = 1  # of what is measured and how: runs of another version count as out of date
PARQUET = "results.parquet"
COLUMNS = (
    "study", "cell", "network", "recipe", "data", "seed", "metric", "value", "parameters", "macs", "views",
    "train_seconds", "processor_seconds", "hardware", "commit", "key",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One finished run. key: a hash of its configuration; values: all metrics, fractions; curve: (step, loss).

    macs: multiply-adds of one image at the training size. train_seconds: elapsed; processor_seconds: of all threads,
    which counts neither waiting nor being paused (on a GPU it says little); None of a run that was taken up again.
    """

    study: str
    cell: str
    network: str
    recipe: str
    data: str
    seed: int
    key: str
    config: dict[str, Any]
    values: dict[str, float]
    parameters: int
    macs: int
    views: int
    steps: int
    train_seconds: float | None
    processor_seconds: float | None
    hardware: str
    versions: str
    commit: str
    command: str
    curve: tuple[tuple[int, float], ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """A row a metric, with the columns of the Parquet; `train_loss_end` is the curve's mean in its last quarter."""
        values = dict(self.values)
        if last := [loss for step, loss in self.curve if step > 0.75 * self.steps]:
            values["train_loss_end"] = sum(last) / len(last)
        return [
            {"metric": name, "value": value, **{c: getattr(self, c) for c in COLUMNS if c not in ("metric", "value")}}
            for name, value in values.items()
        ]


def config_of(run: Run, views: int | None) -> dict[str, Any]:
    """All that decides on the outcome of a run, as JSON values. views: with those of an equal time worked out."""
    made = run.make_recipe()
    recipe = made.to_dict()
    # What changes nothing is left out: older records lack it.
    if excluded(made):  # the plain form
        del recipe["fused"]
    if made.teacher is None:
        del recipe["teacher"]
    if made.teacher is None and run.entry.teacher_from is None:
        del recipe["distill"]
    plain = Recipe().to_dict()
    for name in ("convert", "freeze", "patience"):
        if recipe[name] == plain[name]:
            del recipe[name]
    sources = {key: getattr(run.entry, key) for key in SOURCES}
    given = {key: name for key, name in sources.items() if name is not None or key == "weights_from"}
    return {
        "version": VERSION,
        "recipe": recipe,
        "data": json.loads(json.dumps(asdict(run.material))),
        "views": views,
        **given,
    }


def key_of(config: dict[str, Any]) -> str:
    """A short hash of a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def record_path(results: str | Path, run: Run) -> Path:
    """Where the run's record lies: RESULTS/STUDY/RUN.json."""
    return Path(results) / run.study.name / f"{run.name}.json"


def write_record(path: Path, record: Record) -> None:
    """Atomically; one line a section, numbers at seven digits."""
    fields = _rounded(asdict(record))
    lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def read_record(path: str | Path) -> Record:
    """`ValueError` where the file is no record of a run, or one of another run than its name says."""
    path = Path(path)
    try:
        record = strict.build(Record, read_object(path), strict.Source("the record"))
        if not record.values:
            raise ValueError("it holds no values")
        if (record.study, f"{record.cell}-seed{record.seed}") != (path.parent.name, path.stem):
            raise ValueError(f"it is of {record.study}/{record.cell}-seed{record.seed}")
    except (ValueError, IsADirectoryError) as error:
        raise ValueError(
            f"{path} is not the record of a run ({error}): remove it, and the study runs it again"
        ) from error
    return record


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. `ValueError` says what is wrong, without the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=distinct_keys)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, not an object")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_timing(path: Path) -> dict[str, Any]:
    """Step times as `measure_step_times` writes them. `ValueError` where the file holds something else."""
    try:
        found = read_object(path)
        ratio = found.get("ratio")
        if not _is_number(ratio) or not 0 < ratio < float("inf") or not isinstance(found.get("hardware"), str):  # type: ignore[operator]
            raise ValueError(f"ratio {ratio!r}")
    except ValueError as error:
        raise ValueError(f"{path} does not hold step times ({error}): remove it, and they are measured anew") from error
    return found


def record_files(results: str | Path) -> list[Path]:
    """The records below a folder of results, in order of their names."""
    return sorted(Path(results).glob("*/*-seed*.json"))


def read_records(results: str | Path) -> list[Record]:
    """All runs below a folder of results, in order of their names. `ValueError` where there is none."""
    records = [read_record(path) for path in record_files(results)]
    if not records:
        raise ValueError(f"{results} holds no results: run `elastic study STUDY.yaml` first, or give --results")
    return records


def find_twin(results: str | Path, key: str) -> Record | None:
    """The record of a run of any study with this very configuration, None where there is none."""
    for path in record_files(results):
        if path.is_file() and key.encode() in path.read_bytes() and (record := read_record(path)).key == key:
            return record
    return None


def collect(results: str | Path) -> Path:
    """Write RESULTS/results.parquet anew from all records: a row for each run and metric. Returns its path."""
    arrow, parquet = require("pyarrow", "figures"), require("pyarrow.parquet", "figures")
    rows = [row for record in read_records(results) for row in record.rows()]
    table = arrow.table({name: [row[name] for row in rows] for name in COLUMNS})
    path = check_table(results)
    with atomic_write(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")
    return path


def check_table(results: str | Path) -> Path:
    """RESULTS/results.parquet. `ValueError` where something else has that name, which must not be lost."""
    path = Path(results) / PARQUET
    if path.exists():
        try:
            read_table(path)
        except ValueError as error:
            raise ValueError(f"{error}; the table of all records goes there: move it away, or remove it") from error
    return path


def read_table(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a Parquet as `collect` writes it. `ValueError` where it is none, or columns are missing."""
    arrow, parquet = require("pyarrow", "figures"), require("pyarrow.parquet", "figures")
    try:
        table = parquet.ParquetFile(path).read()
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no readable Parquet file ({' '.join(str(error).split())[:120]})") from error
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}: it is no table of studies")
    return table.to_pylist()
