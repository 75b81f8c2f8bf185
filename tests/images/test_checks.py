"""What a file is by its content, and what is said of one that a vendor does not take."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_describer.errors import RejectedImage
from airflow_provider_describer.images.checks import MOST_PIXELS, check_content, check_head, media_type
from airflow_provider_describer.images.dimensions import measure
from airflow_provider_describer.vendors.segmind import Segmind


def box(major: bytes, *compatible: bytes, size: int | None = None) -> bytes:
    """The box that begins HEIC, AVIF and MP4 files, and the next one's head."""
    brands = major + bytes(4) + b"".join(compatible)
    return (8 + len(brands) if size is None else size).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x28meta"


def bmp(header: int) -> bytes:
    return b"BM" + (1000).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + header.to_bytes(4, "little")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
ILLUSTRATOR = (
    b'<?xml version="1.0"?>\r\n<!-- Generator: a > b -->\r\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" '
    b'"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd" [\r\n\t<!ENTITY ns_svg "http://www.w3.org/2000/svg">\r\n]>\r\n'
)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        (b"\xff\xd8\xff\xe1\0\x10Exif", "image/jpeg"),
        (b"\xff\xd8\xff\xe2\0\x58MPF\0", "image/jpeg"),  # MPO: phones' JPEG with a second picture
        (b"\xff\xd8\xff\xdb", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\x24\0\0\0WEBPVP8X", "image/webp"),
        (b"II*\0\x08\0\0\0", "image/tiff"),
        (b"MM\0*\0\0\0\x08", "image/tiff"),
        (b"II+\0\x08\0\0\0", "image/tiff"),  # BigTIFF
        (b"MM\0+\0\x08\0\0", "image/tiff"),
        *((bmp(size), "image/bmp") for size in (12, 40, 52, 56, 64, 108, 124)),
        (box(b"heic", b"mif1", b"heic"), "image/heic"),
        (box(b"mif1", b"mif1", b"heic"), "image/heic"),
        (box(b"msf1", b"hevc"), "image/heic"),
        (box(b"heix"), "image/heic"),
        (box(b"avif", b"mif1", b"miaf"), "image/avif"),
        (box(b"avis", b"msf1", b"miaf"), "image/avif"),  # a sequence
        (box(b"mif1", b"miaf", b"avif"), "image/avif"),
        (box(b"mif1", b"miaf"), "image/heif"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
        (b"\xff\x4f\xff\x51", "image/jp2"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
        (b"\xff\x0a\x00", "image/jxl"),
        (b"8BPS\0\x01", "image/vnd.adobe.photoshop"),
        (b"\0\0\x01\0\x01\0", "image/x-icon"),
        (SVG, "image/svg+xml"),
        (b"\xef\xbb\xbf" + SVG, "image/svg+xml"),
        (b"\n\t " + SVG, "image/svg+xml"),
        (b'<?xml version="1.0" standalone="no"?>' + SVG, "image/svg+xml"),
        (b"<!-- a > b --><!-- again -->" + SVG, "image/svg+xml"),
        (b"<!DOCTYPE svg>" + SVG, "image/svg+xml"),
        (b"<!doctype SVG>\n" + SVG, "image/svg+xml"),
        (b"\xef\xbb\xbf" + ILLUSTRATOR + SVG, "image/svg+xml"),
        (b"<svg:svg>", "image/svg+xml"),
        (b"%PDF-1.7", "application/pdf"),
        (b"<!DOCTYPE html><html>", "text/html"),
        (b"\r\n<!-- cached --><HTML lang='en'>", "text/html"),
        (b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "x">', "text/html"),
    ],
)
def test_the_type_is_read_from_the_content(head: bytes, kind: str) -> None:
    assert media_type(head) == kind


@pytest.mark.parametrize(
    "head",
    [
        b"BM is how this text begins",
        b"BMW sells cars in many colours",
        b"BM text, just " + (40).to_bytes(4, "little"),
        bmp(41),
        box(b"isom", b"mp42"),  # a film
        box(b"qt  "),
        box(b"isom", size=0),
        box(b"isom", size=0xFFFFFFFF),
        b"RIFF\x24\0\0\0WAVE",
        b"\xff\xd8",
        b"\x89PNG\r\n",
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        b"<!-- a comment without an end",
        b"<!DOCTYPE svg [ <!ENTITY a 'b'>",
        b"<svelte>",
        b'{"error": "not found"}',
        b"\0" * 64,
        b"x",
        b"",
    ],
)
def test_what_only_looks_like_an_image_is_none(head: bytes) -> None:
    assert media_type(head) is None


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "JPEG2000", "AVIF"])
def test_what_pillow_writes_is_recognised(draw: Callable[..., bytes], form: str) -> None:
    expected = {"ICO": "image/x-icon", "JPEG2000": "image/jp2"}.get(form, f"image/{form.lower()}")
    try:
        content = draw(3, form)
    except (KeyError, OSError) as error:
        pytest.skip(f"this Pillow writes no {form}: {error}")
    assert media_type(content[:4096]) == expected


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_content_is_too_strange(head: bytes) -> None:
    media_type(head)


