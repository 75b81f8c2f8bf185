"""Look at an image: decode all of it, and measure what a description can be made of."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageFilter, ImageStat

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 120_000_000
MOST_COLOURS = 3
SMALL = (48, 48)
MEDIUM = (192, 192)

COLOURS = {
    "black": (15, 15, 15),
    "dark grey": (75, 75, 75),
    "grey": (130, 130, 130),
    "light grey": (195, 195, 195),
    "white": (245, 245, 245),
    "red": (205, 35, 35),
    "orange": (235, 135, 30),
    "yellow": (240, 220, 50),
    "olive": (125, 125, 35),
    "green": (45, 150, 55),
    "light green": (150, 215, 140),
    "teal": (25, 130, 130),
    "cyan": (70, 210, 225),
    "sky blue": (130, 180, 230),
    "blue": (40, 75, 200),
    "navy": (20, 30, 90),
    "purple": (115, 45, 160),
    "magenta": (210, 50, 175),
    "pink": (240, 165, 190),
    "brown": (115, 70, 35),
    "beige": (225, 205, 170),
}


class UnreadableError(ValueError):
    """The bytes are not a whole image; the message says why."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to say about an image."""

    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    colours: tuple[str, ...]
    brightness: int
    sharpness: int

    @property
    def media_type(self) -> str:
        return f"image/{self.format.lower()}"

    @property
    def orientation(self) -> str:
        if self.width == self.height:
            return "square"
        return "landscape" if self.width > self.height else "portrait"


def look(data: bytes, sha256: str) -> Sight:
    """Decode `data` completely and measure it; raise UnreadableError for anything but a whole image."""
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd metadata and large sizes; neither makes an image unreadable.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return measure(image, data, sha256)
    except UnreadableError:
        raise
    # Pillow's decoders raise nearly anything for damaged files (SyntaxError, struct.error, KeyError…).
    except Exception as error:
        raise UnreadableError(f"not a readable image ({error})") from error


def measure(image: Image.Image, data: bytes, sha256: str) -> Sight:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UnreadableError(f"{width}x{height} pixels are too many")
    # Phones write JPEGs with a second picture inside, which Pillow calls MPO.
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    # A JPEG is still read to its end, but at an eighth of its size, which is eight times as fast.
    image.draft("RGB", MEDIUM)
    image.load()
    small = flat(image)
    small.thumbnail(MEDIUM)
    grey = small.convert("L")
    edges = ImageStat.Stat(grey.filter(ImageFilter.FIND_EDGES))
    return Sight(
        format=kind,
        width=width,
        height=height,
        bytes=len(data),
        sha256=sha256,
        colours=colours_of(small),
        brightness=round(ImageStat.Stat(grey).mean[0] / 2.55),
        sharpness=min(100, round(edges.stddev[0])),
    )


def flat(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB, transparent parts on white."""
    if image.mode.startswith(("I", "F")):
        deep = image.convert("F")
        _, brightest = cast(tuple[float, float], deep.getextrema())
        scale = 255 / max(255.0, brightest)
        return deep.point(lambda value: value * scale).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        above = image.convert("RGBA")
        ground = Image.new("RGBA", above.size, "white")
        return Image.alpha_composite(ground, above).convert("RGB")
    return image.convert("RGB")


def colours_of(image: Image.Image) -> tuple[str, ...]:
    """Name the colours that cover most of the image, the largest first."""
    tiny = image.resize(SMALL, Image.Resampling.BOX)
    few = tiny.quantize(16).convert("RGB")
    total = SMALL[0] * SMALL[1]
    cover: Counter[str] = Counter()
    for count, pixel in few.getcolors(total) or []:
        if isinstance(pixel, tuple):
            cover[nearest((pixel[0], pixel[1], pixel[2]))] += count
    common = cover.most_common(MOST_COLOURS)
    return tuple(name for name, count in common if count * 20 >= total) or (common[0][0],)


def nearest(pixel: tuple[int, int, int]) -> str:
    def distance(name: str) -> int:
        return sum((a - b) ** 2 for a, b in zip(pixel, COLOURS[name], strict=True))

    return min(COLOURS, key=distance)
