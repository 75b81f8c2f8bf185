"""In which language a text is, by py3langid: a small model that comes with the library; nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from airflow_provider_describer.errors import BadInput

LANGUAGES = ("de", "en", "es", "fi", "fr", "ja", "ko", "nl", "pt", "ru", "tr", "zh")
"""What the vendors write. A text is taken for the likeliest of these: so short texts are told apart best."""
MOST_CHARS = 2000
"""Characters that are looked at; more change nothing."""


def load() -> None:
    """Load the model: one or two seconds and about 100 MB.

    :raises BadInput: where the library is missing.
    """
    if find_spec("py3langid") is None:
        raise BadInput(
            "The rule Language needs py3langid: pip install 'airflow-provider-describer[language]' on the workers, or "
            "leave the rule out."
        )
    _identifier()


def language_of(text: str) -> str | None:
    """Return the likeliest language; None for a text without letters."""
    beginning = text[:MOST_CHARS]
    if not any(map(str.isalpha, beginning)):
        return None
    return str(_identifier().classify(beginning)[0])


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # Not the library's own identifier, whose languages other code may set.
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(list(LANGUAGES))
    return identifier
