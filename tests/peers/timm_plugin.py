"""A pytest plugin that points timm's own test suite at the networks of this package; `run_timm_tests.py` loads it.

timm's files stay as they are. Its tests choose their networks in three ways, and each is redirected here:

- by `timm.list_models(...)` in a parametrization: the function lists our networks only;
- by names written into a parametrization: for the tests of `NAMED`, our networks take their place;
- by a name written into the test's body: for the tests of `IN_BODY`, `timm.create_model` builds `STAND_IN` for it.

All other tests are about timm's own networks or about no network at all; they are deselected.
"""

import fnmatch
import os
from collections.abc import Callable
from typing import Any

import pytest
import timm
import timm.models

import elastic_cnn  # noqa: F401  (registers our networks)

CHOSEN = os.environ.get("ELASTIC_NETWORKS", "*").split(",")
OURS = [
    name
    for name in timm.list_models()
    if timm.models.model_entrypoint(name).__module__.startswith("elastic_cnn.")
    and any(fnmatch.fnmatch(name, pattern) for pattern in CHOSEN)
]
RESNETS = [name for name in OURS if timm.models.is_model_in_modules(name, "elastic_resnext")]
SCRIPTABLE = [name for name in OURS if not name.startswith("densenet")]  # timm excludes its DenseNets from TorchScript
STAND_IN = "resnext_small_elastic"
SMALL = [name for name in OURS if name in ("resnext50_elastic", "densenet201_elastic", "dla60x_elastic", STAND_IN)]


def _one(names: list[str]) -> list[Any]:
    return names


def _with(*rest: Any) -> Callable[[list[str]], list[Any]]:
    return lambda names: [(name, *rest) for name in names]


# Tests that write timm's networks into a parametrization: ours to take instead, and the values a network stands for.
NAMED: dict[str, tuple[list[str], Callable[[list[str]], list[Any]]]] = {
    "test_reset_classifier_keeps_pool": (OURS, _one),
    "test_features_only_grad_checkpointing_backward": (OURS, _one),
    "test_prune_intermediate_layers_params_used": (OURS, _one),
    "test_prune_intermediate_layers_last_feature": (OURS, _with(True)),
    "test_model_features_output_stride": (RESNETS, _one),
    "test_head_hidden_size": (OURS, _with({})),
    "test_features_only_feature_cls_class": (OURS, _one),
    "test_forward_after_prune_intermediate_layers": (OURS, _one),
    "test_prune_to_stem_feature": (OURS, _one),
    "test_model_forward_torchscript_with_features_fx": (SCRIPTABLE, _one),
    "test_pruned_feature_info_matches_forward": (OURS, _one),
    "test_export_tracks_reset_pool_in_head": (SMALL, _with(3, "max")),
    "test_export_tracks_reset_classifier_structure": (SMALL, _with({}, "max", None)),
}

# Tests that build one of these names in their body.
REPLACED = ("resnet18", "test_resnet")
IN_BODY = (
    "test_resnet_pruned_grad_checkpointing",
    "test_feature_wrapper_retains_input_contract",
    "test_conv_model_image_size_is_preprocessing_only",
    "test_script_resolution_defaults_to_multispectral_source",
    "test_export_data_config_test_size_roundtrip",
    "test_export_tracks_reset_pool_and_omits_in_memory_weight_source",
    "test_export_does_not_inherit_training_regularization",
    "test_create_model_transfers_multispectral_checkpoint",
)

_list_models = timm.list_models
_create_model = timm.create_model


def list_our_models(
    filter: Any = "",
    module: Any = "",
    pretrained: bool = False,
    exclude_filters: Any = "",
    name_matches_cfg: bool = False,
    include_tags: bool | None = None,
) -> list[str]:
    """`timm.list_models`, ours only. The module filter goes: timm's tests list timm's modules by it."""
    names = _list_models(filter, "", pretrained, exclude_filters, name_matches_cfg, include_tags)
    return [name for name in names if name.split(".")[0] in OURS]


def create_stand_in(model_name: str, *args: Any, **kwargs: Any) -> Any:
    """`timm.create_model`, with our network in place of those of `REPLACED`."""
    return _create_model(STAND_IN if model_name in REPLACED else model_name, *args, **kwargs)


for _module in (timm, timm.models):  # before the tests import them
    _module.list_models = list_our_models


def pytest_configure(config: pytest.Config) -> None:
    """timm's limits in seconds are for its own machines; `run_timm_tests.py` switches them off."""
    config.addinivalue_line("markers", "timeout: not applied here")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Put our networks in place of those written into a parametrization."""
    markers = metafunc.definition.own_markers
    for index, marker in enumerate(markers):
        if marker.name != "parametrize" or not marker.args[0].startswith(("model_name", "name")):
            continue
        if metafunc.function.__name__ in NAMED:
            names, values = NAMED[metafunc.function.__name__]
            markers[index] = pytest.mark.parametrize(marker.args[0], values(names)).mark


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that run on our networks. A list that came out empty stays, as a skipped test."""
    kept, left = [], []
    for item in items:
        values = item.callspec.params if hasattr(item, "callspec") else {}
        name = str(values.get("model_name", "")).split(".")[0]
        ours = name in OURS or (item.originalname in IN_BODY and not values.get("vit"))
        (kept if ours else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.fixture(autouse=True)
def _stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.originalname in IN_BODY:
        monkeypatch.setattr(timm, "create_model", create_stand_in)
        if hasattr(request.module, "create_model"):
            monkeypatch.setattr(request.module, "create_model", create_stand_in)
