"""The prompt of one image: placeholders filled from its fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_describer.errors import BadInput

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


def checked_prompt(prompt: object, shown: Callable[[object], str], name: str = "prompt") -> str | None:
    """Return the prompt; raises `BadInput` for what is no text."""
    if prompt is not None and not isinstance(prompt, str):
        raise BadInput(f"{name} is {shown(prompt)}, expected a text.")
    return prompt


def fill_prompt(prompt: str | None, fields: Mapping[str, Any], name: str = "prompt") -> str | None:
    """Return the prompt with each ``{name}`` filled; ``{{`` and ``}}`` are braces, all other braces stay.

    :param fields: without those that have no value.
    :raises BadInput: for a placeholder that the image's fields do not have.
    """
    if prompt is None:
        return None

    def fill(found: re.Match[str]) -> str:
        field = found.group(1)
        if field is None:
            return found.group(0)[0]
        if field not in fields:
            given = ", ".join(sorted(map(str, fields))) or "none"
            raise BadInput(
                f"{name} asks for {{{field}}}, but this image's fields have {given}. Add it, or write "
                f"{{{{{field}}}}} for the words themselves."
            )
        return str(fields[field])

    return _PLACEHOLDER.sub(fill, prompt)
