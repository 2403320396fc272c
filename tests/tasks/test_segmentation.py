"""The segmentation task on tiny folders of masks: loss, results, groups, frozen norms, saving memory, runs, testing."""

import copy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from tiny_fpn import TINY_FPN
from torch import nn

from elastic_cnn import elasticize
from elastic_cnn.analysis.segment import segment_photo
from elastic_cnn.data.mask_transforms import IGNORE
from elastic_cnn.data.masks import Labels
from elastic_cnn.tasks.grad_checkpoint import checkpoint_blocks
from elastic_cnn.tasks.mask_labels import card_labels
from elastic_cnn.tasks.recipe import Recipe, load_recipe, recipe_names
from elastic_cnn.tasks.segmentation import Options, Segmentation, build, pixel_loss
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.training import evaluate, train
from elastic_cnn.zoo.checkpoint import load_checkpoint
from elastic_cnn.zoo.factory import create_model

CLASSES = ("ground", "square", "disc")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Bright squares and dark discs on grey, 40 x 48, with a void frame of value 3."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :48]
    for split, count in (("train", 8), ("val", 3), ("test", 2)):
        for name in (split, f"{split}annot"):
            (root / name).mkdir()
        for number in range(count):
            mask = np.zeros((40, 48), np.uint8)
            top, left = rng.integers(2, 20, 2)
            mask[top : top + 14, left : left + 14] = 1
            row, column = rng.integers(8, 30, 2)
            mask[(rows - row) ** 2 + (columns - column) ** 2 < 36] = 2
            photo = np.choose(mask, (128, 230, 20)) + rng.integers(-15, 15, mask.shape)
            mask[[0, -1]] = 3
            Image.fromarray(np.stack([photo] * 3, 2).astype(np.uint8)).save(root / split / f"{number}.png")
            Image.fromarray(mask).save(root / f"{split}annot" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe(
        task="segmentation",
        network="smp_fpn",
        network_kwargs=TINY_FPN,
        elastic=True,
        image_size=32,
        epochs=2,
        batch_size=4,
        val_batch_size=2,
        options={"classes": list(CLASSES), "void": 3, "test_size": "own", "sheet": 2},
    )


@pytest.fixture(scope="module")
def run_folder(shapes, recipe, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    train(recipe, shapes, out, Settings(accelerator="cpu", progress=False))
    return out


def test_photos_of_both_splits_are_told(shapes, recipe, tmp_path, capsys):
    for split in ("train", "val"):
        for name in (split, f"{split}annot"):
            (tmp_path / name).symlink_to(shapes / name.replace("val", "train"))
    build(recipe, str(tmp_path), Settings(accelerator="cpu"))
    assert "8 of the 8 photos of val are photos of train too" in capsys.readouterr().err


def test_loss_is_the_mean_over_pixels_that_count():
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    targets = torch.randint(0, 3, (2, 4, 5))
    targets[0, :2] = IGNORE
    log_p = logits.log_softmax(1).permute(0, 2, 3, 1)
    terms = [-log_p[i][targets[i]] for i in np.ndindex(2, 4, 5) if targets[i] != IGNORE]
    # the loss is computed in float32
    assert float(pixel_loss(logits, targets)) == pytest.approx(float(torch.stack(terms).mean()), rel=1e-5)


def test_loss_of_a_batch_without_labels_is_zero_with_finite_gradients():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    with pytest.raises(ValueError, match=r"answers \(1, 3\) .* segmentation needs \(N, classes, H, W\)"):
        pixel_loss(torch.zeros(1, 3), torch.full((1, 4, 4), IGNORE))
    loss = pixel_loss(logits, torch.full((1, 4, 4), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


class Constant(nn.Module):
    """Logits that are the image's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return images * self.scale


def test_results_equal_sklearn_over_all_batches():
    task = Segmentation(Constant(), Labels(CLASSES), Options()).eval()
    images, targets = torch.randn(5, 3, 6, 7), torch.randint(0, 3, (5, 6, 7))
    targets[torch.rand(5, 6, 7) < 0.3] = IGNORE
    for part in (slice(0, 2), slice(2, 5)):
        task.validation_step({"image": images[part], "target": targets[part]}, 0)
    results = task.validation_results()
    keep = targets != IGNORE
    preds = images.argmax(1)[keep]
    expected = jaccard_score(targets[keep], preds, average=None)
    assert [results[f"iou_{name}"] for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-12)
    assert results["miou"] == pytest.approx(expected.mean(), abs=1e-12)
    assert results["loss"] == pytest.approx(float(pixel_loss(images, targets)), rel=1e-5)
    task.validation_step({"image": images[:1], "target": torch.zeros(1, 6, 7, dtype=torch.long)}, 0)
    assert task.validation_results()["miou"] != results["miou"]  # counts start anew


def test_a_class_that_does_not_occur_has_no_score():
    task = Segmentation(Constant(), Labels(CLASSES), Options())
    images = torch.zeros(1, 3, 2, 2)
    images[:, 0] = 1
    task.validation_step({"image": images, "target": torch.zeros(1, 2, 2, dtype=torch.long)}, 0)
    results = task.validation_results()
    assert results["iou_disc"] is None
    assert results["miou"] == 1.0


def test_groups_hold_every_parameter_once_with_the_heads_rate():
    network = create_model("smp_fpn", num_classes=3, **TINY_FPN)
    groups = Segmentation(network, Labels(CLASSES), Options(head_lr=10.0)).parameter_groups()
    assert [(group.name, group.lr_factor) for group in groups] == [("backbone", 1.0), ("head", 10.0)]
    ids = [id(p) for group in groups for _, p in group.parameters]
    assert sorted(ids) == sorted(id(p) for p in network.parameters())
    assert {name.split(".")[0] for name, _ in groups[0].parameters} == {"backbone"}


def test_frozen_norms_keep_statistics_and_weights_of_the_backbone_alone():
    network = create_model("smp_fpn", num_classes=3, **TINY_FPN)
    task = Segmentation(network, Labels(CLASSES), Options(freeze_norms=True)).train()
    before = copy.deepcopy(network.state_dict())
    batch = {"image": torch.randn(2, 3, 32, 32), "target": torch.randint(0, 3, (2, 32, 32))}
    task.training_step(batch, 0).backward()
    frozen = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert frozen
    for module in frozen:
        assert not module.training
        assert module.weight.grad is None
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone"))
    with pytest.raises(ValueError, match="no backbone"):
        Segmentation(Constant(), Labels(CLASSES), Options(freeze_norms=True))


@pytest.mark.parametrize("elastic", [False, True])
def test_checkpointed_blocks_learn_the_same(elastic):
    plain = create_model("smp_fpn", num_classes=3, **TINY_FPN)
    if elastic:
        elasticize(plain, inplace=True)
    saving = copy.deepcopy(plain)
    names = checkpoint_blocks(saving.backbone)
    assert [name.split(".")[1] for name in names] == ["layer1", "layer2"]
    assert list(saving.state_dict()) == list(plain.state_dict())
    images, targets = torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32))
    saving = copy.deepcopy(saving)  # a copy (as averaged weights are) runs its own blocks
    for network in (plain, saving):
        torch.manual_seed(1)  # dropout
        pixel_loss(network.train()(images), targets).backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0, msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_norms_are_shared_over_several_gpus_alone(shapes, recipe, monkeypatch):
    shared = replace(recipe, options={**recipe.options, "sync_norms": True})

    def norms(settings):
        job = build(shared, str(shapes), settings)
        kinds = {type(m) for m in job.task.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
        return kinds, list(job.task.network.state_dict())

    plain, names = norms(Settings())
    assert nn.SyncBatchNorm not in plain
    with pytest.raises(ValueError, match="sync_norms needs GPUs"):
        norms(Settings(accelerator="cpu", devices=2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert norms(Settings(accelerator="gpu", devices=2)) == ({nn.SyncBatchNorm}, names)


def test_options_that_make_no_sense_are_refused():
    for options in ({"scale": (2.0, 1.0)}, {"head_lr": -1.0}, {"dataset": "voc", "classes": ("a", "b")}):
        with pytest.raises(ValueError, match="options"):
            Options(**options)


def test_shipped_recipes_are_valid():
    names = [name for name in recipe_names() if name.startswith(("voc_", "camvid_"))]
    assert len(names) >= 3
    for name in names:
        recipe = load_recipe(name)
        assert recipe.task == "segmentation"
        assert recipe.schedule.name == "poly"


def test_the_papers_recipe_says_what_the_paper_says():
    for name, decay in (("voc_deeplabv3", 5e-4), ("voc_dla", 1e-4)):
        recipe = load_recipe(name)
        assert (recipe.epochs, recipe.batch_size, recipe.image_size) == (50, 16, 513)
        assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.schedule.power) == (0.007, decay, 0.9)
        assert (recipe.options["train_split"], recipe.options["scale"]) == ("train_aug", [0.5, 2.0])


def test_crops_of_513_and_odd_sizes_go_through_training_and_testing(shapes, recipe):
    job = build(replace(recipe, image_size=513), str(shapes), Settings())
    sample = job.train[0]
    assert sample["image"].shape == (3, 513, 513)
    assert sample["target"].shape == (513, 513)
    for height, width in ((513, 513), (33, 47)):
        with torch.no_grad():
            assert job.task.eval()(torch.zeros(1, 3, height, width)).shape == (1, 3, height, width)


def test_a_run_learns_and_writes_its_contact_sheet(run_folder):
    _, card = load_checkpoint(run_folder)
    assert card.classes == CLASSES
    assert card.elastic is not None
    assert card_labels(card)[0] == Labels(CLASSES, void=3)
    assert card.info["results"]["miou"] > 0
    sheets = sorted((run_folder / "pictures").glob("masks_*.png"))
    assert len(sheets) == 2
    # 2 rows of photo, truth, prediction, overlay (48 wide, gaps of 4) above the legend
    with Image.open(sheets[0]) as sheet:
        assert sheet.width == 4 * 48 + 3 * 4
        assert sheet.height > 2 * 40


def test_eval_gives_the_runs_own_results(run_folder, shapes):
    options = TestOptions(batch_size=1)
    results = evaluate(run_folder, shapes, "val", options, Settings(accelerator="cpu", progress=False))
    _, card = load_checkpoint(run_folder)
    # one photo at a time or two: sums in another order, so a pixel in 5,472 might change its class
    assert results["miou"] == pytest.approx(card.info["results"]["miou"], abs=2e-3)
    assert results["images"] == 3
    test = evaluate(run_folder, shapes, "test", options, Settings(accelerator="cpu", progress=False))
    assert test["images"] == 2


def test_eval_refuses_other_classes(run_folder, shapes, tmp_path):
    (tmp_path / "labels.json").write_text('{"classes": ["ground", "sky"]}')
    with pytest.raises(ValueError, match="has the classes ground, sky, the checkpoint of smp_fpn ground, square, disc"):
        evaluate(run_folder, tmp_path, "val", settings=Settings(accelerator="cpu", progress=False))


def test_black_and_white_masks_in_another_layout(shapes, recipe, tmp_path, capsys):
    """0 and 255 in images/ and masks/: without `values` a class is never learnt, which is said; with them all is."""
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (tmp_path / folder / split).mkdir(parents=True)
        for photo in (shapes / split).iterdir():
            shutil.copy(photo, tmp_path / "images" / split / photo.name)
            with Image.open(shapes / f"{split}annot" / photo.name) as mask:
                white = np.asarray(mask) % 3 > 0
            Image.fromarray(white * np.uint8(255)).save(tmp_path / "masks" / split / f"{photo.stem}_mask.png")
    path = tmp_path / "recipe.yaml"
    plain = {"classes": ["ground", "thing"], "mask_suffix": "_mask", "test_size": "own"}
    path.write_text(replace(recipe, epochs=1, options=plain).to_yaml())
    build(load_recipe(path), str(tmp_path), Settings())
    assert "is of the class 'thing'; 255 is void here" in capsys.readouterr().err
    told = load_recipe(path, ["options.values={0: ground, 255: thing}"])
    run = tmp_path / "run"
    train(told, tmp_path, run, Settings(accelerator="cpu", progress=False))
    assert capsys.readouterr().err == ""
    labels, known = card_labels(load_checkpoint(run)[1])
    assert labels == Labels(("ground", "thing"), values={0: "ground", 255: "thing"})
    assert known["mask_suffix"] == "_mask"
    results = evaluate(run, tmp_path, options=TestOptions(batch_size=1), settings=Settings("cpu", progress=False))
    assert results["iou_thing"] is not None


def test_values_belong_to_classes():
    with pytest.raises(ValueError, match=r"options\.values belong to options\.classes"):
        Options(values={0: "a"})


def test_a_fresh_process_gives_identical_masks(run_folder, shapes, tmp_path):
    photo = shapes / "test" / "0.png"
    network, card = load_checkpoint(run_folder)
    here = segment_photo(network, Image.open(photo), card.input)
    code = (
        "import sys, torch; from PIL import Image; import numpy as np; torch.set_num_threads(int(sys.argv[4]))\n"
        "from elastic_cnn.zoo.checkpoint import load_checkpoint\n"
        "from elastic_cnn.analysis.segment import segment_photo\n"
        "network, card = load_checkpoint(sys.argv[1])\n"
        "np.save(sys.argv[3], segment_photo(network, Image.open(sys.argv[2]), card.input))\n"
    )
    out = tmp_path / "mask.npy"
    threads = str(torch.get_num_threads())
    subprocess.run([sys.executable, "-c", code, run_folder, photo, out, threads], check=True, timeout=120)
    assert np.array_equal(np.load(out), here)
    assert len(np.unique(here)) > 1
