"""Collecting, against a network run by hand on pictures prepared by hand; killing, resuming, sharing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.policy import scale_policy
from elastic_cnn.policy.collect import Settings, collect
from elastic_cnn.policy.photos import FolderPhotos
from elastic_cnn.policy.run import collect_policy
from elastic_cnn.policy.table import PolicyInfo, read_policy

FAST = Settings(batch_size=4, part_size=6, workers=0)


def prepared(path):
    """A 32 x 32 centre crop of a photo whose short side is made 32, normalised by ImageNet's numbers; (3, 32, 32)."""
    with Image.open(path) as photo:
        width, height = photo.size
        short = min(width, height)
        photo = photo.resize((int(width * 32 / short), int(height * 32 / short)), Image.Resampling.BILINEAR)
        left, top = round((photo.width - 32) / 2), round((photo.height - 32) / 2)
        pixels = np.asarray(photo.crop((left, top, left + 32, top + 32)), np.float32) / 255
    pixels = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)


def test_every_column_equals_a_run_by_hand(subject, base, photos, tmp_path):
    done = collect_policy(subject, str(photos), tmp_path, against=base, settings=FAST)
    table = read_policy(done.path)
    assert (done.rows, done.resumed, done.unreadable) == (21, 0, [])
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.glob("val/*/*.png"))
    assert table.column("id") == list(range(21))
    assert table.column("path") == paths
    assert table.column("label") == [path.split("/")[1] for path in paths]
    sizes = [None if "red" in path else [8.0 + int(path[-5])] for path in paths]
    assert table.column("object_sizes") == sizes
    images = torch.stack([prepared(photos / path) for path in paths])
    # batches of 4 against one of 21: the order of float32 sums differs
    np.testing.assert_allclose(table.scores, scale_policy(subject.network, images).numpy(), rtol=1e-4, atol=1e-6)
    for prefix, network in (("", subject.network), ("base_", base.network)):
        with torch.no_grad():
            probabilities = network.eval()(images).softmax(1)
        best = [subject.classes[i] for i in probabilities.argmax(1)]
        assert table.column(f"{prefix}prediction") == best
        np.testing.assert_allclose(table.column(f"{prefix}confidence"), probabilities.amax(1), rtol=1e-4)
        expected = [b == p.split("/")[1] for b, p in zip(best, paths, strict=True)]
        assert table.column(f"{prefix}correct") == expected
    gained = [a and not b for a, b in zip(table.column("correct"), table.column("base_correct"), strict=True)]
    assert table.gained().tolist() == gained
    assert 0 < sum(table.column("correct")) < 21  # both outcomes were looked at


def test_the_description_tells_blocks_and_origin(subject, base, photos, checkpoint, base_checkpoint, tmp_path):
    info = read_policy(collect_policy(subject, str(photos), tmp_path, against=base, settings=FAST).path).info
    assert [block.name for block in info.blocks] == subject.network.elastic_report.converted
    assert [(block.height, block.width) for block in info.blocks] == [(8, 8), (8, 8), (4, 4)]
    assert (info.network, info.checkpoint, info.against) == (
        "resnext_small_elastic",
        str(checkpoint),
        str(base_checkpoint),
    )
    assert info.data_root == str(photos)
    assert info.classes == subject.classes
    assert info.input["size"] == [32, 32]
    assert info.input["crop_pct"] == 1.0


