"""PDQ hashes: the reference's to the bit, near each other for versions of a picture, far apart for different ones."""

import io
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.media.decode import decode
from indexer.media.pdq import HASH_BYTES, MATCH_DISTANCE, MIN_QUALITY, Turn, distance, pdq, pdq_dihedral

MEDIA = Path(__file__).resolve().parents[3] / "examples" / "media"

# Made by Facebook's own C++ code, through pdqhash 0.2.8, of the same pixels.
REFERENCE = {
    "admiral.jpg": "cc6c7cb9fbf7c44f31837672900233f3ffd9d012223ccdf561606309dd97c020",
    "astronaut.jpg": "2d6f1af3a956c529c79ca3d2526fa834d4196c81cedd04de0a26b855fc99b724",
    "bricks.bmp": "ffd785cba2085b4927073aa0c6427962f7bc08c7cd30d3df2ba755569c6941c8",
    "cat.jpg": "5feb5321f01da156898e2b7629a5d343c412cdbd23f48942464526315db33ffd",
    "coffee.webp": "8c629e779a663698b9a33866c026726c21a679f61eb6e1f8c79ba7e23c8299e0",
    "coins.png": "8ee552196df86aa552b514e6e505e0319aeb1aaea4a5d935dd4a675a1a56a555",
    "flower.heic": "673966dcb772a66499a69a666196a9476599a21b9649a659596624b3e58ea693",
    "galaxies.jpg": "1c6715e46266634f72d42df2324ad397e70e86be9c665c59a42ec19c3369b919",
    "grass.webp": "4d9744ef90f2838aad8cc465c8d3a1f626c43658a77772688de63daa09c38bb7",
    "gravel.jpg": "375218165ce0e0a1f2a59bdf68d152f73a3c1633f49237023656fbae561c8177",
    "moon.gif": "131645cde366d981e1e371b264d8b25b9e4d13771d8c4f366d946ca57133d0c9",
    "pagoda.jpg": "bf18cef3407e8678e6833b1937d14066988e5cd2046eac5f783103f157abf50e",
    "photographer.tif": "dc9c9d3b746978f888f40ce6e5c3f70f7266623e8d989cb99f21f2010841e1c7",
    "raccoon.avif": "b5926c328b776bdb2c4c4434439758c31a6d4d9d34ce331313ed78ea1c3bc7c4",
    "retina.jpg": "83d22b5802d238191b87b1f8bf1ad487fc0f55f8405adc011fafa8f4ebfc2a59",
    "rocket.jpg": "8792786c87937064bf1bc0e43f1fc0e03f1cc2e33da4c2537cec821b2ce4f376",
    "stairs.png": "f9cfaee2039c1555e5bab477d399a4fe5d332985d506d48a02794b2017b19e03",
}
LOSSLESS = {"bricks.bmp", "coins.png", "moon.gif", "stairs.png"}
TEXTURES = {"bricks.bmp", "grass.webp", "gravel.jpg"}
"""Fine grain without large shapes: all of it lies near the median, and their hashes bear little change."""
PHOTOS = sorted(set(REFERENCE) - TEXTURES)
MADE = {
    (7, 300): ("692d96d2692d6a9594da6d291ad4952a6ad54d29952a6ad5e52b92d6692dc4db", 100),
    (64, 64): ("1a5914a72daddb2ab5526a55d4bd392962438caa7156ce2559c9d333b467a35c", 100),
    (63, 64): ("8a5952b7a5ad49aa95422a55d6bd392962438caa7152ce3559cd53339567e75c", 100),
    (100, 33): ("b6ab34aa6d44da55b4b569ab9d6a225594a53965cacb3112c6251d99b333666e", 100),
    (129, 700): ("e3c0cf00ebf88f406ff0ef98ffe0ffe8ff80ff88f780ffe8f580df8040000000", 100),
    (512, 512): ("fff0fff9fff8ffff07800000fff01040fef0bea0fffc5e287e7018201c000000", 100),
    (1023, 640): ("ff5e52a152a1b6a8fea5f6c9ffa9fea47ea1b600dea03600fea136007ea13400", 100),
}
TURNED = {
    Turn.ORIGINAL: "b5926c328b776bdb2c4c4434439758c31a6d4d9d34ce331313ed78ea1c3bc7c4",
    Turn.ROTATED_90: "a631a8bad8b47e4179d6339c33b94da6936dc652648e09ad18eed116f336cc25",
    Turn.ROTATED_180: "e0c7c698de22c17179196e9e16c2f0694f38e737e39b11b946b8d240496e6d6e",
    Turn.ROTATED_270: "f36402108d61d4eb2c83993266ece70cc6386cf831dba3074dbb7bbca663668f",
    Turn.FLIPPED_TOP_BOTTOM: "b59293cd8b7794242c4c3bcbc397a53c1a6db262b6ce44ec13ed83151c3b383b",
    Turn.FLIPPED_LEFT_RIGHT: "e0c73967de223e8e7919916196c20f966f3818c8e39bee4646b82dbf496e9291",
    Turn.TRANSPOSED: "a0015745d83481be79c6cc633299b259936d39ad648ef65218ee2ee9f33633da",
    Turn.TRANSVERSED: "f164fdef8d612b142c8366c966ec18f3c638930731db5cf84dbb8443a6639970",
}
TRANSPOSED = {
    Turn.ROTATED_90: Image.Transpose.ROTATE_90,
    Turn.ROTATED_180: Image.Transpose.ROTATE_180,
    Turn.ROTATED_270: Image.Transpose.ROTATE_270,
    Turn.FLIPPED_TOP_BOTTOM: Image.Transpose.FLIP_TOP_BOTTOM,
    Turn.FLIPPED_LEFT_RIGHT: Image.Transpose.FLIP_LEFT_RIGHT,
    Turn.TRANSPOSED: Image.Transpose.TRANSPOSE,
    Turn.TRANSVERSED: Image.Transpose.TRANSVERSE,
}