@settings(deadline=None)
@given(
    start=st.sampled_from([b"", b"\0\0\0\x20ftyp", b"RIFF", b"BM", b"<?xml", b"<!--", b"<!DOCTYPE svg [", b"<svg"]),
    rest=st.binary(max_size=64),
)
def test_no_beginning_is_continued_too_strangely(start: bytes, rest: bytes) -> None:
    media_type(start + rest)


def test_a_long_run_of_comments_takes_no_time_to_speak_of() -> None:
    assert media_type(b"<!-- x -->" * 400 + b"<!--") is None
    assert media_type(b"<!DOCTYPE svg " + b"[" * 4000) is None
    assert media_type(b"<?" * 2000) is None


class Taker(Segmind):
    """A vendor with round limits."""

    media_types = frozenset({"image/jpeg", "image/png"})
    max_bytes = 10_000_000


def check(head: bytes, size: int | None = 5000) -> str:
    return check_head(Taker(), "s/a.jpg", head, size)


@pytest.mark.parametrize("size", [None, 1, 10_000_000])
def test_an_image_that_is_taken_has_its_type_told(size: int | None) -> None:
    assert check(b"\xff\xd8\xff\xe0", size) == "image/jpeg"


@pytest.mark.parametrize(
    ("head", "size", "kind", "says"),
    [
        (b"", 0, "empty", "0 bytes"),
        (b"", None, "empty", "0 bytes"),
        (b"\xff\xd8\xff\xe0", 0, "empty", "0 bytes"),
        (b"<html><body>404", 15, "not_an_image", "text/html, whatever its name says"),
        (b"%PDF-1.7", 900, "not_an_image", "application/pdf"),
        (b"BM is how this text begins", 26, "not_an_image", "begins with b'BM is how this t'"),
        (SVG, 41, "unsupported_type", "Segmind takes no image/svg+xml, only image/jpeg, image/png. Convert it first"),
        (box(b"heic"), 900, "unsupported_type", "image/heic"),
        (b"GIF89a", 900, "unsupported_type", "image/gif"),
        (b"\xff\xd8\xff\xe0", 10_000_001, "too_large", "10.0 MB that Segmind takes. Scale it down"),
        (b"\xff\xd8\xff\xe0", 60_000_000, "too_large", "60.0 MB"),
    ],
)
def test_each_reason_to_reject_names_the_image_and_the_way_out(
    head: bytes, size: int | None, kind: str, says: str
) -> None:
    with pytest.raises(RejectedImage, match=r"s/a\.jpg: ") as caught:
        check(head, size)
    assert caught.value.kind == kind
    assert says in str(caught.value)
    assert caught.value.billed == "no"


