"""What training and testing do to the shape of pictures: crops, borders, sides that differ, flips and turns."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import functional as F

from elastic_cnn.data.picture_kinds import Reading
from elastic_cnn.data.sampler import seed_generators
from elastic_cnn.data.transforms import Geometry, RandomCrop, check_picture, eval_transform, train_transform

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
GREY = {"mean": (0.5,), "std": (0.5,)}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def marked(width: int, height: int, side: int) -> Image.Image:
    """Grey, with a red square at the left end and a blue one at the right."""
    picture = Image.new("RGB", (width, height), (128, 128, 128))
    picture.paste((255, 0, 0), (0, 0, side, height))
    picture.paste((0, 0, 255), (width - side, 0, width, height))
    return picture


def reds(image: torch.Tensor) -> torch.Tensor:
    return (image[0] > 0.9) & (image[1] < 0.1) & (image[2] < 0.1)


def blues(image: torch.Tensor) -> torch.Tensor:
    return reds(image.flip(0))


@pytest.mark.parametrize("size", [64, (64, 64), (40, 96)])
@pytest.mark.parametrize("options", [{}, {"color_jitter": 0.4, "erase": 0.5}, {"auto_augment": "rand-m7"}])
def test_without_a_word_on_geometry_training_is_timms_to_the_bit(size, options):
    """Squares, as ever. (The shape of crops for inputs that are no squares is the input's: see below.)"""
    if size == (40, 96):
        pytest.skip("timm crops squares for every input") if options else None
    ours = train_transform(size, **PLAIN, **options)
    theirs = create_transform(
        size, is_training=True, scale=(0.08, 1.0), color_jitter=options.get("color_jitter"), re_mode="pixel",
        auto_augment=options.get("auto_augment"), re_prob=options.get("erase", 0.0), interpolation="bilinear", **PLAIN,
        ratio=None if size != (40, 96) else (0.75 * 96 / 40, 96 / 40 * 4 / 3),
    )  # fmt: skip
    for seed in range(4):
        picture = noise(90, 70, seed)
        seed_generators(seed)
        expected = theirs(picture)
        seed_generators(seed)
        assert torch.equal(ours(picture), expected)


@pytest.mark.parametrize(
    "policy", ["rand-m9-n3-p0.5-mstd0.5-mmax12-inc1-t3aw", "rand-mstd1-tweights", "augmix-m5-w4-d2-a1.-b1-mstd101",
               "original-mstd0.5", "originalr", "v0", "v0r-mstd1", "3a"]
)  # fmt: skip
def test_every_policy_of_timms_is_taken(policy):
    assert train_transform(32, **PLAIN, auto_augment=policy)(noise(40, 50, 0)).shape == (3, 32, 32)


@pytest.mark.parametrize("policy", ["rand-m10-inc1-n20-p1", "rand-m2-n20-p1", "augmix-m10-w9-mstd9"])
def test_posterizing_to_no_bits_is_black(policy):
    """Pillow refuses it from 13 on: such a photo would end the run, or be left out."""
    transform = train_transform(32, **PLAIN, auto_augment=policy)
    for seed in range(10):
        seed_generators(seed)
        assert transform(noise(40, 50, seed)).isfinite().all()


@pytest.mark.parametrize("size", [(48, 48), (32, 128), (96, 40)])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_testing_is_timms_to_the_bit(size, crop_mode):
    pct = 0.875 if crop_mode == "center" else 1.0
    ours = eval_transform(size, **PLAIN, crop_pct=pct, crop_mode=crop_mode)
    theirs = create_transform((3, *size), crop_pct=pct, crop_mode=crop_mode, interpolation="bilinear", **PLAIN)
    for shape in ((90, 70), (200, 31), (33, 300)):
        assert torch.equal(ours(noise(*shape)), theirs(noise(*shape)))


@pytest.mark.parametrize(("mode", "ends"), [("center", False), ("border", True), ("squash", True)])
@pytest.mark.parametrize("size", [(64, 64), (32, 128)])
def test_which_crop_mode_keeps_the_ends_of_a_wide_photo(mode, ends, size):
    image = eval_transform(size, **PLAIN, crop_mode=mode)(marked(512, 64, 40))
    assert image.shape == (3, *size)
    assert bool(reds(image).any() and blues(image).any()) is ends


@pytest.mark.parametrize("size", [(64, 64), (32, 128), (128, 32), (50, 70)])
def test_border_shows_the_whole_photo_in_its_shape_on_the_mean_colour(size):
    mean = (0.2, 0.4, 0.6)
    image = eval_transform(size, mean, (1.0,) * 3, crop_mode="border")(Image.new("RGB", (300, 100), "white"))
    inside = (image + torch.tensor(mean)[:, None, None] > 0.99).all(0)
    height, width = (int(inside.any(axis).sum()) for axis in (1, 0))
    scale = min(size[0] / 100, size[1] / 300)
    assert (height, width) == (round(100 * scale), round(300 * scale))
    assert float(image[:, ~inside].abs().max()) < 0.003 if (~inside).any() else size == (100, 300)


def test_training_on_squashed_wide_photos_sees_their_ends():
    """The crop has the photo's shape; a plain one, nearly as large as is asked for, never reaches an end."""
    seen = {}
    for mode in ("center", "border", "squash"):
        transform = train_transform(64, **PLAIN, min_scale=0.9, geometry=Geometry(0, crop_mode=mode))
        images = []
        for seed in range(20):
            seed_generators(seed)
            images.append(transform(marked(512, 64, 60)))
        seen[mode] = sum(bool(reds(image).any() and blues(image).any()) for image in images)
    assert seen == {"center": 0, "border": 20, "squash": 20}


@pytest.mark.parametrize("mode", ["center", "border", "squash"])
@pytest.mark.parametrize("size", [(64, 64), (32, 128), (96, 24)])
def test_crops_have_the_shape_that_their_mode_says(mode, size):
    crop = RandomCrop(size, 0.3, "bilinear", mode, PLAIN["mean"])
    target = size[1] / size[0]
    for seed, (height, width) in enumerate([(64, 512), (300, 200), (100, 100), (7, 900)] * 5):
        seed_generators(seed)
        top, left, rows, columns = crop.draw(height, width)
        whole = target if mode != "squash" else width / height
        if mode == "center":  # of a photo that is far longer there may be no such crop: the middle then
            assert 0 <= top <= height - rows
            assert 0 <= left <= width - columns
        elif mode == "squash":
            assert rows * columns >= 0.29 * height * width
        low, high = 0.74 * whole, 1.35 * whole
        assert low <= (columns + 1) / rows * (rows + 1) / rows
        assert (columns - 1) / (rows + 1) <= high


def test_borders_in_training_lie_where_the_photo_does_not():
    """A crop that takes all shows the photo in the middle and the mean around it, as testing does."""
    picture = marked(256, 64, 32)
    transform = train_transform(64, **PLAIN, min_scale=1.0, geometry=Geometry(0, crop_mode="border"))
    tested = eval_transform((64, 64), **PLAIN, crop_mode="border")(picture)
    differences = []
    for seed in range(30):
        seed_generators(seed)
        image = transform(picture)
        assert reds(image).any()
        assert float(image[:, :20].abs().max()) == 0
        differences.append(float((image - tested).abs().max()))
    assert min(differences) < 0.01


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        (Geometry(0), {"same"}),
        (Geometry(1), {"left-right"}),
        (Geometry(0.5), {"same", "left-right"}),
        (Geometry(0, 1), {"top-bottom"}),
        (Geometry(0.5, 0.5), {"same", "left-right", "top-bottom", "both"}),
        (Geometry(0, quarter_turns=True), {"same", "quarter", "both", "three quarters"}),
    ],
)
@pytest.mark.parametrize("loading", ["exact", "fast"])
@pytest.mark.parametrize("channels", [3, 1])
def test_flips_and_turns_are_those_that_were_asked_for(geometry, expected, loading, channels):
    """A random picture and its mirror images, told apart to the bit."""
    if channels == 1 and loading == "fast":
        with pytest.raises(ValueError, match="fast loading is for 3 channels"):
            train_transform(16, **GREY, loading=loading, geometry=geometry)
        return
    plain = PLAIN if channels == 3 else {"mean": (0.0,), "std": (1.0,)}
    picture = noise(16, 16) if channels == 3 else torch.rand(1, 16, 16)
    whole = F.to_tensor(picture) if channels == 3 else picture
    names = {
        "same": whole, "left-right": whole.flip(2), "top-bottom": whole.flip(1), "both": whole.flip(1, 2),
        "quarter": whole.rot90(1, (1, 2)), "three quarters": whole.rot90(3, (1, 2)),
    }  # fmt: skip
    transform = train_transform(16, **plain, min_scale=1.0, loading=loading, geometry=geometry)
    transform_crop = transform.crop if loading == "fast" else transform.steps.transforms[0]
    transform_crop.ratio = (1.0, 1.0)  # the whole picture
    found = set()
    for seed in range(40):
        seed_generators(seed)
        image = transform(picture)
        image = image / 255 if image.dtype == torch.uint8 else image
        found |= {name for name, known in names.items() if torch.allclose(image, known, atol=1e-6)}
    assert found == expected


