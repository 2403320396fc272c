"""Nested mappings to frozen dataclasses, strictly: unknown keys, wrong types and duplicates are errors that name the
key (and the nearest one that exists), the file and the line."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from elastic_cnn.hints import did_you_mean

T = TypeVar("T")
Path_ = tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """Safe YAML whose numbers are those that people write: 1e-4 is one, as in YAML 1.2, and not text; 1:30, 010 and
    1_000, which YAML 1.1 reads as 90, 8 and 1000, are text, which no number can be given as."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":int", ":float"))]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in (
    ("int", r"[-+]?(0|[1-9]\d*)"),
    ("float", r"[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), list("-+.0123456789"))


LARGEST = 2**53  # of a whole number: no count is larger, and arithmetic in fractions is exact up to there
LARGEST_FRACTION = 1e30  # networks compute with numbers of up to 3e38
MOST = 100_000  # values in a file; a palette of a thousand colours has 4,000
COMMAND_LINE = 0  # the "line" of keys given there


@dataclasses.dataclass(frozen=True)
class Source:
    """Where values come from: a name for messages, and the line of each key (from 1) where there are lines."""

    name: str
    lines: dict[Path_, int] = dataclasses.field(default_factory=dict)

    def at(self, path: Path_) -> str:
        """`file.yaml, line 3`, or `the command line`; both, of a mapping that has keys from there as well."""
        below = [line for key, line in self.lines.items() if path and key[: len(path)] == path]
        line = self.lines.get(path, below[0] if below else None)
        if line == COMMAND_LINE:
            return "the command line"
        place = self.name if line is None else f"{self.name}, line {line}"
        return f"{place}, and the command line" if COMMAND_LINE in below else place


class Refused(ValueError):
    """A value that was read well, and that what it is for refuses: the network, the optimizer. path: its key."""

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.path = path


@contextmanager
def concerning(*path: str) -> Iterator[None]:
    """Inside, a `ValueError` is about the value of this key: it becomes `Refused`."""
    try:
        yield
    except Refused:
        raise
    except ValueError as error:
        raise Refused(str(error), *path) from error


@contextmanager
def told_with_file(source: Source | None) -> Iterator[None]:
    """`Refused` inside becomes a `ValueError` that names the file and the line, where they are known."""
    try:
        yield
    except Refused as error:
        if source is None:
            raise
        raise ValueError(f"{source.at(error.path)}: {error}") from error


def read_yaml(path: Path) -> tuple[dict[str, Any], Source]:
    """The mapping in a YAML file and where its keys stand. `ValueError` for all but a mapping without duplicates."""
    source = Source(str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, source
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{path}: expected `key: value` lines, found a {type(node).__name__}")
        _count(node)
        _note_lines(node, (), source, set())
        return _construct(loader, node), source
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    except (RecursionError, TypeError) as error:
        raise ValueError(f"{path}: nested too deeply, or a key that is not text ({error})") from error


def parse_scalar(text: str) -> Any:
    """The value of `key=VALUE` on a command line, as YAML; text that is no YAML stays text."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node)
        return _construct(loader, node)
    except yaml.YAMLError:
        return text
    except RecursionError as error:
        raise ValueError(f"{text:.40}... is nested too deeply") from error


def _construct(loader: _Loader, node: yaml.Node) -> Any:
    """The node's value. `yaml.YAMLError` also for dates that are none (2020-13-01) and numbers of 5000 digits."""
    try:
        return loader.construct_document(node)
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error


def _count(root: yaml.Node) -> int:
    """The values below a node, those that aliases repeat counted each time. `yaml.YAMLError` for more than `MOST`, as
    a few lines of aliases can stand for, and for an alias within itself."""
    known: dict[int, int] = {}

    def count(node: yaml.Node) -> int:
        if id(node) not in known:
            known[id(node)] = MOST + 1  # met again before it is counted: it holds itself
            parts = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else ()
            inner = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
            known[id(node)] = 1 + sum(count(one) for one in inner)
        if known[id(node)] > MOST:
            raise yaml.YAMLError(f"it stands for more than {MOST} values, or for itself, by its aliases")
        return known[id(node)]

    return count(root)


def _note_lines(node: yaml.Node, path: Path_, source: Source, seen: set[int]) -> None:
    """Note where each key stands; entries of lists have their number, from 0, as key. `ValueError` for duplicates."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            _note_lines(entry, (*path, str(number)), source, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = (*path, str(key.value))
        line = key.start_mark.line + 1
        if name in source.lines:
            raise ValueError(
                f"{source.name}, line {line}: the key {'.'.join(name)!r} was given already in line {source.lines[name]}"
            )
        source.lines[name] = line
        _note_lines(value, name, source, seen)


def build(cls: type[T], values: dict[str, Any], source: Source, path: Path_ = ()) -> T:
    """An instance of the frozen dataclass `cls`; nested ones from nested mappings. `ValueError` as said above."""
    hints = typing.get_type_hints(cls)
    known = {entry.name: entry for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        where = (*path, str(key))
        if key not in known:
            raise ValueError(f"{source.at(where)}: unknown key {'.'.join(where)!r}{_nearest_key(cls, str(key), path)}")
        arguments[key] = _convert(value, hints[key], source, where)
    required = [name for name, entry in known.items() if name not in values and not _has_default(entry)]
    if required:
        raise ValueError(f"{source.at(path)}: missing key {'.'.join((*path, required[0]))!r}")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ValueError(f"{source.at(path)}: {error}") from error


def _has_default(entry: dataclasses.Field) -> bool:
    return entry.default is not dataclasses.MISSING or entry.default_factory is not dataclasses.MISSING


def all_keys(cls: type, path: Path_ = ()) -> list[str]:
    """All keys in dotted form, `optimizer.lr` and the like."""
    keys = []
    for name, hint in typing.get_type_hints(cls).items():
        keys.append(".".join((*path, name)))
        if dataclasses.is_dataclass(hint):
            keys += all_keys(hint, (*path, name))  # type: ignore[arg-type]
    return keys


def _nearest_key(cls: type, key: str, path: Path_) -> str:
    keys = all_keys(cls, path)
    leaves = [name for name in keys if name.split(".")[-1] == key]
    if leaves:
        return f"; did you mean {' or '.join(leaves)}?"
    return did_you_mean(".".join((*path, key)), keys, otherwise_all=True)


def _convert(value: Any, hint: Any, source: Source, path: Path_) -> Any:
    """`value` as `hint` wants it, without guessing: whole numbers may stand for fractions, lists for tuples."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        choices = typing.get_args(hint)
        if value is None and type(None) in choices:
            return None
        choices = tuple(choice for choice in choices if choice is not type(None))
        for choice in choices[:-1]:
            try:
                return _convert(value, choice, source, path)
            except ValueError:
                continue
        return _convert(value, choices[-1], source, path)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return build(hint, value, source, path)
    if origin is typing.Literal and value in typing.get_args(hint) and not isinstance(value, bool):
        return value
    if origin is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_convert(entry, inner[0], source, path) for entry in value)
        if len(inner) == len(value):
            return tuple(_convert(entry, kind, source, path) for entry, kind in zip(value, inner, strict=True))
    if origin is dict and isinstance(value, dict):
        kinds = typing.get_args(hint)
        return {
            _convert(key, kinds[0], source, path): _convert(entry, kinds[1], source, (*path, str(key)))
            for key, entry in value.items()
        }
    if isinstance(value, int) and abs(value) > LARGEST and hint in (int, float):
        raise ValueError(f"{source.at(path)}: {'.'.join(path)} must be a number of at most {LARGEST}")
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if abs(value) > LARGEST_FRACTION:
            raise ValueError(f"{source.at(path)}: {'.'.join(path)} must be a number of at most {LARGEST_FRACTION:g}")
        return float(value)
    if hint in (int, bool, str) and type(value) is hint:
        return value
    quotes = ": YAML reads it so; put the word in quotes" if hint is str and not isinstance(value, dict | list) else ""
    raise ValueError(f"{source.at(path)}: {'.'.join(path)} must be {_describe(hint)}, not {value!r:.200}{quotes}")


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if origin is tuple:
        inner = typing.get_args(hint)
        return f"a list of {_describe(inner[0])}" if Ellipsis in inner else f"a list of {len(inner)} values"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a mapping of keys to values"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint, str(hint))
