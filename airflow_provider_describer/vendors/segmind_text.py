"""Where an answer of Segmind holds the description: documented as "Text/JSON" alone, so every known form is read."""

from __future__ import annotations

from airflow_provider_describer.vendors.answers import describes, describes_plainly, is_nothing, says_error
from airflow_provider_describer.vendors.wire import Response


def text_of(response: Response) -> str | None:
    """Return the description in a v1 response, whose form is undocumented: JSON of any known shape, or plain text."""
    if response.status not in (200, 201, 203):
        return None
    value = response.json()
    if value is not None:
        return None if says_error(value) else text_in(value)
    text = response.text.strip()
    # Broken JSON and HTML are not descriptions, whatever their content type says.
    return text if response.media_type in ("", "text/plain") and describes_plainly(text) else None


_TEXT_NAMES: tuple[str, ...] = ("descriptions", "output", "text", "description", "data")
_MESSAGE_NAMES = ("detail", "message", "msg", "reason")
_INPUT_NAMES = (
    "image_file",
    "image",
    "image_url",
    "input",
    "inputs",
    "request",
    "request_body",
    "params",
    "parameters",
)


def text_in(value: object, depth: int = 0) -> str | None:
    """Return the text in a JSON value of any known shape, or None; never an empty text.

    ``prompt`` is the description only where no other field is: beside one, an input or a message, it is an echo.
    """
    if depth > 8:
        return None
    if isinstance(value, str):
        # JSON within a text is what it says, too.
        within = Response(200, {}, value.encode()).json() if value.lstrip().startswith(("{", "[")) else None
        if isinstance(within, dict | list):
            return None if says_error(within) else text_in(within, depth + 1)
        return value if describes(value) else None
    if isinstance(value, list):
        texts = [text for item in value if (text := text_in(item, depth + 1)) is not None]
        return "\n\n".join(texts) or None
    if isinstance(value, dict):
        names = _TEXT_NAMES
        others = (*_TEXT_NAMES, *_INPUT_NAMES)
        if not any(name in value for name in others) and all(is_nothing(value.get(name)) for name in _MESSAGE_NAMES):
            names = ("prompt",)
        return next((text for name in names if (text := text_in(value.get(name), depth + 1)) is not None), None)
    return None
