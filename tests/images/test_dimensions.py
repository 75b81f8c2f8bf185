"""What headers say of an image, judged by Pillow, which decodes it; and files that are cut, padded or made to harm."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_describer.errors import RejectedImage
from airflow_provider_describer.images.dimensions import Measured, measure
from airflow_provider_describer.images.png import readable_png
from airflow_provider_describer.images.scaling import scale_down

WIDTH, HEIGHT = 61, 43
MODES = {
    "JPEG": ["L", "RGB", "CMYK"],
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "GIF": ["1", "L", "P", "RGB", "RGBA"],
    "WEBP": ["L", "RGB", "RGBA"],
}
# An EXIF block with a thumbnail in it, which is a whole JPEG with an end of its own.
WAYS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [
        {},
        {"progressive": True},
        {"quality": 100, "subsampling": 0},
        {"restart_marker_blocks": 2},
        {"exif": True},
        {"icc_profile": bytes(150_000)},
        {"comment": b"\xff\xd9\xff\xda"},
    ],
    "PNG": [{}, {"compress_level": 0}, {"exif": True}, {"icc_profile": b"IEND"}],
    "GIF": [{}, {"interlace": 0}, {"comment": b"!,;" * 200}],
    "WEBP": [{}, {"lossless": True}, {"exif": True}],
}
CASES = [(form, mode, number) for form, modes in MODES.items() for mode in modes for number in range(len(WAYS[form]))]


def noise(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> Image.Image:
    if mode == "I;16":
        return Image.frombytes(mode, size, random.Random(seed).randbytes(2 * size[0] * size[1]))
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1])).convert(mode)


def written(picture: Image.Image, form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


@cache
def sample(form: str, mode: str = "RGB", number: int = 0) -> bytes:
    options = dict(WAYS[form][number])
    if options.get("exif"):
        exif = Image.Exif()
        exif[0x010E] = "holiday"
        options["exif"] = exif.tobytes() + written(noise("RGB", (32, 32)), "JPEG")
    return written(noise(mode), form, **options)


def decoded(content: bytes) -> bytes | None:
    """The pixels, or None where Pillow cannot tell them all."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            return picture.tobytes()
    except (OSError, SyntaxError, ValueError, IndexError, struct.error):
        return None


def kind_of(form: str) -> str:
    return f"image/{form.lower()}"


@pytest.mark.parametrize(("form", "mode", "number"), CASES)
def test_a_whole_image_is_measured_and_has_no_flaw(form: str, mode: str, number: int) -> None:
    for tail in (b"", b"\0", b"\n", b"\0" * 700, b"SEFH and more", b"\xff\xd8\xff\xe0\0\x10"):
        content = sample(form, mode, number) + tail
        assert decoded(content) is not None, tail
        assert measure(content, kind_of(form)) == Measured(WIDTH, HEIGHT, 1, None), tail


@settings(deadline=None, max_examples=400)
@given(case=st.sampled_from(CASES), where=st.floats(0, 1, exclude_max=True))
@example(case=("JPEG", "RGB", 4), where=0.3)
def test_no_cut_that_loses_image_data_goes_unseen(case: tuple[str, str, int], where: float) -> None:
    content = sample(*case)
    part = content[: int(len(content) * where)]
    if measure(part, kind_of(case[0])).flaw is None:
        assert decoded(part) == decoded(content)


@pytest.mark.parametrize("form", MODES)
def test_no_cut_of_the_end_goes_unseen(form: str) -> None:
    content = sample(form)
    unseen = [cut for cut in range(1, 200) if measure(content[:-cut], kind_of(form)).flaw is None]
    # A GIF's trailer says nothing: many have none, and every program shows them.
    assert unseen == ([1] if form == "GIF" else [])
    assert all(decoded(content[:-cut]) == decoded(content) for cut in unseen)


