"""Fixtures that all tests share."""

import gc
import os
import shutil
from pathlib import Path

import hypothesis
import pytest
import torch

TESTS = Path(__file__).resolve().parent
SHARED = TESTS.parents[1] / "shared"
# What trains or builds many networks, exports or compiles, starts processes or a browser; not in `make test-quick`.
SLOW = (
    "analysis/test_complexity.py::test_paper_figures", "analysis/test_coverage", "analysis/test_stress",
    "analysis/test_tiles", "analysis/test_time_model", "cli/test_bad", "cli/test_benchmark", "cli/test_coco_commands",
    "cli/test_conversion_command", "cli/test_convert", "cli/test_demo", "cli/test_elasticize_command", "cli/test_eval",
    "cli/test_explore", "cli/test_export", "cli/test_finetune", "cli/test_functions",
    "cli/test_main.py::test_module_and_version", "cli/test_main.py::test_table_1_and_figure_4", "cli/test_people",
    "cli/test_policy", "cli/test_predict", "cli/test_segment", "cli/test_stress", "cli/test_train", "conversion/",
    "data/test_remote", "demo/test_report_page", "demo/test_run", "export/", "fast/test_bfloat16", "fast/test_native",
    "fast/test_optimize_networks", "fast/test_training_form", "faults/", "first_hour/", "fuzz/", "kernels/",
    "metrics/test_iou.py::test_two_processes", "metrics/test_multilabel.py::test_two_processes",
    "policy/explorer/test_explorer_facets", "policy/explorer/test_explorer_hostile",
    "policy/explorer/test_explorer_limits", "policy/explorer/test_explorer_masks", "policy/explorer/test_explorer_page",
    "policy/explorer/test_explorer_serve", "policy/test_collect", "policy/test_figures",
    "policy/test_scores.py::test_equals_a_slow_computation", "serve/",
    "study/test_study_grid.py::test_shipped_studies_parse", "study/test_study_runner",
    "surgery/test_any_network.py::test_division", "surgery/test_any_network.py::test_gradients",
    "surgery/test_chain.py::test_random_chains", "surgery/test_elasticize.py::test_any_size_and_share",
    "surgery/test_elasticize.py::test_division_keeps_every_number", "surgery/test_foreign", "tasks/test_blend",
    "tasks/test_broken", "tasks/test_distill", "tasks/test_finetune", "tasks/test_fused",
    "tasks/test_geometry_learning", "tasks/test_launched", "tasks/test_multilabel_task", "tasks/test_own_task",
    "tasks/test_resume", "tasks/test_segmentation", "tasks/test_training", "test_docs.py::test_python_examples",
    "test_layers.py::test_the_core_needs_no_extra", "test_package", "zoo/test_any_backbone", "zoo/test_citizenship",
    "zoo/test_densenet", "zoo/test_detectors", "zoo/test_distributed", "zoo/test_dla", "zoo/test_encoders",
    "zoo/test_fast_networks", "zoo/test_graphs", "zoo/test_hub", "zoo/test_released", "zoo/test_rivals",
    "zoo/test_segmentation_networks",
)  # fmt: skip

# Continuous integration draws the same cases each time; at a desk they are new ones each time.
hypothesis.settings.register_profile("repeatable", derandomize=True)
if "CI" in os.environ:
    hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real images beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.name} beside the checkout: it holds the reference numbers and real images")
    return SHARED


@pytest.fixture(autouse=True, scope="module")
def _settled() -> None:
    """What outlives a module (torch, timm, compiled graphs) is not walked again at every collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright drives the browser")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium found: install it (Debian: apt-get install chromium) to test the page itself")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the mark `slow` to what `SLOW` names; single tests elsewhere carry it themselves."""
    for item in items:
        place = f"{item.path.relative_to(TESTS).as_posix()}::{item.name}"
        if place.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