def test_rotations_stay_within_their_angle():
    """A bar through the middle is turned by at most the angle; corners show the mean."""
    picture = Image.new("RGB", (65, 65), "black")
    picture.paste("white", (30, 0, 35, 65))
    angles = []
    for degrees in (10.0, 45.0):
        transform = train_transform(65, **PLAIN, min_scale=1.0, geometry=Geometry(0, rotation=degrees))
        transform.steps.transforms[0].ratio = (1.0, 1.0)
        for seed in range(12):
            seed_generators(seed)
            row, column = np.nonzero(transform(picture)[0].numpy() > 0.5)
            low, high = column[row < 12].mean(), column[row > 52].mean()
            angles.append(abs(np.degrees(np.arctan((high - low) / (row[row > 52].mean() - row[row < 12].mean())))))
            assert angles[-1] <= degrees + 1
    assert max(angles[:12]) > 5
    assert max(angles[12:]) > 20


@pytest.mark.parametrize("loading", ["exact", "fast"])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_fast_loading_draws_the_same_geometry(loading, mode, tmp_path):
    import io

    buffer = io.BytesIO()
    marked(256, 64, 60).save(buffer, "JPEG", quality=95)
    geometry = Geometry(0.5, 0.5, crop_mode=mode)
    read = [
        train_transform((32, 64), **PLAIN, min_scale=0.5, loading=kind, geometry=geometry).read
        for kind in ("exact", loading)
    ]
    for seed in range(10):
        images = []
        for transform in read:
            seed_generators(seed)
            image = transform(buffer.getvalue(), "x.jpg")
            images.append(image / 255 if image.dtype == torch.uint8 else image)
        assert float((images[0] - images[1]).abs().max()) < 0.05
    with pytest.raises(ValueError, match=r"cannot add borders \(crop_mode=border\): take loading=exact"):
        train_transform(32, **PLAIN, loading="fast", geometry=Geometry(crop_mode="border"))


