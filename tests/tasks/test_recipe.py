"""Recipes are read strictly; every shipped one is valid and says what it is."""

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_cnn.tasks import strict
from elastic_cnn.tasks.recipe import Optimizer, Recipe, Schedule, load_recipe, recipe_file, recipe_names, task_options


def test_the_paper_recipe_is_the_papers():
    recipe = load_recipe("imagenet_paper")
    assert recipe.optimizer == Optimizer("sgd", 0.1, 0.9, 1e-4, True)
    assert recipe.schedule == Schedule("step", (30, 60, 90), 0.1)
    assert (recipe.epochs, recipe.batch_size, recipe.init, recipe.image_size) == (120, 256, "he_fan_in", 224)
    options = task_options(recipe)
    assert round(recipe.image_size / options.crop_pct) == 256
    assert (options.color_jitter, options.min_scale, options.mixup, options.label_smoothing) == (0, 0.08, 0, 0)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_package_is_valid_and_documented(name):
    recipe = load_recipe(name)
    lines = recipe_file(name).read_text(encoding="utf-8").splitlines()
    comments = "\n".join(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert re.search(r"paper(:| row)", comments, re.IGNORECASE)
    command = re.search(r"(elastic (?:train|demo).*)", comments)
    assert command is not None, "no command"
    assert name in command[1] or "demo" in command[1]
    assert Recipe(**vars(recipe)) == recipe


def test_overrides_reach_every_depth():
    recipe = load_recipe(
        "imagenet_paper", ["epochs=2", "optimizer.lr=1e-3", "schedule.milestones=[1]", "options.mixup=1", "ema=null"]
    )
    assert (recipe.epochs, recipe.optimizer.lr, recipe.schedule.milestones) == (2, 0.001, (1,))
    assert (recipe.optimizer.momentum, task_options(recipe).mixup, recipe.ema) == (0.9, 1.0, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=2", "the command line: unknown key 'epoch'; did you mean epochs"),
        ("lr=2", "unknown key 'lr'; did you mean optimizer.lr"),
        ("optimizer.rl=2", "did you mean optimizer.lr"),
        ("epochs=two", "the command line: epochs must be a whole number, not 'two'"),
        ("epochs=2.0", "epochs must be a whole number"),
        ("epochs=true", "epochs must be a whole number"),
        ("epochs=0", "epochs=0 must be at least 1"),
        ("ema=1.5", "ema=1.5 must lie between"),
        ("optimizer.lr=.nan", "optimizer.lr must be a number, not nan"),
        ("optimizer=sgd", "optimizer must be a mapping"),
        ("optimizer.lr.x=1", "lr is a value and has no keys below it"),
        ("precision=fp8", "precision must be one of fp32, bf16-mixed, 16-mixed"),
        ("schedule.milestones=[a]", "schedule.milestones must be a whole number"),
        ("schedule.milestones=[]", "schedule.milestones belong to the step schedule"),
        ("schedule.power=2", "schedule.power=2.0 would do nothing: it belongs to poly, schedule.name is step"),
        ("schedule.final=.1", "schedule.final=0.1 would do nothing: it belongs to cosine and poly"),
        ("schedule.factor=-1", "schedule.factor=-1.0 must not be negative"),
        ("clip_grad=0", "clip_grad=0.0 must be positive"),
        ("val_batch_size=0", "val_batch_size=0 must be positive"),
        ("options.mixupp=1", "unknown key 'options.mixupp'; did you mean options.mixup"),
        ("options.label_smoothing=1", "label_smoothing=1.0 must lie in 0..1"),
        ("task=detection", "unknown task 'detection'"),
        ("epochs", "'epochs' is not of the form key=value"),
        ("seed=-1", "seed=-1 must not be negative"),
    ],
)
def test_wrong_overrides_are_explained(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_recipe("imagenet_paper", [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 2\nepochs: 3\n", "line 2: the key 'epochs' was given already in line 1"),
        ("optimizer:\n  lr: 1\n  lr: 2\n", "line 3: the key 'optimizer.lr' was given already in line 2"),
        ("seed: 1\n\nepoks: 2\n", "line 3: unknown key 'epoks'; did you mean epochs"),
        ("optimizer:\n  lr: fast\n", "line 2: optimizer.lr must be a number, not 'fast'"),
        ("- 1\n", "expected `key: value` lines"),
        ("a: [1\n", "not valid YAML"),
        ("epochs: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "recipe.yaml"),
    ],
)
def test_broken_files_are_explained_with_the_line(text, message, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_recipe(path)
    assert "recipe.yaml" in str(caught.value)


def test_unknown_recipes_offer_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean imagenet_paper"):
        load_recipe("imagenet_papr")
    with pytest.raises(ValueError, match="no recipe file"):
        load_recipe(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"task: \xff\n")
    with pytest.raises(ValueError, match="is not UTF-8"):
        load_recipe(tmp_path / "latin.yaml")


def test_a_recipe_survives_being_written_and_read(tmp_path):
    recipe = load_recipe("imagenet_modern", ["network=resnet18", "network_kwargs.drop_rate=0.5", "weights=a b"])
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert replace(recipe, seed=3) != recipe


VALUES = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(strict.all_keys(Recipe)) | st.text(max_size=5), VALUES, max_size=3))
def test_any_mapping_is_a_recipe_or_a_clear_error(values):
    try:
        recipe = strict.build(Recipe, values, strict.Source("fuzzed"))
    except ValueError as error:
        message = str(error)
    else:
        assert isinstance(recipe, Recipe)
        message = "fuzzed"
    assert message.startswith("fuzzed")


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_any_text_is_a_value(text):
    strict.parse_scalar(text)


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule.name=step", "schedule.milestones=[2,3]", "schedule.factor=0.5"],
        ["schedule.name=constant"],
        ["schedule.name=poly", "schedule.power=2"],
    ],
)
def test_another_schedule_leaves_the_recipes_keys_of_its_own_behind(overrides):
    """small_images is a cosine that ends at `final`."""
    schedule = load_recipe("small_images", overrides).schedule
    assert schedule.final == (0.001 if schedule.name == "poly" else 0)
    assert schedule.warmup_epochs == 0.5


