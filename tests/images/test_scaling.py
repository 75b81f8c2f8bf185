"""Images made smaller: what is kept, what is left behind, and what is not touched at all."""

from __future__ import annotations

import io
import random
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, JpegImagePlugin, PngImagePlugin

from airflow_provider_describer.errors import BadInput, RejectedImage
from airflow_provider_describer.images.checks import media_type
from airflow_provider_describer.images.dimensions import measure
from airflow_provider_describer.images.scaling import (
    LONGEST_EDGE,
    preprocessing_of,
    require_pillow,
    scale_down,
    target_size,
)

SIZE = (120, 80)
SMALL = 2400
"""A quarter of those pixels: 60 x 40."""
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def corners(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture whose quarters tell where they are: red, green, blue and white, from the top left on."""
    width, height = size[0] // 2, size[1] // 2
    picture = Image.new("RGB", size, "white")
    picture.paste((255, 0, 0), (0, 0, width, height))
    picture.paste((0, 255, 0), (width, 0, size[0], height))
    picture.paste((0, 0, 255), (0, height, width, size[1]))
    return picture.convert(mode)


def written(picture: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def opened(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def kind_and_size(content: bytes) -> tuple[str | None, int | None, int | None]:
    measured = measure(content, media_type(content) or "")
    return media_type(content), measured.width, measured.height


def quarters(content: bytes) -> list[str]:
    picture = opened(content).convert("RGB")
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    found = []
    for down in (1, 3):
        for across in (1, 3):
            pixel = picture.getpixel((picture.width * across // 4, picture.height * down // 4))
            assert isinstance(pixel, tuple)
            found.append(names[pixel[0] // 128, pixel[1] // 128, pixel[2] // 128])
    return found


@pytest.mark.parametrize(("form", "mode"), [("JPEG", "RGB"), ("PNG", "RGBA"), ("GIF", "P"), ("WEBP", "RGB")])
@pytest.mark.parametrize("limit", [SIZE[0] * SIZE[1], 1_000_000])
def test_an_image_that_is_small_enough_is_not_touched(form: str, mode: str, limit: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = written(corners(mode), form, exif=exif) + b"\0padding"
    found = scale_down(content, limit)
    assert found == content
    assert kind_and_size(found) == (f"image/{form.lower()}", *SIZE)


def test_an_image_that_is_small_enough_needs_no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(corners())
    monkeypatch.setattr("airflow_provider_describer.images.scaling.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert scale_down(content, 1_000_000) == content
    with pytest.raises(BadInput, match=r"airflow-provider-describer\[scaling\]"):
        scale_down(content, SMALL)
    with pytest.raises(BadInput, match="leave max_pixels out"):
        require_pillow()


def test_pillow_is_found_where_it_is() -> None:
    require_pillow()


@pytest.mark.parametrize(
    ("form", "mode", "becomes", "mode_then"),
    [
        ("JPEG", "RGB", "JPEG", "RGB"),
        ("JPEG", "L", "JPEG", "L"),
        ("JPEG", "CMYK", "JPEG", "CMYK"),
        ("PNG", "RGB", "JPEG", "RGB"),
        ("PNG", "L", "JPEG", "L"),
        ("PNG", "1", "JPEG", "L"),
        ("PNG", "P", "JPEG", "RGB"),
        ("PNG", "I;16", "JPEG", "L"),
        ("PNG", "RGBA", "PNG", "RGBA"),
        ("PNG", "LA", "PNG", "LA"),
        ("WEBP", "RGB", "JPEG", "RGB"),
        ("GIF", "P", "JPEG", "RGB"),
    ],
)
def test_a_large_image_becomes_a_small_one(form: str, mode: str, becomes: str, mode_then: str) -> None:
    content = written(corners() if mode == "I;16" else corners(mode), form)
    if mode == "I;16":
        content = written(Image.new("I;16", SIZE, 0x8000), form)
    found = scale_down(content, SMALL)
    picture = opened(found)
    assert (picture.format, picture.mode, picture.size) == (becomes, mode_then, (60, 40))
    assert kind_and_size(found) == (f"image/{becomes.lower()}", 60, 40)
    assert measure(found, f"image/{becomes.lower()}").flaw is None
    if mode_then in ("RGB", "CMYK", "RGBA"):
        assert quarters(found) == ["red", "green", "blue", "white"]


def test_sixteen_bits_of_grey_are_not_cut_off() -> None:
    ramp = Image.frombytes("I;16", (256, 64), b"".join((x << 8).to_bytes(2, "little") for x in range(256)) * 64)
    small: Any = opened(scale_down(written(ramp, "PNG"), 2048))
    darkest, lightest = small.getextrema()
    assert darkest < 15 and lightest > 240
    # Cut off at 255, all but the first column would be white.
    assert 100 < small.getpixel((small.width // 2, 5)) < 156


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_stays_transparent(form: str) -> None:
    picture = corners().quantize(8)
    found = scale_down(written(picture, form, transparency=picture.getpixel((0, 0))), SMALL)
    assert media_type(found) == "image/png"
    small = opened(found)
    assert small.mode == "RGBA"
    assert [small.getpixel((x, 5))[3] for x in (5, 55)] == [0, 255]  # type: ignore[index]


@pytest.mark.parametrize(("mode", "mode_then"), [("RGB", "RGBA"), ("L", "LA")])
def test_a_transparent_colour_without_a_palette_stays_transparent(mode: str, mode_then: str) -> None:
    picture = corners(mode)
    small = opened(scale_down(written(picture, "PNG", transparency=picture.getpixel((0, 0))), SMALL))
    assert small.mode == mode_then
    assert [small.getchannel("A").getpixel((x, 5)) for x in (5, 55)] == [0, 255]


# How a camera was held, and what the eight ways make of the picture that was meant.
HELD = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", HELD)
def test_a_picture_is_turned_upright(form: str, orientation: int) -> None:
    turn = HELD[orientation]
    stored = corners() if turn is None else corners().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = scale_down(written(stored, form, exif=exif), SMALL)
    assert opened(found).size == (60, 40)
    assert quarters(found) == ["red", "green", "blue", "white"]
    assert not opened(found).getexif()


@pytest.mark.parametrize("broken", [b"MM\0*\0\0\xff\xff", b"nonsense", b"", b"II*\0\x08\0\0\0\x09\0"])
def test_broken_exif_is_no_reason_to_refuse(broken: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert opened(scale_down(written(corners(), exif=b"Exif\0\0" + broken), SMALL)).width == 60


def secretive(form: str) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    exif.get_ifd(0x8825)[1] = "N"
    options: dict[str, Any] = {"exif": exif, "icc_profile": SRGB, "xmp": b"<x:xmpmeta>SECRET</x:xmpmeta>"}
    if form == "JPEG":
        options["comment"] = "SECRET"
    if form == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Author", "SECRET")
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", "SECRET")
    return written(corners("RGBA" if form == "PNG" else "RGB"), form, **options)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_only_the_colour_profile_is_kept_of_what_lies_beside_a_picture(form: str) -> None:
    content = secretive(form)
    assert b"SECRET" in content
    found = scale_down(content, SMALL)
    small = opened(found)
    assert b"SECRET" not in found and b"Exif" not in found and b"eXIf" not in found
    assert small.info.get("icc_profile") == SRGB
    assert not {"exif", "xmp", "comment", "XML:com.adobe.xmp", "Author"} & set(small.info)


def test_a_photograph_is_decoded_no_larger_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(corners(size=(1600, 1200)))
    decoded = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def remember(self: Any, mode: Any, size: Any) -> Any:
        found = draft(self, mode, size)
        decoded.append(self.size)
        return found

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", remember)
    for limit, expected in ((120_000, (400, 300)), (100_000, (400, 300)), (130_000, (800, 600))):
        scale_down(content, limit)
        assert decoded.pop() == expected


def test_of_an_animation_the_first_picture_is_taken() -> None:
    moving = written(corners(), "GIF", save_all=True, append_images=[Image.new("RGB", SIZE, "black")])
    assert quarters(scale_down(moving, SMALL)) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("part", [0.4, 0.9])
def test_an_image_that_is_cut_short_is_corrupt(form: str, part: float) -> None:
    noise = Image.frombytes("RGB", SIZE, random.Random(1).randbytes(3 * SIZE[0] * SIZE[1]))
    content = written(noise, form)
    with pytest.raises(RejectedImage, match=r"s/a\.jpg: the image/\w+ cannot be decoded") as caught:
        scale_down(content[: int(len(content) * part)], SMALL, uri="s/a.jpg")
    assert (caught.value.kind, caught.value.billed) == ("corrupt", "no")
    assert "/a.jpg" in str(caught.value) and "Fetch or export it again" in str(caught.value)


def test_damage_in_the_middle_of_a_png_is_seen() -> None:
    content = bytearray(written(Image.frombytes("L", SIZE, random.Random(1).randbytes(9600)), "PNG"))
    content[3000:3100] = bytes(100)
    with pytest.raises(RejectedImage) as caught:
        scale_down(bytes(content), SMALL)
    assert caught.value.kind == "corrupt"


RAISED = [
    OSError,
    ValueError,
    SyntaxError,
    struct.error,
    zlib.error,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    RecursionError,
    OverflowError,
    ZeroDivisionError,
    AssertionError,
    NotImplementedError,
    UnicodeDecodeError,
    UserWarning,
    ImportError,
]
"""What an image library raises, of which each says something about one image only."""
STEPS = [
    (PngImagePlugin.PngImageFile, "_open"),
    (ImageFile.ImageFile, "load"),
    (Image.Image, "convert"),
    (Image.Image, "resize"),
    (Image.Image, "save"),
]


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize(("owner", "step"), STEPS)
def test_whatever_pillow_raises_is_about_one_image(
    monkeypatch: pytest.MonkeyPatch, owner: type, step: str, raised: type[Exception]
) -> None:
    content = written(corners().quantize(8), "PNG", icc_profile=SRGB)
    about = ("utf-8", b"x", 0, 1, "why") if raised is UnicodeDecodeError else ("why",)

    def fail(*_: object, **__: object) -> None:
        raise raised(*about)

    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(RejectedImage, match=r"^s/a\.png: ") as caught:
        scale_down(content, SMALL, uri="s/a.png")
    assert caught.value.billed == "no" and caught.value.__cause__ is None
    if raised is MemoryError:
        assert caught.value.kind == "no_memory"
    else:
        assert caught.value.kind == "corrupt" and "why" in str(caught.value)
        # Where it opens a file, Pillow itself makes a SyntaxError of some classes.
        assert raised.__name__ in str(caught.value) or step == "_open"
        assert ("scaled down" if step == "save" else "decoded") in str(caught.value)


@pytest.mark.parametrize("size", [(100_000, 40), (40, 100_000), (1_000_000, 3), (1, 3_000_000), (70_000, 2_000)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_strip_is_scaled_to_what_can_be_written(size: tuple[int, int], mode: str) -> None:
    small = opened(scale_down(written(Image.new(mode, size), "PNG", compress_level=1), 2_000_000))
    assert small.size == target_size(*size, 2_000_000)
    assert max(small.size) <= LONGEST_EDGE and min(small.size) >= 1


def test_a_profile_that_no_printer_has_is_left_out() -> None:
    for size, kept in ((3_000_000, True), (4_000_001, False), (260 * 65_520, False)):
        content = written(corners("RGB"), "WEBP", icc_profile=random.Random(1).randbytes(size))
        small = opened(scale_down(content, SMALL))
        assert small.size == (60, 40) and ("icc_profile" in small.info) is kept


HEIC = b"\0\0\0\x18ftypheic" + bytes(50)


@pytest.mark.parametrize("content", [b"", b"no image", b"II*\0" + bytes(90), HEIC, b"<svg/>"])
def test_what_cannot_be_scaled_names_what_can(content: bytes) -> None:
    with pytest.raises(RejectedImage, match="cannot be scaled down, only image/gif, image/jpeg") as caught:
        scale_down(content, SMALL)
    assert caught.value.kind == "unsupported_type"


def bomb(width: int, height: int) -> bytes:
    content = bytearray(written(Image.new("L", (1, 1)), "GIF"))
    content[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(content)


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(RejectedImage, match="65535 x 65535 pixels") as caught:
        scale_down(bomb(65535, 65535), SMALL)
    assert caught.value.kind == "too_many_pixels"


def test_what_the_process_says_of_bombs_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(corners())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kind_and_size(scale_down(content, SMALL)) == ("image/jpeg", 60, 40)
    assert Image.MAX_IMAGE_PIXELS == 100 and not ImageFile.LOAD_TRUNCATED_IMAGES


def test_the_original_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(written(corners()))
    before = path.stat()
    content = path.read_bytes()
    copy = bytes(content)
    scale_down(content, SMALL)
    assert content == copy and path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_same_image_is_scaled_to_the_same_bytes_in_every_thread() -> None:
    content = written(corners(size=(900, 700)))
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(scale_down(content, SMALL))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


@example(width=243, height=243, limit=1024)
@given(width=st.integers(1, 70_000), height=st.integers(1, 70_000), limit=st.integers(1024, 10**8))
def test_the_new_size_is_the_largest_of_the_same_shape(width: int, height: int, limit: int) -> None:
    wide, tall = target_size(width, height, limit)
    assert 1 <= wide <= width and 1 <= tall <= height
    assert wide * tall <= limit
    if width * height <= limit:
        assert (wide, tall) == (width, height)
    elif max(wide, tall) == LONGEST_EDGE:
        # Held by what can be written: as near to the old shape as whole pixels allow.
        assert (min(wide, tall) - 1) * max(width, height) <= LONGEST_EDGE * min(width, height)
    elif min(wide, tall) > 1:
        assert (wide + 1) * (tall + 1) > limit
        # As near to the old shape as whole pixels allow.
        assert abs(wide * height - tall * width) <= max(width, height)


@settings(deadline=None, max_examples=60)
@given(width=st.integers(1, 2000), height=st.integers(1, 60), limit=st.integers(1024, 5000))
def test_any_shape_is_scaled(width: int, height: int, limit: int) -> None:
    found = scale_down(written(Image.new("L", (width, height), 99), "PNG"), limit)
    assert opened(found).size == target_size(width, height, limit)


def test_what_is_done_to_an_image_is_part_of_what_is_asked() -> None:
    assert preprocessing_of(1024) == "max_pixels=1024"
    assert preprocessing_of(2_000_000) == "max_pixels=2000000"
    assert preprocessing_of(None) == ""


@pytest.mark.parametrize("bad", [1023, 0, -1, True, False, 2e6, 2048.0, float("nan"), "2000000", "", [], (2048, 2048)])
def test_a_limit_that_is_none_is_refused(bad: Any) -> None:
    with pytest.raises(BadInput, match=r"max_pixels is .*expected a whole number of at least 1024"):
        preprocessing_of(bad)
    with pytest.raises(BadInput, match="width times height"):
        scale_down(written(corners()), bad)
