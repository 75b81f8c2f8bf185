"""Scales images down before they are sent: fewer bytes to upload, and no metadata of the camera.

Needs Pillow, but only for an image that is too large. Pillow releases the interpreter's lock, so run it in a thread.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from airflow_provider_describer.errors import BadInput, RejectedImage
from airflow_provider_describer.images.checks import HEAD, MOST_PIXELS, media_type
from airflow_provider_describer.images.dimensions import measure
from airflow_provider_describer.images.png import LARGEST_PROFILE, readable_png

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FEWEST_PIXELS = 1024
JPEG_QUALITY = 90
PNG_LEVEL = 4
"""Takes a third of the default level's time, for 7 % more bytes."""
MOST_SHOWN, MOST_SHOWN_JPEG = 40_000_000, 100_000_000
"""The most pixels of an image that a thumbnail is made of: 0.2 GB once decoded."""
MOST_SCANS = 100
"""Layers of a progressive JPEG; each takes as long as the whole picture, and cameras and tools write some ten."""
LONGEST_EDGE = 65_500
"""The longest edge of a JPEG that its library writes."""


def preprocessing_of(max_pixels: object) -> str:
    """Return a spec's ``preprocessing`` for this limit; it is part of a description's identity.

    :param max_pixels: the most pixels of an image, width times height; None to leave images as they are.
    :raises BadInput: for anything but a whole number of at least 1024.
    """
    if max_pixels is None:
        return ""
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < FEWEST_PIXELS:
        shown = max_pixels if isinstance(max_pixels, int | float) else f"a {type(max_pixels).__name__}"
        raise BadInput(
            f"max_pixels is {shown}, expected a whole number of at least {FEWEST_PIXELS}: the pixels of the whole "
            "image, width times height, such as 2_000_000."
        )
    return f"max_pixels={max_pixels}"


def require_pillow() -> None:
    """Raise `BadInput`, naming what to install, unless images can be scaled."""
    if find_spec("PIL") is None:
        raise BadInput(
            "max_pixels needs Pillow to scale images: pip install 'airflow-provider-describer[scaling]' on the "
            "workers, or leave max_pixels out."
        )


def scale_down(content: bytes, max_pixels: int, *, uri: str = "the image") -> bytes:
    """Return the image with at most ``max_pixels`` pixels; blocking, 0.1 to 0.4 s for a photograph of 12 megapixels.

    An image that is small enough is returned byte for byte. A larger one is turned upright and encoded again, as PNG
    if it has transparency and as JPEG otherwise, with its colour profile but no other metadata (place, camera,
    thumbnail, comments). Of an animation the first picture is taken.

    :raises RejectedImage: ``corrupt`` where it cannot be decoded, ``too_many_pixels``, ``unsupported_type``.
    :raises BadInput: where Pillow is not installed, or for a limit that `preprocessing_of` refuses.
    """
    preprocessing_of(max_pixels)
    kind = media_type(content[:HEAD]) or "unknown type"
    measured = measure(content, kind)
    if measured.pixels and measured.pixels <= max_pixels:
        return content
    require_pillow()
    with _image_errors(kind, uri):
        shown, profile = readable_png(content) if kind == "image/png" else (content, None)
        with _opened(shown, kind, uri) as image:
            profile = profile or image.info.get("icc_profile")
            small = _upright(image, _shrunk(image, target_size(*image.size, max_pixels)))
    with _image_errors(kind, uri, "scaled down"):
        return _encoded(small, profile)