LEVELS = [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
BOMB = "\n".join(["  a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *LEVELS])


@pytest.mark.parametrize(
    "text",
    [
        f"network_kwargs:\n{BOMB}\n",
        f"options:\n{BOMB}\n  more: {{<<: *a11}}\n",
        "network_kwargs: &a {inner: *a}\n",
        "options: &o [1, [2, *o]]\n",
        "network_kwargs: " + "[" * 2000 + "]" * 2000 + "\n",
    ],
)
def test_yaml_that_stands_for_endless_values_is_refused(text, tmp_path):
    """Ten lines of aliases are 10^12 values when they are written out."""
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bomb\.yaml.*(stands for more than 100000 values|nested too deeply)"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["&a [*a]", "[" * 3000 + "]" * 3000])
def test_so_is_it_on_the_command_line(text):
    with pytest.raises(ValueError, match=r"network_kwargs must be|nested too deeply"):
        load_recipe("small_images", [f"network_kwargs={text}"])


def test_a_few_aliases_are_fine(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("optimizer: {options: {betas: &b [0.9, 0.95]}}\nnetwork_kwargs: {drop: *b, again: *b}\n")
    assert load_recipe(path).network_kwargs == {"drop": [0.9, 0.95], "again": [0.9, 0.95]}


@pytest.mark.parametrize(
    ("recipe", "overrides", "says"),
    [
        (
            "small_images",
            ["options.auto_augment=rand-m9", "options.color_jitter=0.3"],
            "options.color_jitter=0.3",
        ),
        *(
            ("small_images", [f"options.auto_augment={policy}"], f"auto_augment='{policy}'")
            for policy in ("rand-mXX", "rand-m9-mstdinf", "rand-tx", "rand-m", "rand-m9-m5", "augmix-q3", "foo")
        ),
        ("coco_short", ["options.gamma_negative=2"], "options.gamma_negative=2.0 would do nothing"),
        ("coco_short", ["options.clip=0.2"], "options.clip=0.2 would do nothing"),
        ("voc_deeplabv3", ["options.void=3"], "options.void=3 would do nothing"),
        ("voc_deeplabv3", ["options.palette=[[1,2,3]]"], "options.palette"),
        ("voc_deeplabv3", ["options.mask_suffix=_m"], "options.mask_suffix"),
    ],
)
def test_keys_of_a_task_that_would_do_nothing_are_refused(recipe, overrides, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        load_recipe(recipe, overrides)