@pytest.mark.parametrize("form", MODES)
def test_a_file_that_was_given_its_full_size_before_its_download_broke_off_is_not_whole(form: str) -> None:
    content = sample(form)
    half = content[: len(content) // 2]
    found = measure(half + bytes(len(content) - len(half)), kind_of(form))
    # A RIFF file's size is all there is to see.
    assert bool(found.flaw) == (form != "WEBP")


def test_the_end_of_a_thumbnail_is_not_the_images() -> None:
    content = sample("JPEG", "RGB", 4)
    assert content.count(b"\xff\xd9") == 2
    assert measure(content[:-2], "image/jpeg").flaw == "it ends before its picture does (no end marker)"


def test_pictures_behind_the_first_are_not_looked_at() -> None:
    content = written(noise(), "MPO", save_all=True, append_images=[noise("RGB", (20, 10))])
    assert measure(content, "image/jpeg") == Measured(WIDTH, HEIGHT)
    assert measure(content[:-100], "image/jpeg").flaw is None, "the second one is cut, which is not read"


TRAILERS = [b"SEFH and more", bytes(700), b"\xff\xe0\0\x10" + b"ab" * 70, b"\0" * 20 + b"SEFH" * 9, b"\xff" * 300]
PLAIN_JPEGS = [number for number, way in enumerate(WAYS["JPEG"]) if not way.get("progressive")]


@pytest.mark.parametrize("mode", MODES["JPEG"])
@pytest.mark.parametrize("number", PLAIN_JPEGS)
@pytest.mark.parametrize("trailer", TRAILERS[:-1])
def test_a_jpeg_with_a_trailer_in_place_of_its_end_is_whole_if_decoders_show_it(
    mode: str, number: int, trailer: bytes
) -> None:
    whole = sample("JPEG", mode, number)
    content = whole[:-2] + trailer
    assert decoded(content) == decoded(whole)
    assert measure(content, "image/jpeg") == Measured(WIDTH, HEIGHT)


@pytest.mark.parametrize("form", MODES["JPEG"])
@pytest.mark.parametrize("number", range(len(WAYS["JPEG"])))
@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_cut_jpeg_is_not_made_whole_by_a_trailer(form: str, number: int, trailer: bytes, part: float) -> None:
    whole = sample("JPEG", form, number)
    scan = whole.rfind(b"\xff\xda")
    content = whole[: scan + int((len(whole) - scan) * part)] + trailer
    assert measure(content, "image/jpeg").flaw == "it ends before its picture does (no end marker)"


def test_without_pillow_a_jpeg_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.JpegImagePlugin", None)
    assert measure(sample("JPEG")[:-2] + TRAILERS[0], "image/jpeg").flaw


@pytest.mark.parametrize("mode", MODES["GIF"])
@pytest.mark.parametrize("number", range(len(WAYS["GIF"])))
@pytest.mark.parametrize("trailer", [b"junk", bytes(90), b"\xff" * 9, b"\r\n"])
def test_a_gif_with_a_trailer_in_place_of_its_end_is_whole(mode: str, number: int, trailer: bytes) -> None:
    whole = sample("GIF", mode, number)
    assert measure(whole[:-1] + trailer, "image/gif") == Measured(WIDTH, HEIGHT)
    for part in (0.5, 0.9):
        half = whole[: int(len(whole) * part)] + bytes(600)
        assert measure(half + trailer, "image/gif").flaw == "it ends before its picture does"


def png_chunk(name: bytes, body: bytes, *, crc: int | None = None) -> bytes:
    crc = zlib.crc32(name + body) if crc is None else crc
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


ODD_CHUNKS = [
    png_chunk(b"iTXt", b"Comment\0\x01\0\0\0" + zlib.compress(bytes(3_000_000))),
    png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(70_000_000))),
    png_chunk(b"zTXt", b"Comment\0\0not zlib"),
    png_chunk(b"tEXt", b"Comment\0" + bytes(2_000_000)),
    png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000))),
    png_chunk(b"iCCP", b"profile\0\0not zlib"),
    png_chunk(b"iCCP", b"profile"),
    png_chunk(b"eXIf", b"nonsense"),
    png_chunk(b"tEXt", b"Comment\0x", crc=7),
    png_chunk(b"pHYs", b"\0"),
    png_chunk(b"cHRM", bytes(7)),
    png_chunk(b"gAMA", b""),
    png_chunk(b"tRNS", b"\0"),
    png_chunk(b"acTL", b"\0"),
    png_chunk(b"fcTL", b"\0"),
    png_chunk(b"prVt", b"private"),
    png_chunk(b"abCd", b"", crc=0),
]
"""Chunks beside the picture that are large, unknown or broken; every browser shows what is in the others."""


