"""Reports of tests: their tables against scikit-learn, torchmetrics and counting; what is written, what is refused."""

import csv
import io
import itertools
import json
import re
from base64 import b64decode
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn import metrics
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from elastic_cnn.cli import main
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.demo.page import table
from elastic_cnn.evaluation import tables
from elastic_cnn.evaluation.collect import Answers, collect_answers
from elastic_cnn.evaluation.report import write_report
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.views import Views, parse_views
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, load_checkpoint, save_checkpoint
from elastic_cnn.zoo.factory import create_model

CLASSES = ("ant", "bee", "cat", "dog")
KWARGS = {"num_classes": 2, "stem_width": 8, "channels": [8, 8, 16, 16]}


@pytest.fixture(scope="module")
def one() -> Answers:
    """200 photos of three of four classes; the network prefers the right class a little."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 200, p=(0.7, 0.2, 0.1))
    logits = rng.normal(0, 1.5, (200, 4))
    logits[np.arange(200), truth] += 1.5
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sizes = np.where(np.arange(200) < 120, rng.uniform(5, 50, 200), np.nan)
    return Answers(tuple(f"{n}.jpg" for n in range(200)), truth, chances, CLASSES, "classification", sizes)


@pytest.fixture(scope="module")
def several() -> Answers:
    rng = np.random.default_rng(1)
    truth = (rng.random((80, 4)) < (0.5, 0.3, 0.1, 0.0)).astype(np.int64)
    chances = np.clip(0.5 * truth + rng.uniform(0, 0.6, (80, 4)), 0, 1).round(2)
    return Answers(tuple(map(str, range(80))), truth, chances, CLASSES, "multilabel", np.full(80, np.nan))


def test_confusions_and_classes_are_those_of_scikit_learn(one):
    counts = tables.confusion(one)
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(one.truth, one.predicted, labels=range(4)))
    precision, recall, _, support = metrics.precision_recall_fscore_support(
        one.truth, one.predicted, labels=range(4), zero_division=0
    )
    for number, row in enumerate(tables.by_class(one)[:3]):
        assert (row["class"], row["photos"]) == (CLASSES[number], support[number])
        assert row["error"] == pytest.approx(1 - recall[number])
        assert row["precision"] == pytest.approx(precision[number])
        wrong = int(support[number] - counts[number, number])
        wilson = stats.binomtest(wrong, int(support[number])).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((wilson.low, wilson.high))
        others = [c for c in range(4) if c != number]
        assert row["taken"] == max(counts[number, c] for c in others)
    assert tables.by_class(one)[3]["error"] is None  # no photo is of it


def test_labels_have_the_scores_of_scikit_learn(several):
    answered = several.probabilities > 0.5
    for number, row in enumerate(tables.by_class(several)[:3]):
        truth, said = several.truth[:, number], answered[:, number]
        assert row["f1"] == pytest.approx(metrics.f1_score(truth, said))
        assert row["average_precision"] == pytest.approx(
            metrics.average_precision_score(truth, several.probabilities[:, number])
        )
    assert tables.by_class(several)[3]["f1"] is None


def test_calibration_is_that_of_torchmetrics(one, several):
    chances, truth = torch.from_numpy(one.probabilities), torch.from_numpy(one.truth)
    expected = multiclass_calibration_error(chances, truth, 4, n_bins=tables.BINS, norm="l1")
    found = tables.calibration(one)
    assert found.error == pytest.approx(float(expected), abs=1e-6)
    assert sum(bin_[2] for bin_ in found.bins) == 200
    chances, truth = torch.from_numpy(several.probabilities).ravel(), torch.from_numpy(several.truth).ravel()
    expected = binary_calibration_error(chances, truth, n_bins=tables.BINS, norm="l1")
    assert tables.calibration(several).error == pytest.approx(float(expected), abs=1e-6)


def test_thresholds_have_the_largest_f1_of_all_that_could_be(several):
    found = tables.thresholds(several)
    for number, threshold in enumerate(found):
        truth, chance = several.truth[:, number], several.probabilities[:, number]
        if not truth.any():
            assert threshold == 0.5
            continue
        best = max(metrics.f1_score(truth, chance > cut) for cut in np.linspace(0, 1, 101)[:-1])
        assert metrics.f1_score(truth, chance > threshold) == pytest.approx(best)


def test_sizes_are_parts_of_equal_numbers_from_small_to_large(one):
    rows = tables.by_size(one)
    assert [row["photos"] for row in rows] == [24] * 5
    known = np.flatnonzero(np.isfinite(one.sizes))
    small = known[one.sizes[known] <= rows[0]["to"]]
    assert rows[0]["error"] == pytest.approx(1 - one.right[small].mean())
    assert all(before["to"] <= after["from"] for before, after in itertools.pairwise(rows))


def test_two_networks_are_compared_photo_by_photo(one, several):
    truth = one.truth
    better = Answers(one.paths, truth, np.eye(4)[truth], CLASSES, one.task, one.sizes)
    found = tables.against(better, one)
    wrong = int((~one.right).sum())
    assert (found["only_this_right"], found["only_other_right"]) == (wrong, 0)
    assert found["value"] == pytest.approx(wrong / 200)
    assert found["p_value"] == pytest.approx(2 * 0.5**wrong)
    assert tables.against(one, one)["p_value"] == 1
    with pytest.raises(ValueError, match="not tested on the same photos"):
        tables.against(one, several)
    other = Answers(several.paths, several.truth, several.truth * 0.9, CLASSES, several.task, several.sizes)
    found = tables.against(other, several)
    mistakes = ((several.probabilities > 0.5) != several.truth).sum(1)
    assert found["value"] == pytest.approx(mistakes.mean())
    assert found["p_value"] == pytest.approx(stats.ttest_1samp(mistakes, 0).pvalue)


def test_the_worst_are_wrong_and_ordered_by_loss(one):
    rows = tables.worst(one, 10)
    loss = metrics.log_loss
    each = [loss([one.truth[r]], [one.probabilities[r]], labels=range(4)) for r in rows]
    assert each == sorted(each, reverse=True)
    assert not one.right[rows].any()
    assert min(each) >= max(one.loss[[r for r in range(200) if not one.right[r] and r not in rows]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("flip", (True, (1.0,))), ("1.25, flip", (True, (1.0, 1.25))), ("0.8,1.25", (False, (0.8, 1.0, 1.25)))],
)
def test_views_are_read(text, expected):
    assert parse_views(text) == expected


@pytest.mark.parametrize("text", ["flop", "9", "1", "0.8;1.25", "nan"])
def test_views_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="tta="):
        parse_views(text)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_views_average_probabilities(task):
    torch.manual_seed(0)
    network, images = create_model("resnet10t", **KWARGS).eval(), torch.randn(3, 3, 32, 40)
    card = NetworkCard("resnet10t", KWARGS, task, ("a", "b"))
    turn = torch.sigmoid if task == "multilabel" else lambda x: x.softmax(1)
    with torch.no_grad():
        large = torch.nn.functional.interpolate(images, (40, 50), mode="bilinear", antialias=True)
        views = [turn(network(v)) for v in (images, images.flip(3), large, large.flip(3))]
        found = turn(Views(network, card, "flip,1.25")(images))
    torch.testing.assert_close(found, sum(views) / 4, rtol=1e-4, atol=1e-5)
    flipless = NetworkCard("resnet10t", KWARGS, task, ("a", "b"), info={"recipe": {"options": {"hflip": 0}}})
    with pytest.raises(ValueError, match="trained without"):
        Views(network, flipless, "flip")
    with pytest.raises(ValueError, match="answers about images"):
        Views(network, NetworkCard("resnet10t", KWARGS, "segmentation"), "flip")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    root, found = tmp_path_factory.mktemp("c"), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        card = NetworkCard("resnet10t", KWARGS, classes=("dark", "light"), input=InputSpec((32, 32), crop_pct=0.9))
        found.append(save_checkpoint(root / f"{seed}.safetensors", create_model("resnet10t", **KWARGS), card))
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for level, name in enumerate(("dark", "light")):
        (root / "val" / name).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(120 * level, 120 * level + 100, (36, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "val" / name / f"{number}.png")
    (root / "val" / "dark" / "torn.png").write_bytes(b"no picture")
    return root


def evaluate(*arguments: object) -> int:
    return main(["eval", *map(str, arguments), "--accelerator", "cpu", "--workers", "0"])


def test_answers_are_those_of_the_network_one_photo_at_a_time(checkpoints, photos):
    answers = collect_answers(checkpoints[0], photos, "val", TestOptions(batch_size=4), Settings("cpu"))
    network, card = load_checkpoint(checkpoints[0])
    transform = eval_transform(**asdict(card.input))
    assert len(answers.paths) == 10
    for path, truth, chances in zip(answers.paths, answers.truth, answers.probabilities, strict=True):
        with torch.no_grad():
            expected = network(transform.read(path)[None]).softmax(1)[0]
        np.testing.assert_allclose(chances, expected, rtol=1e-4, atol=1e-6)
        assert card.classes[truth] == Path(path).parent.name


def test_sizes_are_those_of_the_folder_or_of_the_list(checkpoints, photos, tmp_path):
    names = [f"val/{kind}/{number}.png" for kind in ("dark", "light") for number in range(5)]
    for root, prefix in ((photos, "val/"), (photos / "val", "")):
        rows = [f"{prefix}{name.removeprefix('val/')},{number}" for number, name in enumerate(names)]
        (root / "sizes.csv").write_text("\n".join(["path,size", *rows]))
    listing = tmp_path / "list.csv"
    rows = [f"{photos / name},{name.split('/')[1]}" for name in names]
    listing.write_text("\n".join(["path,label", *rows]))
    for data in (photos, listing):
        answers = collect_answers(checkpoints[0], data, "val", TestOptions(), Settings("cpu"))
        assert answers.sizes.tolist() == list(range(10)), data
    for root in (photos, photos / "val"):
        (root / "sizes.csv").unlink()


def test_a_report_says_in_all_its_files_what_was_found(checkpoints, photos, tmp_path, capsys):
    out = tmp_path / "report"
    arguments = [checkpoints[0], "--data", photos, "-o", out, "--against", checkpoints[1], "--tta", "flip"]
    assert evaluate(*arguments, "--json", tmp_path / "r.json") == 0
    printed = capsys.readouterr().out
    found = json.loads((out / "report.json").read_text())
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    wrong = sum(row["right"] == "0" for row in rows)
    assert len(rows) == 10
    assert all((row["truth"] == row["answer"]) == (row["right"] == "1") for row in rows)
    assert f"{wrong} of 10 (" in printed
    assert "1 photos could not be read and are left out." in found["lines"]
    assert sum(row["photos"] * row["error"] for row in found["classes"]) == pytest.approx(wrong)
    page = (out / "index.html").read_text()
    for text in (
        found["headline"],
        found["against"]["text"],
        "most often taken for",
        "data:image/png;base64",
        "views flip",
    ):
        assert text.replace("'", "&#x27;") in page or text in page, text
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count('<span class="wrong">said: ') == page.count("data:image/jpeg;base64") == wrong
    assert f"val of {photos.name}</h1>" in page
    assert {path.name for path in out.iterdir()} == {
        "index.html", "report.json", "classes.csv", "confusion.csv", "predictions.csv", "confusion.png",
        "reliability.png", *(("worst.jpg",) if wrong else ()),
    }  # fmt: skip
    assert json.loads((tmp_path / "r.json").read_text())["top1_error"] == pytest.approx(wrong / 10)
    assert evaluate(*arguments) == 2
    assert "holds a report already" in capsys.readouterr().err
    assert evaluate(*arguments, "--overwrite") == 0


def test_a_report_of_labels_and_one_of_sizes(one, several, tmp_path):
    """Several labels a photo: no confusions, thresholds in their place; sizes where they are known."""
    results = {"network": "net", "headline": "mAP 50%", "unreadable": 0}
    where = {"data": "photos", "split": "val", "checkpoint": "runs/x"}
    labels = write_report(replace(several, results=results), tmp_path / "labels", **where, base=("other", several))
    assert not (tmp_path / "labels" / "confusion.png").exists()
    assert list(labels.found["thresholds"]) == list(CLASSES)
    assert "wrong labels a photo neither more nor fewer than other" in labels.found["against"]["text"]
    with (tmp_path / "labels" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, truth in zip(rows, several.truth, strict=True):
        assert row["truth"] == ";".join(name for name, there in zip(CLASSES, truth, strict=True) if there)
    sizes = write_report(replace(one, results=results), tmp_path / "sizes", **where)
    assert [row["photos"] for row in sizes.found["sizes"]] == [24] * 5
    page = (tmp_path / "sizes" / "index.html").read_text()
    assert "By size" in page
    held_out = write_report(replace(one, results=results), tmp_path / "held", **{**where, "data": "runs/x/split.csv"})
    assert "net: val of the run x</h1>" in (held_out.folder / "index.html").read_text()
    assert "dog" in page  # no photo is of it: it stands last, without an error
    assert str(sizes).splitlines()[-1] == f"report: {tmp_path / 'sizes' / 'index.html'}"


def test_charts_of_a_report_have_no_ground_of_their_own_on_a_dark_page(one, tmp_path):
    """Each lies in the page twice, and only the one for dark pages lets the page's ground through."""
    results = {"network": "net", "headline": "top-1 50%", "unreadable": 0}
    report = write_report(replace(one, results=results), tmp_path, data="photos", split="val", checkpoint="runs/x")
    page = (report.folder / "index.html").read_text()
    found = re.findall(
        r'<source srcset="data:image/png;base64,([^"]+)" media="\(prefers-color-scheme: dark\)">'
        r'<img src="data:image/png;base64,([^"]+)"',
        page,
    )
    assert len(found) == 2
    for dark, light in found:
        assert Image.open(io.BytesIO(b64decode(dark))).getpixel((0, 0))[3] == 0
        assert Image.open(io.BytesIO(b64decode(light))).convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    assert (tmp_path / "confusion.png").read_bytes() in [b64decode(light) for _, light in found]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("common ringed plover", "<td>common ringed plover</td>"),
        ("northern_cardinal-male", "<td>northern_<wbr>cardinal-<wbr>male</td>"),
        ("Donaudampfschifffahrt", '<td class="long">Donaudampfschifffahrt</td>'),
        ("12.0% (8.1 to 17.3)", "<td>12.0% (8.1 to 17.3)</td>"),
        ("-", "<td>-</td>"),
        ("a<b_c", "<td>a&lt;b_<wbr>c</td>"),
    ],
)
def test_names_break_where_they_are_put_together(name, cell):
    """On a phone a name breaks inside of a word only where it is one word longer than a column."""
    assert f"<td>x</td>{cell}" in table(["a", "b"], [["x", name]], [""])


def test_what_a_report_refuses(checkpoints, photos, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for arguments, says in (
        (["--against", checkpoints[1]], "--against goes with -o"),
        (["-o", tmp_path / "file"], "is a file: name a folder for the report"),
        (["-o", tmp_path / "r", "--tta", "flop"], "'flop' is neither `flip` nor a size"),
        (["-o", tmp_path / "r", "--devices", "2"], "a report is made by one process"),
    ):
        assert evaluate(checkpoints[0], "--data", photos, *arguments) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert evaluate(checkpoints[0]) == 2
    assert "the data is missing" in capsys.readouterr().err
    assert evaluate(tmp_path / "nothing") == 2
    assert f"no checkpoint at {tmp_path / 'nothing'}" in capsys.readouterr().err
