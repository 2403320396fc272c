"""Finished blocks of a refit in a file, so that a conversion that was stopped goes on where it was."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from elastic_cnn.files import atomic_write


class Keep:
    """The file of one refit. Its name is a digest of all that the outcome depends on, so that what another network,
    other photos or other options left there is never taken up."""

    def __init__(self, folder: str | Path, trained: nn.Module, images: Sequence[Tensor], what: str) -> None:
        digest = hashlib.sha256(what.encode())
        for tensor in [*trained.state_dict().values(), *images]:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.path = Path(folder) / f"{digest.hexdigest()[:24]}.safetensors"

    def load(self, elastic: nn.Module) -> dict[str, dict[str, Any]]:
        """Bring `elastic` to where it was; {name of a finished block: what was noted of it}. Empty where nothing is
        kept. `ValueError` where the file cannot be read."""
        if not self.path.is_file():
            return {}
        try:
            with safe_open(self.path, "pt") as file:
                notes = json.loads((file.metadata() or {})["blocks"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            elastic.load_state_dict(state)
        except (OSError, KeyError, ValueError, RuntimeError, SafetensorError, RecursionError) as error:
            raise ValueError(f"{self.path} cannot be read ({error}): remove it to begin anew") from error
        return dict(notes)

    def save(self, elastic: nn.Module, notes: dict[str, dict[str, Any]]) -> None:
        """Replace the file by the state of `elastic`, with the notes of the blocks finished so far."""
        state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in elastic.state_dict().items()}
        with atomic_write(self.path) as temporary:
            save_file(state, temporary, {"blocks": json.dumps(notes)})

    def remove(self) -> None:
        """The conversion is done: the file is not needed any more."""
        self.path.unlink(missing_ok=True)