def picture(name: str) -> Image.Image:
    return decode((MEDIA / name).read_bytes(), max_pixels=10**8).image


def made(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    bands = [(x * x // 7 + 3 * y) % 256, (x * y // 5) % 256, (7 * x + y * y // 3) % 256]
    return Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))


def recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def cropped(image: Image.Image) -> Image.Image:
    """By a hundredth at each edge."""
    left, top = round(0.01 * image.width), round(0.01 * image.height)
    return image.crop((left, top, image.width - left, image.height - top))


def brightened(image: Image.Image) -> Image.Image:
    return image.point(lambda value: min(255, int(value * 1.1)))


@pytest.mark.parametrize("name", REFERENCE)
def test_hashes_are_those_of_the_reference(name: str) -> None:
    found, quality = pdq(picture(name))
    # Decoders of lossy formats may differ in the last bit of a pixel from one release to the next.
    assert distance(found, bytes.fromhex(REFERENCE[name])) <= (0 if name in LOSSLESS else 2)
    assert quality == (83 if name == "moon.gif" else 100)


@pytest.mark.parametrize("size", MADE, ids=lambda size: f"{size[0]}x{size[1]}")
def test_any_size_and_shape_is_hashed_as_the_reference_does(size: tuple[int, int]) -> None:
    found, quality = pdq(made(*size))
    expected, its_quality = MADE[size]
    assert distance(found, bytes.fromhex(expected)) <= 2
    assert quality == its_quality


def test_the_eight_turns_are_those_of_the_reference() -> None:
    found, quality = pdq_dihedral(picture("raccoon.avif"))
    assert quality == 100
    assert {turn: distance(found[turn], bytes.fromhex(TURNED[turn])) <= 2 for turn in Turn} == dict.fromkeys(Turn, True)


@pytest.mark.parametrize("turn", TRANSPOSED)
def test_a_turn_is_what_its_name_says(turn: Turn) -> None:
    image = picture("pagoda.jpg")
    hashes, _ = pdq_dihedral(image)
    turned, _ = pdq(image.transpose(TRANSPOSED[turn]))
    assert distance(turned, hashes[turn]) <= MATCH_DISTANCE
    assert all(distance(turned, hashes[other]) > MATCH_DISTANCE for other in set(Turn) - {turn})


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("change", [recompressed, halved, cropped, brightened])
def test_a_changed_version_is_the_same_picture(name: str, change: object) -> None:
    image = picture(name)
    assert distance(pdq(image)[0], pdq(change(image))[0]) <= MATCH_DISTANCE  # type: ignore[operator]


@pytest.mark.parametrize("name", REFERENCE)
def test_a_turned_picture_is_another_one(name: str) -> None:
    image = picture(name)
    for turn in TRANSPOSED.values():
        assert distance(pdq(image)[0], pdq(image.transpose(turn))[0]) > MATCH_DISTANCE


def test_different_pictures_are_far_apart() -> None:
    hashes = [pdq(picture(name))[0] for name in REFERENCE]
    assert min(distance(one, other) for one, other in combinations(hashes, 2)) > 2 * MATCH_DISTANCE


@pytest.mark.parametrize("name", ["raccoon.avif", "retina.jpg", "pagoda.jpg"])
def test_a_jpeg_decoded_at_a_reduced_scale_has_nearly_the_same_hash(name: str) -> None:
    large = picture(name).resize((4000, 3001), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    large.save(file, "JPEG", quality=90)
    whole = decode(file.getvalue(), max_pixels=10**8).image
    reduced = decode(file.getvalue(), target=260, max_pixels=10**8).image
    assert reduced.width < 1100
    assert distance(pdq(whole)[0], pdq(reduced)[0]) <= MATCH_DISTANCE // 2


@pytest.mark.parametrize("size", [(300, 200), (2, 500), (4, 4), (1, 1)])
def test_a_flat_or_tiny_picture_is_of_no_quality(size: tuple[int, int]) -> None:
    found, quality = pdq(Image.new("RGB", size, (20, 90, 30)))
    assert quality == 0
    assert len(found) == HASH_BYTES
    if min(size) < 5:
        assert found == bytes(HASH_BYTES)
        assert set(pdq_dihedral(Image.new("RGB", size))[0].values()) == {bytes(HASH_BYTES)}


def test_a_faint_gradient_is_below_the_quality_that_means_anything() -> None:
    ramp = np.linspace(100, 140, 400).astype(np.uint8)
    assert pdq(Image.fromarray(np.tile(ramp, (300, 1))))[1] < MIN_QUALITY


def test_other_modes_are_hashed_as_the_rgb_they_stand_for() -> None:
    grey = picture("photographer.tif").convert("L")
    assert pdq(grey) == pdq(grey.convert("RGB"))


@pytest.mark.parametrize("size", [(60_000, 8), (5, 30_000)])
def test_a_very_long_picture_is_hashed_as_a_shorter_one(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    short = Image.fromarray(noise).resize((500, 500), Image.Resampling.BICUBIC)
    long = short.resize(size, Image.Resampling.BOX).convert("RGB")
    squeezed = long.resize((min(size[0], 500), min(size[1], 500)), Image.Resampling.BOX)
    assert distance(pdq(long)[0], pdq(squeezed)[0]) <= MATCH_DISTANCE


def test_threads_get_the_same_hashes() -> None:
    images = [made(width, 400) for width in range(300, 340)]
    alone = [pdq(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(pdq, images)) == alone
