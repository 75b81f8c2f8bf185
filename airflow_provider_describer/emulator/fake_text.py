"""Put into words what the eye saw, so that a wrong, swapped or truncated upload shows in the text."""

from __future__ import annotations

from airflow_provider_describer.emulator.image_info import Sight

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


def markdown(sight: Sight, prompt: str, lang: str) -> str:
    """Describe an image the way Image Describer does: several lines of markdown."""
    return (
        f"## {in_capitals(sight.orientation)} image in {listed(sight.colours)}\n\n"
        f"A {sight.format} image of **{sight.width} x {sight.height} pixels** ({sight.bytes} bytes), "
        f"{sight.orientation}, mostly {listed(sight.colours)}. "
        f"It is {brightness(sight)} and {sharpness(sight)}.\n\n"
        f"- Asked: {prompt}\n"
        f"- Language: {LANGUAGES[lang]} ({lang})\n"
        f"- Fingerprint: `{sight.sha256[:12]}`\n"
    )


def sentence(sight: Sight) -> str:
    """Describe an image the way Ideogram does: one sentence that would do as a prompt."""
    return (
        f"A {sight.orientation} composition in {listed(sight.colours)}, {brightness(sight)} and "
        f"{sharpness(sight)}, a {sight.format} of {sight.width} x {sight.height} pixels and "
        f"{sight.bytes} bytes, fingerprint {sight.sha256[:12]}."
    )


def brightness(sight: Sight) -> str:
    word = "dark" if sight.brightness < 33 else "bright" if sight.brightness > 66 else "evenly lit"
    return f"{word} (brightness {sight.brightness} %)"


def sharpness(sight: Sight) -> str:
    word = "soft" if sight.sharpness < 12 else "crisp" if sight.sharpness > 45 else "clear"
    return f"{word} (sharpness {sight.sharpness} %)"


def listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def in_capitals(word: str) -> str:
    return word[:1].upper() + word[1:]
