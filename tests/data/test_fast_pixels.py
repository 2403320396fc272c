"""Fast loading gives the pixels of the exact way, within what its module says, and the same random crops."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from elastic_cnn.data import fast_pixels
from elastic_cnn.data.fast_pixels import normalise
from elastic_cnn.data.image_folder import train_transform
from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.sampler import UnreadableSample, seed_generators

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def smooth(width: int, height: int, seed: int) -> Image.Image:
    """A picture with a photo's spectrum: noise blurred at several scales."""
    rng, total = np.random.default_rng(seed), np.zeros((height, width, 3))
    for scale in (1, 2, 4, 8, 16, 32):
        noise = rng.integers(0, 256, (height // scale + 2, width // scale + 2, 3), dtype=np.uint8)
        total += scale * np.asarray(Image.fromarray(noise).resize((width, height), Image.BICUBIC), float)
    return Image.fromarray(np.uint8(total / total.max() * 255))


def jpeg(picture: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def both(content: bytes, size: int, seed: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """(3, size, size) levels of 0..255, fast and exact, from the same random numbers."""
    seed_generators(seed)
    fast = train_transform(size, **PLAIN, loading="fast", **options).read(content, "x").numpy().astype(float)
    seed_generators(seed)
    exact = 255 * train_transform(size, **PLAIN, **options)(read_rgb(content, "x")).numpy().astype(float)
    return fast, exact


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(20, 300),
    st.integers(20, 300),
    st.integers(0, 10_000),
    st.sampled_from(["bilinear", "bicubic"]),
    st.sampled_from([0, 1, 2]),
)
def test_whole_files_differ_by_two_levels_at_most(width, height, seed, interpolation, subsampling):
    """The crop is never twice the input's side of 160; rounding is all that differs."""
    content = jpeg(smooth(width, height, seed), subsampling=subsampling)
    fast, exact = both(content, 160, seed, interpolation=interpolation)
    assert np.abs(fast - exact).max() < 2.01


@pytest.mark.parametrize("seed", range(6))
def test_reduced_files_differ_by_little(seed):
    """Decoded at 1/2 to 1/8, the mean difference stays near one level, and the picture where it was."""
    fast, exact = both(jpeg(smooth(640, 512, seed)), 48, seed, min_scale=0.5)
    assert np.abs(fast - exact).mean() < 2.5
    moved = np.abs(np.roll(fast, 1, axis=2) - exact).mean()
    assert np.abs(fast - exact).mean() < moved / 2


def test_real_photos(shared):
    files = sorted((shared / "data" / "coco_person" / "images" / "train").iterdir())[:40]
    mean = {}
    for size in (128, 64):
        pairs = [both(file.read_bytes(), size, number) for number, file in enumerate(files)]
        mean[size] = np.mean([np.abs(fast - exact).mean() for fast, exact in pairs])
    assert mean[128] < 0.5  # decoded whole
    assert mean[64] < 1.5  # three of four at 1/2


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(300, 224), (257, 131), (640, 480), (33, 31)])
def test_both_decoders_give_the_same_pixels(reduction, size, monkeypatch):
    pytest.importorskip("simplejpeg")
    for options in ({"subsampling": 0}, {"subsampling": 2}, {"progressive": True}):
        for mode in ("RGB", "L"):
            content = jpeg(smooth(*size, seed=1).convert(mode), **options)
            fast = fast_pixels._decode(content, *size, reduction)
            with monkeypatch.context() as patch:
                patch.setattr(fast_pixels, "simplejpeg", None)
                slow = fast_pixels._decode(content, *size, reduction)
            assert fast.shape == (-(-size[1] // reduction), -(-size[0] // reduction), 3)
            np.testing.assert_array_equal(fast, slow)


def test_other_kinds_are_read_as_ever():
    """Turned by EXIF, CMYK, PNG: the same picture as by Pillow; broken files are named."""
    picture = smooth(90, 60, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    png = io.BytesIO()
    picture.save(png, "PNG")
    for content in (jpeg(picture, exif=exif), jpeg(picture.convert("CMYK")), png.getvalue()):
        fast, exact = both(content, 80, 7)
        assert np.abs(fast - exact).max() < 2.01
    whole = jpeg(smooth(400, 300, 0))
    for broken in (b"", b"<html>", whole[:100], whole[: len(whole) // 2]):
        with pytest.raises(UnreadableSample, match=r"photo\.jpg cannot be read"):
            train_transform(32, **PLAIN, loading="fast").read(broken, "photo.jpg")


def test_augmentations_follow_the_crop():
    content = jpeg(smooth(100, 80, 3))
    for options in ({"color_jitter": 0.4}, {"auto_augment": "rand-m7-mstd0.5-inc1"}):
        plain = train_transform(64, **PLAIN, loading="fast")
        augmented = train_transform(64, **PLAIN, loading="fast", **options)
        seed_generators(5)
        first = plain.read(content, "x")
        seed_generators(5)
        second = augmented.read(content, "x")
        assert second.shape == first.shape == (3, 64, 64)
        assert second.dtype == torch.uint8
        assert not torch.equal(first, second)


def test_normalisation_is_torchvisions_to_the_bit():
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7), dtype=np.uint8))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    usual = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    expected = torch.stack([usual(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in pixels])
    assert torch.equal(normalise(pixels, mean, std), expected)
    assert normalise(expected, mean, std) is expected


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="loading=exact"):
        train_transform(32, **PLAIN, erase=0.1, loading="fast")
    with pytest.raises(ValueError, match="not 'nearest'"):
        train_transform(32, **PLAIN, interpolation="nearest", loading="fast")