@pytest.mark.parametrize("mode", ["center", "border", "squash"])
@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_bands_go_the_way_of_colours(channels, mode):
    """The same crops and resizing as Pillow's of the same numbers, but for its rounding to 8 bits."""
    picture = noise(90, 60).convert("L")
    bands = F.to_tensor(picture).repeat(channels, 1, 1)
    mean, std = (0.3,) * channels, (0.5,) * channels
    colour = Image.merge("RGB", [picture] * 3)
    for size in ((48, 48), (32, 64)):
        expected = eval_transform(size, (0.3,) * 3, (0.5,) * 3, crop_mode=mode)(colour)[:1]
        found = eval_transform(size, mean, std, crop_mode=mode)(bands)
        assert found.shape == (channels, *size)
        assert float((found - expected).abs().max()) < 0.02
        trained = [
            train_transform(size, (0.3,) * c, (0.5,) * c, geometry=Geometry(0.5, 0.5, crop_mode=mode))
            for c in (channels, 3)
        ]
        for seed in range(3):
            seed_generators(seed)
            found = trained[0](bands)
            seed_generators(seed)
            assert float((found - trained[1](colour)[:1]).abs().max()) < 0.02
    with pytest.raises(ValueError, match=f"are for 3 channels, the network takes {channels}"):
        train_transform(32, mean, std, color_jitter=0.4)


def test_memory_stays_small_for_long_pictures():
    """1000 times as long as wide, scaled up to 512 pixels: the middle is cut out before."""
    long = Image.new("RGB", (4, 4000), "white")
    sizes = []
    transform = eval_transform((448, 448), **PLAIN)
    for step in transform.steps.transforms[:2]:
        long = step(long)
        sizes.append(long.size)
    assert sizes == [(4, 128), (512, 16384)]
    assert float(transform(Image.new("RGB", (4, 4000), "white")).min()) == 1


@pytest.mark.parametrize(
    ("picture", "channels", "says"),
    [
        (np.zeros((8, 8, 3), np.uint8), 3, r"not ndarray of shape \(8, 8, 3\) and type uint8"),
        (torch.zeros(3, 8, 8), 3, r"not Tensor of shape \(3, 8, 8\) and type torch\.float32"),
        (Image.new("L", (8, 8)), 3, "not one of mode L"),
        (Image.new("RGBA", (8, 8)), 3, "not one of mode RGBA"),
        ("photo.jpg", 3, "not str"),
        (Image.new("RGB", (8, 8)), 1, r"must be a float tensor \(1, H, W\) in 0\.\.1, not one of mode RGB"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), 1, "torch.uint8"),
        (torch.zeros(8, 8, 1), 1, r"not Tensor of shape \(8, 8, 1\)"),
    ],
)
def test_what_is_no_input_is_told_in_a_sentence(picture, channels, says):
    plain = {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    for transform in (eval_transform((16, 16), **plain), train_transform(16, **plain)):
        with pytest.raises(ValueError, match=says):
            transform(picture)
    check_picture(Image.new("RGB", (8, 8)) if channels == 3 else torch.zeros(1, 8, 8), channels)


def test_levels_and_background_travel_with_the_transform(tmp_path):
    Image.fromarray(np.full((8, 8), 2048, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    transform = eval_transform((8, 8), **PLAIN, max_value=4096.0, background=(51, 0, 255))
    assert transform.reading == Reading(3, 4096.0, (51, 0, 255))
    assert abs(float(transform.read(tmp_path / "deep.png").mean()) - 0.5) < 0.01
    torch.testing.assert_close(transform.read(tmp_path / "clear.png")[:, 0, 0], torch.tensor([0.2, 0.0, 1.0]))
