"""What users and upstream tasks pass as ``images``, made into asks: one image and what is asked about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_describer.description import Image, Spec
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.reading import local_path, masked
from airflow_provider_describer.vendors.vendor import Vendor

_FIELDS = ("uri", "version", "size", "prompt", "lang", "fields", "id")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Ask:
    """One image and what is asked about it. ``id`` is the user's own name for it, handed through to its row."""

    image: Image
    spec: Spec
    id: str | None = None


def asks_of(
    images: object,
    vendor: Vendor,
    *,
    prompt: str | None = None,
    lang: str | Sequence[str] = "en",
    images_base: str | None = None,
) -> list[Ask]:
    """Return what is to be asked, in the order given; with several languages one ask each.

    :param images: a list (or other iterable) of uris, paths, or dicts ``{"uri", "prompt"?, "lang"?, "fields"?, "id"?,
        "version"?, "size"?}``; lists within it, as mapped tasks return them, are taken as one list.
    :param prompt: asked of every image that has none of its own; ``{name}`` is filled from the image's ``fields``.
    :raises BadInput: naming the item and what was expected. Nothing has been read or called by then.
    """
    langs = _langs(lang)
    asks = [
        ask
        for number, item in _items(images)
        for one in langs
        for ask in [_ask(number, item, vendor, prompt=prompt, lang=one, images_base=images_base)]
    ]
    _refuse_duplicates(asks)
    return asks


def _langs(lang: object) -> list[str]:
    langs = list(lang) if isinstance(lang, Iterable) and not isinstance(lang, str) else [lang]
    names = [name for name in langs if isinstance(name, str) and name.strip()]
    if not langs or names != langs:
        found = _shown(lang) if langs else "an empty list"
        raise BadInput(f"lang is {found}; expected a language such as 'en', or a list of them.")
    return names


def _items(images: object) -> Iterable[tuple[str, object]]:
    if isinstance(images, str | bytes | Mapping | os.PathLike):
        raise BadInput(
            f"images is {_shown(images)}, expected a list: put it into brackets, or use DescribeImageOperator for one."
        )
    if not isinstance(images, Iterable):
        raise BadInput(f"images is {_shown(images)}, expected a list of image uris or dicts.")
    for number, item in enumerate(images):
        if isinstance(item, list | tuple):
            yield from ((f"images[{number}][{inner}]", part) for inner, part in enumerate(item))
        else:
            yield f"images[{number}]", item


def _ask(number: str, item: object, vendor: Vendor, *, prompt: str | None, lang: str, images_base: str | None) -> Ask:
    given: Mapping[str, Any] = item if isinstance(item, Mapping) else {"uri": item}
    if unknown := sorted(str(name) for name in given if name not in _FIELDS):
        raise BadInput(
            f"{number} has the unknown key {', '.join(map(repr, unknown))}; expected some of {', '.join(_FIELDS)} "
            "(values for the prompt go into 'fields')."
        )
    uri = _uri(number, given.get("uri"), images_base)
    try:
        local_path(uri)
        spec = vendor.spec(
            _filled(prompt if given.get("prompt") is None else given["prompt"], given.get("fields") or {}),
            given.get("lang") or lang,
        )
    except BadInput as error:
        raise BadInput(f"{number} ({masked(uri)}): {error}") from None
    version, size, id_ = given.get("version"), given.get("size"), given.get("id")
    return Ask(
        Image(uri, None if version is None else str(version), size if isinstance(size, int) else None),
        spec,
        None if id_ is None else str(id_),
    )


def _uri(number: str, uri: object, images_base: str | None) -> str:
    if isinstance(uri, os.PathLike):
        uri = os.fspath(uri)
    if not isinstance(uri, str) or not uri.strip():
        raise BadInput(f"{number} is {_shown(uri)}, expected an image uri such as '/data/a.jpg' or 'https://…/a.jpg'.")
    if "\0" in uri:
        raise BadInput(f"{number} is {masked(uri)!r}, which holds a NUL character; no image can be named so.")
    if images_base and "://" not in uri and not uri.startswith("/"):
        return f"{images_base.rstrip('/')}/{uri}"
    return uri


def _filled(prompt: object, fields: object) -> str | None:
    """Return the prompt with its ``{name}`` filled; ``{{`` and ``}}`` stand for braces, other braces are left alone."""
    if not isinstance(fields, Mapping):
        raise BadInput(f"fields is {_shown(fields)}, expected a dict such as {{'title': 'Red shoe'}}.")
    if prompt is None:
        return None
    if not isinstance(prompt, str):
        raise BadInput(f"prompt is {_shown(prompt)}, expected a text.")

    def fill(found: re.Match[str]) -> str:
        name = found.group(1)
        if name is None:
            return found.group(0)[0]
        if name not in fields:
            has = ", ".join(sorted(map(str, fields))) or "none"
            raise BadInput(
                f"prompt asks for {{{name}}}, but this image's fields have {has}. Add it, or write {{{{{name}}}}} for "
                "the words themselves."
            )
        return str(fields[name])

    return _PLACEHOLDER.sub(fill, prompt)


def _refuse_duplicates(asks: Sequence[Ask]) -> None:
    """An image listed twice with the same question is a mistake upstream that would look like two results."""
    seen: dict[tuple[str, Spec, str | None], int] = {}
    for number, ask in enumerate(asks):
        first = seen.setdefault((ask.image.uri, ask.spec, ask.id), number)
        if first != number:
            raise BadInput(
                f"images names {masked(ask.image.uri)!r} twice with the same prompt and language (the "
                f"{first + 1}. and the {number + 1}. ask). List it once, or give the two an 'id' each."
            )


def _shown(value: object) -> str:
    """The value as a message shows it: of a dict or a list its kind alone, as it may hold a presigned address."""
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"a {name} with the keys {', '.join(repr(str(key)) for key in value)[:80] or '(none)'}"
    if value is not None and not isinstance(value, str | int | float):
        return f"a {name}"
    text = repr(masked(value) if isinstance(value, str) else value)
    return f"{text[:80]}{'…' if len(text) > 80 else ''} ({name})"