# --- with all of the bytes there ---


def written(picture: Image.Image, form: str, **options: object) -> bytes:
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def moving(form: str) -> bytes:
    pictures = [Image.new("RGB", (9, 7), colour) for colour in ("red", "green", "blue")]
    return written(pictures[0], form, save_all=True, append_images=pictures[1:])


def png(width: int, height: int, filling: int = 0) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"") + bytes(filling))
        + chunk(b"IEND", b"")
    )


def refused(content: bytes, form: str) -> RejectedImage:
    with pytest.raises(RejectedImage, match=r"^s/a\.jpg: ") as caught:
        check_content(Taker(), "s/a.jpg", content, f"image/{form.lower()}")
    assert caught.value.billed == "no"
    return caught.value


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_whole_image_passes_and_its_size_is_told(draw: Callable[..., bytes], form: str) -> None:
    for padding in (b"", bytes(3)):
        found = check_content(Taker(), "s/a.jpg", draw(3, form) + padding, f"image/{form.lower()}")
        assert (found.width, found.height, found.frames) == (32, 24, 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.95])
def test_an_image_that_is_cut_short_is_not_paid_for(draw: Callable[..., bytes], form: str, part: float) -> None:
    content = draw(4, form, (200, 160))
    error = refused(content[: int(len(content) * part)], form)
    assert error.kind == "corrupt"
    assert f"the image/{form.lower()} is damaged or cut short: " in str(error) and "export it again" in str(error)


@pytest.mark.parametrize("form", ["TIFF", "BMP"])
def test_a_type_that_cannot_be_measured_passes(draw: Callable[..., bytes], form: str) -> None:
    found = check_content(Taker(), "s/a.jpg", draw(3, form), f"image/{form.lower()}")
    assert (found.pixels, found.frames) == (None, 1)


def test_an_image_of_no_size_is_not_paid_for() -> None:
    error = refused(png(0, 0), "PNG")
    assert error.kind == "corrupt" and "its size is 0 x 0 pixels" in str(error)


@pytest.mark.parametrize(
    ("width", "height"), [(MOST_PIXELS + 1, 1), (13378, 13377), (50_001, 50_001), (2**31 - 1, 2**31 - 1)]
)
def test_an_image_of_too_many_pixels_is_not_paid_for(width: int, height: int) -> None:
    error = refused(png(width, height, 10_000_000), "PNG")
    assert error.kind == "too_many_pixels"
    assert f"{width} x {height} pixels" in str(error) and "Scale it down" in str(error)


def test_as_many_pixels_as_pillow_opens_are_taken() -> None:
    assert Image.MAX_IMAGE_PIXELS and 2 * Image.MAX_IMAGE_PIXELS == MOST_PIXELS
    assert check_content(Taker(), "a", png(10_000, 17_895), "image/png").pixels == 178_950_000


@pytest.mark.parametrize(
    ("width", "height", "filling", "taken"),
    [(60_000, 100, 0, False), (100, 60_000, 0, False), (60_000, 100, 6000, True), (50_000, 100, 0, True)],
)
def test_a_long_edge_must_be_backed_by_a_file_of_a_fitting_size(
    width: int, height: int, filling: int, taken: bool
) -> None:
    content = png(width, height, filling)
    if taken:
        assert check_content(Taker(), "a", content, "image/png").width == width
    else:
        error = refused(content, "PNG")
        assert error.kind == "too_many_pixels" and f"in a file of {len(content)} bytes" in str(error)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_an_animated_image_is_refused(form: str) -> None:
    error = refused(moving(form), form)
    assert error.kind == "animated"
    assert "Segmind does not say which picture of it would be described. Extract a frame" in str(error)
    assert measure(moving(form), f"image/{form.lower()}").frames > 1
    assert refused(moving(form)[:40], form).kind == "corrupt"