@pytest.mark.parametrize("chunk", ODD_CHUNKS, ids=range(len(ODD_CHUNKS)))
@pytest.mark.parametrize("last", [False, True])
def test_what_lies_beside_the_picture_of_a_png_is_no_damage(chunk: bytes, last: bool) -> None:
    whole = sample("PNG")
    at = whole.rfind(b"IEND") - 4 if last else 33
    content = whole[:at] + chunk + whole[at:]
    assert measure(content, "image/png") == Measured(WIDTH, HEIGHT)
    shown, _ = readable_png(content)
    assert decoded(shown) == decoded(whole)
    small = scale_down(content, 1024)
    assert measure(small, "image/jpeg").flaw is None and decoded(small)


def test_a_png_is_made_readable_without_its_picture_being_touched() -> None:
    for mode in MODES["PNG"]:
        for number in range(len(WAYS["PNG"])):
            content = sample("PNG", mode, number)
            assert decoded(readable_png(content)[0]) == decoded(content)
    for end in (b"", b"trailer", bytes(50)):
        assert readable_png(sample("PNG") + end)[0] == sample("PNG")


def test_a_profile_of_a_png_is_kept_up_to_a_size() -> None:
    for size, kept in ((2_000_000, True), (4_000_000, True), (4_000_001, False)):
        profile = random.Random(size).randbytes(size)
        assert readable_png(written(noise(), "PNG", icc_profile=profile))[1] == (profile if kept else None)


@given(content=st.binary(max_size=200))
def test_no_bytes_are_too_strange_to_be_made_readable(content: bytes) -> None:
    readable_png(content)
    shown, _ = readable_png(sample("PNG")[:33] + content)
    assert shown.startswith(sample("PNG")[:33])


