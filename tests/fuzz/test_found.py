"""What fuzzing found, once each."""

import io
import json
import warnings

import pytest
from PIL import Image

from elastic_cnn.data.masks import Labels, read_mask
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.policy.table import PolicyInfo, read_policy, write_part
from elastic_cnn.zoo.checkpoint import NetworkCard


@pytest.mark.parametrize(
    ("key", "value"), [("classes", [None]), ("classes", "ab"), ("kwargs", [1]), ("input", {"size": "ab"}), ("info", 3)]
)
def test_a_card_whose_values_are_of_other_types(key, value):
    """It was taken, and failed when the network was used."""
    card = NetworkCard("resnet10t", {"num_classes": 2}, classes=("a", "b"))
    with pytest.raises(ValueError, match=r"card|input"):
        NetworkCard.from_json(json.dumps({**json.loads(card.to_json()), key: value}))


def test_a_table_with_a_damaged_page_is_named(tmp_path):
    """Arrow's error for it is an OSError without the file's name."""
    path = tmp_path / "policy.parquet"
    info = PolicyInfo("classification", ("a", "b"), (BlockInfo("layer1.0", (1, 2), 1, 8, 8),))
    row = {"path": "x", "label": "a", "prediction": "b", "confidence": 0.5, "correct": False, "object_sizes": None}
    write_part(path, [{**row, "id": number, "scores": [0.25]} for number in range(3)], info)
    path.write_bytes(path.read_bytes()[:4] + bytes(24) + path.read_bytes()[28:])
    with pytest.raises(ValueError, match=r"policy\.parquet: its rows cannot be read"):
        read_policy(path)


@pytest.mark.parametrize("cut", [None, 40, 150])
def test_a_mask_with_broken_metadata(cut, tmp_path):
    """Pillow warned on several lines of the terminal; what cannot be read is left out like a photo."""
    buffer = io.BytesIO()
    Image.new("L", (20, 24), 1).save(buffer, "TIFF")
    content = bytearray(buffer.getvalue())
    content[8:10] = b"\xff\x00"  # the number of tags
    path = tmp_path / "1.tif"
    path.write_bytes(bytes(content[:cut]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert (read_mask(path, Labels(("a", "b"))) == 1).all()
        except UnreadableSample as error:
            assert "1.tif" in str(error)  # noqa: PT017
