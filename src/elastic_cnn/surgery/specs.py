"""How a network is divided: one spec for all its stages or one for each, read and written in one place."""

from collections.abc import Collection, Mapping
from typing import Any

from elastic_cnn.nn import ElasticSpec

Spec = ElasticSpec | Mapping[int, ElasticSpec] | Mapping[str, ElasticSpec]


def read_spec(value: Any, names: Collection[str] = ()) -> Spec:
    """A spec from what users, recipes and network cards write: None (the default), an `ElasticSpec`, a dict of its
    fields, or a dict to either of these from the numbers of stages, also as text, or from names of blocks.

    names: those of the network's modules, which may be numbers too ("0" in an `nn.Sequential`).
    `ValueError` for anything else, naming it.
    """
    if value is None:
        return ElasticSpec()
    if isinstance(value, ElasticSpec):
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"a spec is an ElasticSpec, a dict of its fields or one of specs by stage, got {value!r:.80}")
    if not all(isinstance(entry, (ElasticSpec, Mapping)) for entry in value.values()):
        return _from_fields(value)
    if wrong := [key for key in value if isinstance(key, bool) or not isinstance(key, (int, str))]:
        raise ValueError(f"specs are given by numbers of stages or names of blocks, not by {wrong[0]!r}")
    specs: dict[Any, ElasticSpec] = {
        int(key) if str(key).isdigit() and key not in names else key: _of_one(key, entry)
        for key, entry in value.items()
    }
    if len({type(key) for key in specs}) > 1:
        raise ValueError(f"specs are given by numbers of stages or by names of blocks, not by both: {list(value)}")
    return specs


def _of_one(key: Any, entry: Any) -> ElasticSpec:
    found = read_spec(entry)
    if not isinstance(found, ElasticSpec):
        raise ValueError(f"the spec of {key!r} holds specs again")
    return found


def _from_fields(fields: Mapping[Any, Any]) -> ElasticSpec:
    try:
        return ElasticSpec.from_dict({str(name): value for name, value in fields.items()})
    except TypeError as error:
        raise ValueError(f"not an elastic spec: {dict(fields)!r:.80} ({error})") from error


def spec_of(spec: Spec, name: str, stage: int | None) -> ElasticSpec:
    """The spec for one block. `ValueError` where a mapping names none for it."""
    if isinstance(spec, ElasticSpec):
        return spec
    known: Mapping[Any, ElasticSpec] = spec
    for key in (name, stage):
        if key in known:
            return known[key]
    raise ValueError(f"no spec for {name} (stage {stage}); there are specs for {list(known)}")


def named_blocks(spec: Spec) -> set[str]:
    """The blocks that a spec names one by one."""
    return {key for key in spec if isinstance(key, str)} if isinstance(spec, Mapping) else set()


def spec_stages(spec: Spec) -> set[int]:
    """The stages that a spec names."""
    return {key for key in spec if isinstance(key, int)} if isinstance(spec, Mapping) else set()


def describe_spec(spec: Spec) -> dict[str, Any]:
    """In JSON values; `read_spec` reads them."""
    if isinstance(spec, ElasticSpec):
        return spec.to_dict()
    return {str(key): entry.to_dict() for key, entry in spec.items()}
