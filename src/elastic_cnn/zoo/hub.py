"""Sharing networks in timm's form for the Hugging Face Hub: a folder of config.json, model.safetensors and README.md.

`timm.create_model("hf-hub:NAME", pretrained=True)` and `"local-dir:FOLDER"` load such a folder once this package is
imported, and `load_checkpoint("FOLDER/model.safetensors")` does without timm's conventions. timm must find a registered
name in `config.json`; networks that `elasticize` made bear the name `elasticized`, which is an entry of its own:

    timm.create_model("elasticized", base="efficientnet_b0")      # any network of timm's, made elastic
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import huggingface_hub
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import FeatureGetterNet
from timm.models._hub import save_config_for_hf
from torch import nn

from elastic_cnn.files import atomic_write, refuse_to_overwrite, refuse_unwritable_folder, write_text
from elastic_cnn.surgery import apply_surgery, elasticize
from elastic_cnn.zoo.checkpoint import NetworkCard, read_card, save_checkpoint
from elastic_cnn.zoo.config import pretrained_config
from elastic_cnn.zoo.factory import SEGMENTATION_NETWORKS, create_model
from elastic_cnn.zoo.model_card import model_card

WEIGHTS = "model.safetensors"  # the name that timm looks for first
README = "README.md"

default_cfgs = generate_default_cfgs({"elasticized": pretrained_config()})


def _build_elasticized(base: str, surgery: dict[str, Any] | None, **kwargs: Any) -> nn.Module:
    network = create_model(base, **kwargs)
    return elasticize(network, verify=False, inplace=True) if surgery is None else apply_surgery(network, surgery)


class CheckpointedFeatures(FeatureGetterNet):
    """timm's `features_only` by `forward_intermediates`, which all its networks have, with gradient checkpointing."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Passed on to the network; its errors where it has none."""
        network: Any = self.model
        network.set_grad_checkpointing(enable)


@register_model
def elasticized(
    pretrained: bool = False, base: str = "resnet50", surgery: dict[str, Any] | None = None, **kwargs: Any
) -> nn.Module:
    """timm's network `base`, made elastic as `surgery` says (from `describe_surgery`) or else by the defaults."""
    arguments = {"feature_cfg": {"feature_cls": CheckpointedFeatures}, **kwargs}
    return build_model_with_cfg(_build_elasticized, "elasticized", pretrained, base=base, surgery=surgery, **arguments)


def save_for_hf(
    network: nn.Module, card: NetworkCard, folder: str | Path, *, license: str = "apache-2.0", overwrite: bool = False
) -> Path:
    """Write `network` to `folder` in the Hub's form, with a model card filled from `card`; returns the folder.

    Networks that timm's registry knows, and those that `elasticize` made of them, load again by timm; segmentation
    networks by `load_checkpoint` alone, and `config.json` says so. Raises `ValueError` where the folder is not empty
    and `overwrite` is not set, and where the files would not load again as this network.
    """
    folder = Path(folder)
    if not overwrite:
        refuse_to_overwrite(folder, "choose another folder, or pass overwrite")
    refuse_unwritable_folder(folder)
    _write(network, card, folder, folder.name, f"local-dir:{folder}", license)
    return folder


def push_to_hf_hub(
    network: nn.Module,
    card: NetworkCard,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Add network",
    license: str = "apache-2.0",
) -> Any:
    """Upload `network` to the Hub's repository `repo_id` ("owner/name"), which is created where it does not exist.

    A README.md that is there already is kept. token: the Hub's; that of `hf auth login` where None. Returns the Hub's
    `CommitInfo`. Raises as `save_for_hf`, and the Hub's errors.
    """
    from elastic_cnn import __version__  # not at the top: that module imports this one

    with tempfile.TemporaryDirectory() as folder:
        api = huggingface_hub.HfApi(token=token, library_name="elastic-cnn", library_version=__version__)
        # written before anything is created: a network that does not load again is not uploaded
        _write(network, card, Path(folder), repo_id.split("/")[-1], f"hf-hub:{repo_id}", license)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id  # with the owner, where left out
        described = api.file_exists(repo_id=repo_id, filename=README, revision=revision)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            ignore_patterns=[README] if described else None,
        )


def _write(network: Any, card: NetworkCard, folder: Path, title: str, source: str, license: str) -> None:
    weights = save_checkpoint(folder / WEIGHTS, network, card)
    card = read_card(weights)  # with the surgery, where there was one
    loadable = card.network not in SEGMENTATION_NETWORKS
    with atomic_write(folder / "config.json") as temporary:
        if loadable:
            model_config, model_args = _describe(network, card)
            save_config_for_hf(network, str(temporary), model_config, model_args)
        else:
            text = json.dumps({"library": "elastic-cnn", "network": card.network, "num_classes": network.num_classes})
            temporary.write_text(text, encoding="utf-8")
    write_text(folder / README, model_card(network, card, title, source if loadable else None, license))


def _describe(network: Any, card: NetworkCard) -> tuple[dict[str, Any], dict[str, Any]]:
    """timm's `model_config` and `model_args`: under which name, and with which arguments, it builds the network."""
    args = {key: value for key, value in card.kwargs.items() if key != "pretrained"}
    spec = card.input
    pretrained = {
        "input_size": (network.in_chans, *spec.size),
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
        "crop_mode": spec.crop_mode,
        "test_input_size": None,  # the base's own advice holds no more
        "test_crop_pct": None,
    }
    config: dict[str, Any] = {"pretrained_cfg": pretrained}
    if card.elastic is not None:
        pretrained["architecture"] = "elasticized"
        args |= {"base": card.network, "surgery": card.elastic}
    if len(card.classes) == network.num_classes:
        config["label_names"] = list(card.classes)
    current = ("num_classes", "in_chans", "global_pool")  # read from the network by timm
    return config, {key: value for key, value in args.items() if key not in current}
