"""Measure an image, and describe it with what was measured.

The description names the image's size and the start of its SHA-256, so it shows if a wrong, swapped or truncated
image was sent.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageFilter, ImageStat

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 120_000_000
MAX_COLOURS = 3
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
PALETTE = Image.new("P", (1, 1))
PALETTE.putpalette([value for colour in COLOURS.values() for value in colour])
LANGUAGES = {
    "en": "English",
    "zh": "Chinese",
    "de": "German",
    "es": "Spanish",
    "fr": "French",
    "ja": "Japanese",
    "ko": "Korean",
    "fi": "Finnish",
    "nl": "Dutch",
    "pt": "Portuguese",
    "tr": "Turkish",
    "ru": "Russian",
}


class ImageRefusedError(Exception):
    """The image cannot be fetched or read; the message says why."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The measurements of an image; brightness and sharpness are percentages."""

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


def measure(data: bytes, sha256: str) -> ImageInfo:
    """Decode all of `data` and measure it; raise ImageRefusedError if it is not a complete image."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and large sizes; such images are still readable.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return measure_opened(image, len(data), sha256)
    # For damaged files Pillow's decoders raise almost anything (SyntaxError, struct.error, KeyError…).
    except Exception as error:
        raise ImageRefusedError(f"image cannot be used: not a readable image ({error})") from error


def measure_opened(image: Image.Image, size: int, sha256: str) -> ImageInfo:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    # Phones write JPEGs with a second picture inside, which Pillow calls MPO.
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    # Decode a JPEG at a fraction of its size: this is faster, and still reads the file to its end.
    image.draft("RGB", MEDIUM)
    image.load()
    small = to_rgb(image)
    small.thumbnail(MEDIUM)
    grey = small.convert("L")
    edges = ImageStat.Stat(grey.filter(ImageFilter.FIND_EDGES))
    return ImageInfo(
        format=kind,
        width=width,
        height=height,
        bytes=size,
        sha256=sha256,
        colours=main_colours(small),
        brightness=round(ImageStat.Stat(grey).mean[0] / 2.55),
        sharpness=min(100, round(edges.stddev[0])),
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB, on a white background where it is transparent."""
    if image.mode.startswith(("I", "F")):
        deep = image.convert("F")
        _, brightest = cast(tuple[float, float], deep.getextrema())
        scale = 255 / max(255.0, brightest)
        return deep.point(lambda value: value * scale).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        foreground = image.convert("RGBA")
        background = Image.new("RGBA", foreground.size, "white")
        return Image.alpha_composite(background, foreground).convert("RGB")
    return image.convert("RGB")


def main_colours(image: Image.Image) -> tuple[str, ...]:
    """Return the names of the colours that cover most of the image, the most frequent first."""
    named = image.resize(SMALL, Image.Resampling.BOX).quantize(palette=PALETTE, dither=Image.Dither.NONE)
    # The histogram counts each colour of the palette; its remaining places are empty.
    common = Counter(dict(zip(COLOURS, named.histogram(), strict=False))).most_common(MAX_COLOURS)
    return tuple(name for name, pixels in common if pixels * 20 >= SMALL[0] * SMALL[1]) or (common[0][0],)


def describe_in_markdown(info: ImageInfo, prompt: str, lang: str) -> str:
    """Describe an image in the style of Image Describer: several lines of Markdown."""
    return (
        f"## {info.orientation.capitalize()} image in {join(info.colours)}\n\n"
        f"A {info.format} image of **{info.width} x {info.height} pixels** ({info.bytes} bytes), "
        f"{info.orientation}, mostly {join(info.colours)}. It is {light_and_focus(info)}.\n\n"
        f"- Asked: {prompt}\n"
        f"- Language: {LANGUAGES[lang]} ({lang})\n"
        f"- Fingerprint: `{info.sha256[:12]}`\n"
    )


def describe_in_a_sentence(info: ImageInfo) -> str:
    """Describe an image in the style of Ideogram: one sentence that could be a prompt."""
    return (
        f"A {info.orientation} composition in {join(info.colours)}, {light_and_focus(info)}, "
        f"a {info.format} of {info.width} x {info.height} pixels and "
        f"{info.bytes} bytes, fingerprint {info.sha256[:12]}."
    )


def light_and_focus(info: ImageInfo) -> str:
    light = "dark" if info.brightness < 33 else "bright" if info.brightness > 66 else "evenly lit"
    focus = "soft" if info.sharpness < 12 else "crisp" if info.sharpness > 45 else "clear"
    return f"{light} (brightness {info.brightness} %) and {focus} (sharpness {info.sharpness} %)"


def join(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
