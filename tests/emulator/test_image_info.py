from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from airflow_provider_describer.emulator.image_info import COLOURS, ImageRefusedError, main_colours, measure


def save(image: Image.Image, form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_size_and_format_are_those_of_the_file(form: str) -> None:
    info = measure(save(Image.new("RGB", (2000, 1000), (20, 30, 90)), form), "0" * 64)
    assert (info.format, info.width, info.height) == (form, 2000, 1000)
    assert (info.colours, info.orientation) == (("navy",), "landscape")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_can_be_measured(mode: str) -> None:
    form = "TIFF" if mode in ("CMYK", "I", "F") else "PNG"
    info = measure(save(Image.new(mode, (40, 40)), form), "0" * 64)
    assert info.orientation == "square"


def test_what_is_transparent_counts_as_white() -> None:
    info = measure(save(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG"), "0" * 64)
    assert (info.colours, info.brightness) == (("white",), 100)


def test_a_phones_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    first, second = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    info = measure(save(first, "MPO", save_all=True, append_images=[second]), "0" * 64)
    assert (info.format, info.media_type) == ("JPEG", "image/jpeg")


def test_noise_is_sharper_than_one_colour() -> None:
    noise = measure(save(Image.effect_noise((100, 100), 90), "PNG"), "0" * 64)
    assert noise.sharpness > measure(save(Image.new("L", (100, 100), 120), "PNG"), "0" * 64).sharpness


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0, 10, 0.3, 0.9])
def test_a_part_of_an_image_is_unreadable(form: str, part: float, noise: Callable[..., bytes]) -> None:
    whole = noise(form)
    cut = whole[: part if isinstance(part, int) else int(len(whole) * part)]
    with pytest.raises(ImageRefusedError):
        measure(cut, "0" * 64)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff\xe0", b"<svg/>", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"])
def test_anything_else_is_unreadable(data: bytes) -> None:
    with pytest.raises(ImageRefusedError):
        measure(data, "0" * 64)


def test_an_enormous_image_is_refused_before_it_is_decoded() -> None:
    bomb = save(Image.new("1", (20_000, 20_000)), "PNG")
    with warnings.catch_warnings(), pytest.raises(ImageRefusedError):
        measure(bomb, "0" * 64)


def test_every_colour_is_its_own_name() -> None:
    named = {name: main_colours(Image.new("RGB", (9, 9), colour)) for name, colour in COLOURS.items()}
    assert named == {name: (name,) for name in COLOURS}


def test_colours_are_named_by_how_much_they_cover() -> None:
    image = Image.new("RGB", (48, 48), "white")
    image.paste(COLOURS["navy"], (0, 0, 48, 12))
    image.paste(COLOURS["red"], (0, 12, 48, 18))
    image.paste(COLOURS["teal"], (0, 18, 48, 20))
    assert main_colours(image) == ("white", "navy", "red")
