"""Parses what users and upstream tasks pass as ``images`` into requests: one image and what is asked about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.arguments import as_path
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.listing_file import is_listing_file, read_listing
from airflow_provider_describer.images.scaling import preprocessing_of
from airflow_provider_describer.models import DescribeRequest, Image, Spec
from airflow_provider_describer.storage.address import bucket_address, check_reference, local_path, masked
from airflow_provider_describer.vendors.vendor import Vendor

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket

_FIELDS = ("uri", "version", "size", "prompt", "lang", "fields", "id")
# "s3://connection@bucket/key" is the text of an ObjectStoragePath; a bucket's name has no "@".
_CONNECTION = re.compile(r"((?:s3|gs)://)[^/]*@", re.IGNORECASE)
_FULL = re.compile(r"(?:s3|s3a|s3n|gs|gcs|https?|file)://", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


def parse_images(
    images: object,
    vendor: Vendor,
    *,
    prompt: str | None = None,
    lang: str | Sequence[str] = "en",
    images_base: object = None,
    max_pixels: int | None = None,
    open_bucket: OpenBucket | None = None,
) -> list[DescribeRequest]:
    """Return the requests in the order of the images; with several languages, one request for each.

    :param images: a list (or other iterable) of uris, paths, or dicts ``{"uri", "prompt"?, "lang"?, "fields"?, "id"?,
        "version"?, "size"?}``; lists within it, as mapped tasks return them, are flattened. Instead of a list, or
        within it, a listing file: see `read_listing`.
    :param prompt: for every image without one of its own; ``{name}`` is filled from the image's ``fields``.
    :param images_base: the folder or address of relative names. Below a bucket, names are keys and joined literally,
        unless they begin like a whole address; names that end in a slash are folders and left out.
    :param max_pixels: larger images are scaled down to this many pixels before they are sent.
    :param open_bucket: opens the buckets of listing files.
    :raises BadInput: naming the item and what was expected, before any image is read or anything is sent.
    :raises UnreadableImage, BucketError: for a listing file that cannot be read now.
    """
    langs, base, preprocessing = _parse_langs(lang), _parse_base(images_base), preprocessing_of(max_pixels)
    # Equal specs are one object: a list can be long, and a prompt too.
    specs: dict[Spec, Spec] = {}
    requests = []
    for place, item in _items(images, open_bucket):
        if base and base.is_folder(item):
            continue
        for one_lang in langs:
            request = _request(place, item, vendor, prompt, one_lang, base, preprocessing)
            spec = specs.setdefault(request.spec, request.spec)
            requests.append(DescribeRequest(request.image, spec, request.id))
    _refuse_duplicates(requests)
    return requests


def parse_image(
    image: object,
    vendor: Vendor,
    *,
    prompt: str | None = None,
    lang: object = "en",
    max_pixels: int | None = None,
) -> DescribeRequest:
    """Return the request for one image in one language. Raises as `parse_images`, and for several of either."""
    if isinstance(image, list | tuple) or is_listing_file(as_path(image)):
        raise BadInput(f"image is {_shown(as_path(image))}, expected one image; DescribeImagesOperator takes many.")
    if not isinstance(lang, str):
        raise BadInput(f"lang is {_shown(lang)}, expected one language; DescribeImagesOperator takes several.")
    (request,) = parse_images([image], vendor, prompt=prompt, lang=lang, max_pixels=max_pixels)
    return request


def _parse_langs(lang: object) -> list[str]:
    langs = list(lang) if isinstance(lang, Iterable) and not isinstance(lang, str) else [lang]
    names = [name for name in langs if isinstance(name, str) and name.strip()]
    if not langs or names != langs:
        found = _shown(lang) if langs else "an empty list"
        raise BadInput(f"lang is {found}; expected a language such as 'en', or a list of them.")
    return names


def _items(images: object, open_bucket: OpenBucket | None, name: str = "images") -> Iterator[tuple[str, object]]:
    """Yield each image of a listing file or a list, and of those within it, with its place for messages."""
    images = as_path(images)
    if is_listing_file(images):
        yield from read_listing(str(images), open_bucket)
        return
    if isinstance(images, str | bytes | Mapping):
        raise BadInput(
            f"images is {_shown(images)}, expected a list: put it into brackets, or use DescribeImageOperator for one."
        )
    if not isinstance(images, Iterable):
        raise BadInput(f"images is {_shown(images)}, expected a list of image uris or dicts.")
    for number, item in enumerate(images):
        place, text = f"{name}[{number}]", as_path(item)
        if isinstance(item, list | tuple) or is_listing_file(text):
            yield from _items(text, open_bucket, place)
        else:
            yield place, text


def _request(
    place: str, item: object, vendor: Vendor, prompt: str | None, lang: str, base: Base | None, preprocessing: str
) -> DescribeRequest:
    given: Mapping[str, Any] = item if isinstance(item, Mapping) else {"uri": item}
    if unknown := sorted(str(name) for name in given if name not in _FIELDS):
        raise BadInput(
            f"{place} has the unknown key {', '.join(map(repr, unknown))}; expected some of {', '.join(_FIELDS)} "
            "(values for the prompt go into 'fields')."
        )
    uri = _full_uri(place, given.get("uri"), base)
    own_prompt, version, size, id_ = (given.get(name) for name in ("prompt", "version", "size", "id"))
    try:
        check_reference(uri)
        filled = _fill_prompt(prompt if own_prompt is None else own_prompt, given.get("fields") or {})
        spec = vendor.spec(filled, given.get("lang") or lang)
    except BadInput as error:
        raise BadInput(f"{place} ({masked(uri)}): {error}") from None
    return DescribeRequest(
        Image(uri, None if version is None else str(version), size if isinstance(size, int) else None),
        replace(spec, preprocessing=preprocessing) if preprocessing else spec,
        None if id_ is None else str(id_),
    )


def _full_uri(place: str, uri: object, base: Base | None) -> str:
    uri = as_path(uri)
    if not isinstance(uri, str) or not uri.strip():
        raise BadInput(f"{place} is {_shown(uri)}, expected an image uri such as '/data/a.jpg' or 'https://…/a.jpg'.")
    if "\0" in uri:
        raise BadInput(f"{place} is {masked(uri)!r}, which has a NUL character; no image can have such a name.")
    full = uri if base is None else base.join(uri)
    return _CONNECTION.sub(r"\1", full, count=1) if "@" in full else full


@dataclass(frozen=True, slots=True)
class Base:
    """The folder or address of relative names. Below a bucket they are keys, which may begin with any character."""

    text: str
    in_bucket: bool

    def join(self, name: str) -> str:
        """Return the full address of a name, which may be one already."""
        full = _FULL.match(name) if self.in_bucket else "://" in name or name.startswith("/")
        return name if full else f"{self.text}{name}"

    def is_folder(self, item: object) -> bool:
        """Whether the item is the key of a folder; listings of buckets have them, too."""
        return self.in_bucket and isinstance(item, str) and item.endswith("/") and not _FULL.match(item)


def _parse_base(images_base: object) -> Base | None:
    text = as_path(images_base)
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise BadInput(f"images_base is {_shown(text)}, expected something like 's3://bucket/' or '/data/catalog'.")
    text = _CONNECTION.sub(r"\1", text, count=1)
    in_bucket = bucket_address(text) is not None
    if text[:7].lower() == "file://":
        # Names are joined literally, while the rest of such an address is unquoted.
        text = str(local_path(text))
    return Base(text if in_bucket and text.endswith("/") else text.rstrip("/") + "/", in_bucket)


def _fill_prompt(prompt: object, fields: object) -> str | None:
    """Return the prompt with each ``{name}`` filled; ``{{`` and ``}}`` are braces, all other braces stay."""
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
            names = ", ".join(sorted(map(str, fields))) or "none"
            raise BadInput(
                f"prompt asks for {{{name}}}, but this image's fields have {names}. Add it, or write {{{{{name}}}}} "
                "for the words themselves."
            )
        return str(fields[name])

    return _PLACEHOLDER.sub(fill, prompt)


def _refuse_duplicates(requests: Sequence[DescribeRequest]) -> None:
    """Raise `BadInput` for an image that is listed twice with the same question: it would look like two results."""
    seen: dict[tuple[str, Spec, str | None], int] = {}
    for number, request in enumerate(requests):
        first = seen.setdefault((request.image.uri, request.spec, request.id), number)
        if first != number:
            raise BadInput(
                f"images names {masked(request.image.uri)!r} twice with the same prompt and language (the "
                f"{first + 1}. and the {number + 1}. request). List it once, or give the two an 'id' each."
            )


def _shown(value: object) -> str:
    """Return the value for a message; of a dict or a list only its type, as it may hold a presigned address."""
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"a {name} with the keys {', '.join(repr(str(key)) for key in value)[:80] or '(none)'}"
    if value is not None and not isinstance(value, str | int | float):
        return f"a {name}"
    text = repr(masked(value) if isinstance(value, str) else value)
    return f"{text[:80]}{'…' if len(text) > 80 else ''} ({name})"