def thumbnail(content: bytes, longest_side: int, *, uri: str = "the image") -> bytes:
    """Return a picture of the image as WebP, upright, no side longer than ``longest_side`` pixels; blocking.

    Nothing else of the file is in it. Takes less than 0.3 s and at most 0.3 GB, whatever the bytes are.

    :raises RejectedImage: as `scale_down`, and for fewer pixels.
    :raises BadInput: where Pillow is not installed.
    """
    if find_spec("PIL") is None:
        raise BadInput("Thumbnails need Pillow: pip install 'airflow-provider-describer[scaling]'.")
    kind = media_type(content[:HEAD]) or "unknown type"
    is_jpeg = kind == "image/jpeg"
    if is_jpeg and content.count(b"\xff\xda") > MOST_SCANS:
        raise RejectedImage(f"{uri}: has more than {MOST_SCANS} layers of a JPEG.", kind="too_many_pixels")
    with _image_errors(kind, uri):
        shown = readable_png(content)[0] if kind == "image/png" else content
        # A JPEG is decoded at a part of its size.
        with _opened(shown, kind, uri, MOST_SHOWN_JPEG if is_jpeg else MOST_SHOWN) as image:
            longest = max(image.size)
            wide, tall = (max(1, side * longest_side // longest) for side in image.size)
            small = _upright(image, _shrunk(image, (wide, tall) if longest > longest_side else image.size))
        target = io.BytesIO()
        small.info = {}
        small.convert("RGBA" if small.mode in ("LA", "RGBA") else "RGB").save(target, "WEBP", quality=80, method=2)
        return target.getvalue()


@contextmanager
def _image_errors(kind: str, uri: str, doing: str = "decoded") -> Iterator[None]:
    """Raise what goes wrong with an image as `RejectedImage`."""
    try:
        yield
    except (RejectedImage, BadInput):
        raise
    except MemoryError:
        raise RejectedImage(
            f"{uri}: this machine has not enough memory to scale the {kind} down. Scale it down first.",
            kind="no_memory",
        ) from None
    except Exception as error:  # noqa: BLE001  # a damaged file makes Pillow raise nearly any class
        raise RejectedImage(
            f"{uri}: the {kind} cannot be {doing} ({type(error).__name__}: {str(error)[:200]}). Fetch or export it "
            "again.",
            kind="corrupt",
        ) from None


def _encoded(small: Image, profile: bytes | None) -> bytes:
    target = io.BytesIO()
    # Pillow would write some of it, such as comments.
    small.info = {}
    form = "PNG" if small.mode in ("LA", "RGBA") else "JPEG"
    kept = profile if profile and len(profile) <= LARGEST_PROFILE else None
    small.save(target, form, quality=JPEG_QUALITY, compress_level=PNG_LEVEL, icc_profile=kept)
    return target.getvalue()


def _opened(content: bytes, kind: str, uri: str, most_pixels: int = MOST_PIXELS) -> ImageFile:
    # Not `Image.open`: its guard against decompression bombs is a warning, which the whole process shares.
    try:
        from PIL import GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
    except ImportError as error:
        raise BadInput(f"max_pixels needs Pillow, which cannot be imported ({error}). Install it again.") from None

    openers: dict[str, type[ImageFile]] = {
        "image/jpeg": JpegImagePlugin.JpegImageFile,
        "image/png": PngImagePlugin.PngImageFile,
        "image/webp": WebPImagePlugin.WebPImageFile,
        "image/gif": GifImagePlugin.GifImageFile,
    }
    if kind not in openers:
        raise RejectedImage(
            f"{uri}: {kind} cannot be scaled down, only {', '.join(sorted(openers))}. Convert it first.",
            kind="unsupported_type",
        )
    image = openers[kind](io.BytesIO(content))
    if image.width * image.height > most_pixels:
        found, most = f"{image.width} x {image.height} pixels", f"{most_pixels / 1e6:.0f} million that are taken"
        raise RejectedImage(f"{uri}: {found} are more than the {most}. Scale it down first.", kind="too_many_pixels")
    return image


def target_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Return the largest size of the same shape with at most ``max_pixels`` pixels and edges of 1 to 65 500."""
    if width * height <= max_pixels:
        return width, height
    # In whole numbers: with floats, an exact root of 32 may come out just below 32.
    tall = max(1, math.isqrt(max_pixels * height // width))
    wide = max(1, min(math.isqrt(max_pixels * width // height), max_pixels // tall))
    # Where the short edge is held at 1, the long one is cut.
    tall = min(tall, max_pixels // wide)
    if (longest := max(wide, tall)) <= LONGEST_EDGE:
        return wide, tall
    # A strip may have few pixels and yet be longer than can be written.
    return max(1, wide * LONGEST_EDGE // longest), max(1, tall * LONGEST_EDGE // longest)


def _shrunk(image: ImageFile, size: tuple[int, int]) -> Image:
    from PIL.Image import Resampling

    # For JPEG: decode at a half, a quarter or an eighth of the size, never below the target.
    image.draft(None, size)
    # A quarter faster than Lanczos; no model tells the two apart.
    return _convert(image).resize(size, Resampling.BICUBIC, reducing_gap=2.0)


def _convert(image: Image) -> Image:
    """Return the image in a mode that can be averaged, and that PNG (with transparency) or JPEG (without) takes."""
    image.load()
    if image.mode.startswith("I"):
        # 16 bits of grey; `convert` alone would clip at 255.
        return image.point(lambda grey: grey * (1 / 256)).convert("L")
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        return image.convert("LA" if grey else "RGBA")
    return image if image.mode == "CMYK" else image.convert("L" if grey else "RGB")


def _upright(original: Image, small: Image) -> Image:
    """Return the small image turned as the original's EXIF says; damaged EXIF is ignored."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(original.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001  # as above
        return small
    return small if turn is None else small.transpose(turn)