def test_multilabel_rows_hold_all_classes_above_one_half(multilabel, tmp_path):
    """COCO's layout; the network knows two of the three categories."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "val" / f"{number}.png")
    annotations = [
        {"id": i, "image_id": i // 2, "category_id": 1 + i % 3, "area": (i + 1) ** 2, "iscrowd": 0} for i in range(10)
    ]
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(6)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(("person", "cat", "dog"), 1)],
        "annotations": annotations,
    }
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    table = read_policy(collect_policy(multilabel, str(tmp_path), tmp_path / "out", settings=FAST).path)
    assert table.info.task == "multilabel"
    known = [[(i, ("person", "cat", "dog")[i % 3]) for i in range(2 * n, 2 * n + 2) if n < 5] for n in range(6)]
    labels = [sorted(name for _, name in row if name != "person") for row in known]
    assert table.column("label") == labels
    assert table.column("object_sizes") == [[float(i + 1) for i, name in row if name != "person"] for row in known]
    images = torch.stack([prepared(tmp_path / "val" / f"{number}.png") for number in range(6)])
    with torch.no_grad():
        probabilities = multilabel.network(images).sigmoid()
    expected = [[("cat", "dog")[c] for c in range(2) if row[c] > 0.5] for row in probabilities]
    assert table.column("prediction") == expected
    assert {len(row) for row in expected} != {0}
    np.testing.assert_allclose(table.column("confidence"), probabilities.amax(1), rtol=1e-4)
    assert table.column("correct") == [a == b for a, b in zip(expected, labels, strict=True)]


class Counting(FolderPhotos):
    """Notes which photos are read."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def info_of(subject):
    return PolicyInfo("classification", subject.classes, (), input=dict(subject.preparation))


def make_photos(photos):
    from elastic_cnn.data.image_folder import eval_transform

    return Counting(str(photos), "val", eval_transform(size=(32, 32), crop_pct=1.0))


def test_an_interrupted_run_goes_on_and_repeats_no_finished_part(subject, photos, tmp_path):
    seen = 0

    def interrupt(count):
        nonlocal seen
        seen += count
        if seen >= 14:  # two parts of 6 are written; the third is under way
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(subject.network, make_photos(photos), tmp_path, info_of(subject), settings=FAST, progress=interrupt)
    assert not (tmp_path / "policy.parquet").exists()
    rest = make_photos(photos)
    done = collect(subject.network, rest, tmp_path, info_of(subject), settings=FAST)
    assert rest.read == list(range(12, 21))
    assert (done.rows, done.resumed) == (21, 12)
    whole = collect(subject.network, make_photos(photos), tmp_path / "whole", info_of(subject), settings=FAST)
    assert read_policy(done.path).rows.equals(read_policy(whole.path).rows)
    assert not (tmp_path / "parts").exists()


KILLED = """
import os, signal, sys
from elastic_cnn.policy.run import load_subject
from elastic_cnn.policy.collect import Settings
from elastic_cnn.policy.run import collect_policy
seen = 0
def kill(count):
    global seen
    seen += count
    if seen >= 9:
        os.kill(os.getpid(), signal.SIGKILL)
collect_policy(load_subject(sys.argv[1]), sys.argv[2], sys.argv[3],
               settings=Settings(batch_size=4, part_size=6, workers=0), progress=kill)
"""


def environment(**variables):
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}


@pytest.mark.slow
def test_killed_then_finished_by_two_processes_equals_one_process(subject, checkpoint, photos, tmp_path):
    """SIGKILL after the first part; two gloo processes under torchrun do the rest; one process did all at once."""
    out = tmp_path / "shared"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, checkpoint, photos, out], env=environment(), timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in sorted((out / "parts").glob("part*"))] == ["part-000000000.parquet"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "elastic_cnn", "policy", checkpoint, "--data", photos, "-o", out, "--no-figures"]
    command += ["--batch-size", "4", "--part-size", "6", "--workers", "0", "--device", "cpu"]
    both = subprocess.run(
        list(map(str, command)), env=environment(), timeout=200, capture_output=True, text=True, check=False
    )
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("21 images") == 1, both.stdout  # the first process alone speaks
    assert "15 done now" in both.stdout
    assert "6 before" in both.stdout
    alone = collect_policy(subject, str(photos), tmp_path / "alone", settings=FAST)
    assert read_policy(out).rows.equals(read_policy(alone.path).rows)
    assert json.loads(read_policy(out).info.to_json()) == json.loads(alone.info.to_json())


