"""Places that hold a network with its weights: `hf-hub:OWNER/NAME` and `local-dir:FOLDER`, as timm names them."""

from dataclasses import dataclass, field
from typing import Any

from timm.models import load_model_config_from_hf, parse_model_name
from timm.models._hub import load_model_config_from_path

from elastic_cnn.zoo.card_rules import PLACES


@dataclass(frozen=True)
class Place:
    """An architecture by name, its arguments, and what timm says of the weights; None for those that go by the name."""

    network: str
    arguments: dict[str, Any] = field(default_factory=dict)
    config: Any = None


def is_place(name: str | None) -> bool:
    """Whether a network's name is that of a place which holds its weights."""
    return name is not None and name.startswith(PLACES)


def find_place(name: str) -> Place:
    """What lies at a place. `ValueError` says what to do where it cannot be had from here."""
    try:
        source, place = parse_model_name(name)
        read = load_model_config_from_hf if source == "hf-hub" else load_model_config_from_path
        config, network, arguments = read(place)
    except (OSError, KeyError, ValueError, AssertionError) as error:
        raise cannot_be_had(f"the network {name}", error, "give weights=FILE") from error
    return Place(str(network), dict(arguments or {}), config)


def cannot_be_had(what: str, error: Exception, remedy: str) -> ValueError:
    """The sentence for weights that are elsewhere. remedy: how a file of weights is given."""
    reason = [*str(error).splitlines(), type(error).__name__][0]
    return ValueError(f"{what} cannot be had from here ({reason:.200}): download the file where you can, and {remedy}")