@pytest.mark.parametrize("damage", ["header", "data", "cut", "critical"])
def test_damage_of_a_png_is_not_made_readable(damage: str) -> None:
    whole = sample("PNG")
    at = whole.find(b"IDAT")
    content = {
        "header": whole[:16] + b"\xff" + whole[17:],
        "data": whole[: at + 2000] + bytes(40) + whole[at + 2040 :],
        "cut": whole[: len(whole) // 2],
        "critical": whole[:33] + png_chunk(b"PLTE", b"x", crc=1) + whole[33:],
    }[damage]
    with pytest.raises(RejectedImage):
        scale_down(content, 1024)


def test_the_checksum_of_an_end_says_nothing() -> None:
    whole = sample("PNG")
    for tail in (bytes(4), bytes(4) + b"trailer"):
        assert measure(whole[:-4] + tail, "image/png").flaw is None
        assert decoded(scale_down(whole[:-4] + tail, 1024))


@pytest.mark.parametrize("number", range(len(WAYS["JPEG"])))
def test_a_film_or_a_second_picture_behind_a_jpeg_is_no_damage(number: int) -> None:
    film = b"MotionPhoto_Data" + b"\0\0\0\x18ftypmp42" + random.Random(1).randbytes(5000)
    for behind in (film, sample("JPEG", "L"), bytes(100_000), b"\xff" * 999):
        content = sample("JPEG", "RGB", number) + behind
        assert measure(content, "image/jpeg") == Measured(WIDTH, HEIGHT)
        assert decoded(scale_down(content, 1024))


def test_a_jpeg_may_hold_junk_and_fill_bytes_between_its_segments() -> None:
    content = sample("JPEG")
    for junk in (b"\xff" * 50, b"junk", b"\xff\x00" * 9):
        padded = content[:2] + junk + content[2:]
        assert measure(padded, "image/jpeg") == Measured(WIDTH, HEIGHT)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_told_from_a_picture(form: str) -> None:
    moving = written(noise(), form, save_all=True, append_images=[noise(seed=1), noise(seed=2)])
    found = measure(moving, kind_of(form))
    assert (found.width, found.height, found.flaw) == (WIDTH, HEIGHT, None)
    assert found.frames > 1
    alone = written(noise(), form, save_all=True)
    assert measure(alone, kind_of(form)).frames == 1


def test_a_gif_that_loops_with_one_picture_does_not_move() -> None:
    assert measure(written(noise(), "GIF", loop=0, duration=50, save_all=True), "image/gif").frames == 1


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("frames", [0, 1 << 31, 0xFFFFFFFF])
def test_an_animation_of_no_number_of_pictures_is_shown_still(frames: int) -> None:
    assert measure(png(3, 2, chunk(b"acTL", struct.pack(">II", frames, 0))), "image/png").frames == 1


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_a_size_is_none(width: int, height: int) -> None:
    assert measure(png(width, height), "image/png").flaw == f"its size is {width} x {height} pixels"


@pytest.mark.parametrize("at", range(16, 29))
def test_a_png_whose_header_was_damaged(at: int) -> None:
    content = bytearray(sample("PNG"))
    content[at] ^= 0x10
    assert decoded(bytes(content)) is None
    assert measure(bytes(content), "image/png").flaw == "its header's checksum is wrong"


def test_a_png_within_a_png_is_not_its_end() -> None:
    inner = png(1, 1)
    outer = png(3, 2, chunk(b"caBX", inner))
    assert measure(outer, "image/png") == Measured(3, 2)
    assert measure(outer[:-12], "image/png").flaw


@pytest.mark.parametrize("missing", [1, 2, 1000])
def test_a_webp_says_how_much_of_it_is_missing(missing: int) -> None:
    assert measure(sample("WEBP")[:-missing], "image/webp").flaw == f"{missing} bytes of it are missing"


def test_of_a_type_that_is_not_known_nothing_is_said() -> None:
    for kind in ("image/svg+xml", "image/bmp", "image/tiff", "image/heic"):
        assert measure(b"anything", kind) == Measured()


@settings(deadline=None, max_examples=300)
@given(
    start=st.sampled_from([sample(form)[:length] for form in MODES for length in (12, 30, 80, 2000)]),
    rest=st.binary(max_size=200),
    kind=st.sampled_from([*map(kind_of, MODES), "image/bmp"]),
)
def test_no_content_is_too_strange(start: bytes, rest: bytes, kind: str) -> None:
    found = measure(start + rest, kind)
    assert found.frames >= 1 and (found.flaw is None or found.flaw)


HOSTILE: dict[str, Callable[[], tuple[str, bytes]]] = {
    "escaped bytes": lambda: ("jpeg", b"\xff\xd8\xff" + b"\xff\x00" * 5_000_000),
    "fill bytes": lambda: ("jpeg", b"\xff\xd8" + b"\xff" * 10_000_000),
    "tiny segments": lambda: ("jpeg", b"\xff\xd8" + b"\xff\xe0\0\2" * 2_000_000),
    "endless segment": lambda: ("jpeg", b"\xff\xd8" + b"\xff\xe0\0\0" * 2_000_000),
    "tiny chunks": lambda: ("png", b"\x89PNG\r\n\x1a\n" + chunk(b"abcd", b"") * 800_000),
    "tiny extensions": lambda: ("gif", b"GIF89a" + bytes(7) + b"!x\0" * 3_000_000),
    "tiny parts": lambda: ("webp", b"RIFF\xff\xff\xff\xffWEBP" + b"ABCD\0\0\0\0" * 1_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_made_to_be_walked_for_ever_is_given_up_on(name: str) -> None:
    form, content = HOSTILE[name]()
    assert measure(content, f"image/{form}").flaw


def test_a_gif_in_pieces_of_one_byte_each_is_not_followed_to_its_end() -> None:
    content = b"GIF89a" + struct.pack("<HH", 5, 5) + bytes(3) + b",12345678\0\2" + b"\1x" * 5_000_000
    assert measure(content, "image/gif") == Measured(5, 5)