def test_unreadable_photos_are_left_out_and_counted(subject, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos / "val", data / "val")
    (data / "val" / "green" / "3.png").write_bytes(b"no picture")
    done = collect_policy(subject, str(data), tmp_path / "out", settings=FAST)
    assert done.rows == 20
    assert [path for path, _ in done.unreadable] == [str(data / "val" / "green" / "3.png")]
    assert read_policy(done.path).column("id") == [i for i in range(21) if i != 10]
    with pytest.raises(UnreadableSample, match=r"3\.png"):
        collect_policy(subject, str(data), tmp_path / "strict", settings=Settings(batch_size=4, workers=0, strict=True))


def test_photos_without_classes_or_of_unknown_ones_have_no_verdict(subject, photos, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(3):
        shutil.copy(photos / "val" / "red" / f"{number}.png", flat / f"{number}.png")
    table = read_policy(collect_policy(subject, str(flat), tmp_path / "a", settings=FAST).path)
    assert table.column("label") == table.column("correct") == [None] * 3
    assert table.column("path") == ["0.png", "1.png", "2.png"]
    shutil.copytree(photos / "val" / "red", tmp_path / "other" / "val" / "crimson")
    table = read_policy(collect_policy(subject, str(tmp_path / "other"), tmp_path / "b", settings=FAST).path)
    assert table.column("label") == ["crimson"] * 7
    assert table.column("correct") == [None] * 7


def test_results_are_not_overwritten_and_parts_of_others_not_used(subject, base, photos, tmp_path):
    collect_policy(subject, str(photos), tmp_path, settings=FAST)
    with pytest.raises(ValueError, match=r"policy\.parquet exists already.*--overwrite"):
        collect_policy(subject, str(photos), tmp_path, settings=FAST)
    assert collect_policy(subject, str(photos), tmp_path, settings=FAST, overwrite=True).resumed == 0

    seen, half = [], tmp_path / "half"

    def stop(count):
        seen.append(count)
        if len(seen) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_policy(subject, str(photos), half, settings=FAST, progress=stop)
    with pytest.raises(ValueError, match="collection with another against, source"):
        collect_policy(subject, str(photos), half, against=base, settings=FAST)


def test_bad_pairs_and_settings_are_refused(subject, base, photos, tmp_path):
    from dataclasses import replace

    other = replace(base, preparation={**base.preparation, "size": (64, 64)})
    with pytest.raises(ValueError, match="takes other input"):
        collect_policy(subject, str(photos), tmp_path, against=other, settings=FAST)
    with pytest.raises(ValueError, match="no class in common"):
        collect_policy(subject, str(photos), tmp_path, against=replace(base, classes=("a", "b", "c")), settings=FAST)
    with pytest.raises(ValueError, match="has no elastic block"):
        collect_policy(base, str(photos), tmp_path, settings=FAST)
    with pytest.raises(ValueError, match="there is no folder"):
        collect_policy(subject, str(tmp_path / "nowhere"), tmp_path, settings=FAST)
    with pytest.raises(ValueError, match="must be positive"):
        Settings(batch_size=0)
    with pytest.raises(ValueError, match="unknown precision"):
        Settings(precision="8")


def test_all_unreadable_leaves_no_table(subject, tmp_path):
    (tmp_path / "data" / "val" / "red").mkdir(parents=True)
    (tmp_path / "data" / "val" / "red" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 1 images could be read"):
        collect_policy(subject, str(tmp_path / "data"), tmp_path / "out", settings=FAST)
    assert not (tmp_path / "out" / "policy.parquet").exists()


class Many:
    """Any number of generated photos."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"image": torch.full((3, 32, 32), index % 7 / 7)}

    def path(self, index):
        return f"{index}.png"

    def label(self, index, target=None):
        return None

    def object_sizes(self, index):
        return None


def test_memory_does_not_grow_with_the_data(subject, tmp_path):
    """Python's own peak grows by less than 150 bytes a photo; a row alone takes more than 1,000."""
    peaks = []
    for count in (100, 300, 900):  # the first run pays for imports and caches
        tracemalloc.start()
        settings = Settings(batch_size=50, part_size=100, workers=0)
        collect(subject.network, Many(count), tmp_path / str(count), info_of(subject), settings=settings)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / 600 < 150, peaks
