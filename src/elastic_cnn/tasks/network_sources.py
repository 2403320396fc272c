"""Sources of a network with its weights: `hf-hub:OWNER/NAME` and `local-dir:FOLDER`, as timm names them."""

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants
from timm.models import load_model_config_from_hf, parse_model_name
from timm.models._hub import load_model_config_from_path

from elastic_cnn.zoo.card_rules import PLACES

DOWNLOAD = "download the file where you can, and"
WAIT = 3.0  # seconds, for the Hub's first sign of life


@dataclass(frozen=True)
class NetworkSource:
    """An architecture by name, its arguments, and what timm says of the weights; None for those that go by the name."""

    network: str
    arguments: dict[str, Any] = field(default_factory=dict)
    config: Any = None


def is_source(name: str | None) -> bool:
    """Whether a network's name is that of a source which holds its weights."""
    return name is not None and name.startswith(PLACES)


def find_source(name: str) -> NetworkSource:
    """What lies there. `ValueError` says what to do where it cannot be had from here."""
    try:
        kind, path = parse_model_name(name)
        read = load_model_config_from_hf if kind == "hf-hub" else load_model_config_from_path
        with hub_that_answers() if kind == "hf-hub" else nullcontext():
            config, network, arguments = read(path)
    except (OSError, KeyError, ValueError, AssertionError) as error:
        raise cannot_be_had(f"the network {name}", error, f"{DOWNLOAD} give weights=FILE") from error
    return NetworkSource(str(network), dict(arguments or {}), config)


@contextmanager
def hub_that_answers() -> Iterator[None]:
    """Within it the Hub is left alone where it does not answer within `WAIT` seconds.

    What was downloaded before is taken then, and what was not raises `ConnectionError` at once: the Hub's own library
    tries for up to a minute.
    """
    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except OSError as error:
        raise ConnectionError(f"{urlsplit(constants.ENDPOINT).hostname} does not answer") from error
    finally:
        constants.HF_HUB_OFFLINE = False


def _answers(address: str) -> bool:
    """Whether a connection to an address, or to the proxy that leads there, is there within `WAIT` seconds."""
    target = urlsplit(address)
    if not urllib.request.proxy_bypass(target.hostname or ""):
        proxies = urllib.request.getproxies()
        target = urlsplit(proxies.get(target.scheme) or proxies.get("all") or address)
    port = target.port or {"http": 80, "https": 443}.get(target.scheme, 1080)
    there = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((target.hostname or "", port), WAIT).close()
        except OSError:
            return
        there.set()

    looking = threading.Thread(target=connect, daemon=True)  # a name may take longer to be looked up
    looking.start()
    looking.join(WAIT)
    return there.is_set()


def cannot_be_had(what: str, error: Exception, remedy: str) -> ValueError:
    """The sentence for weights that are elsewhere. remedy: what to do."""
    reason = [*str(error).splitlines(), type(error).__name__][0]
    return ValueError(f"{what} cannot be had from here ({reason:.200}): {remedy}")
