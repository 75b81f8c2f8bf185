"""What users and upstream tasks pass as ``images``, made into asks: one image and what is asked about it."""

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
# "s3://connection@bucket/key", as the text of an ObjectStoragePath has it; no bucket's name holds an "@".
_CONNECTION = re.compile(r"((?:s3|gs)://)[^/]*@", re.IGNORECASE)
_WHOLE = re.compile(r"(?:s3|s3a|s3n|gs|gcs|https?|file)://", re.IGNORECASE)
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
    """Return what is to be asked, in the order given; with several languages one ask each.

    :param images: a list (or other iterable) of uris, paths, or dicts ``{"uri", "prompt"?, "lang"?, "fields"?, "id"?,
        "version"?, "size"?}``; lists within it, as mapped tasks return them, are taken as one list. In place of a list,
        or within it, a file that holds one: see `read_listing`.
    :param prompt: asked of every image that has none of its own; ``{name}`` is filled from the image's ``fields``.
    :param images_base: what comes before relative names. The names below a bucket are its keys, joined as they are:
        only what begins like a whole address is none, and what ends in a slash is a folder and left out.
    :param max_pixels: larger images are scaled down to so many pixels before they are sent.
    :param open_bucket: what opens the buckets that listing files lie in.
    :raises BadInput: naming the item and what was expected. No image has been read and nothing called by then.
    :raises UnreadableImage, BucketError: for a listing file that cannot be read now.
    """
    langs, base, preprocessing = _langs(lang), _base(images_base), preprocessing_of(max_pixels)
    # Images asked the same question share one spec: a list may be long, and a prompt too.
    specs: dict[Spec, Spec] = {}
    requests = [
        _ask(number, item, vendor, specs, prompt=prompt, lang=one, base=base, preprocessing=preprocessing)
        for number, item in _items(images, open_bucket)
        if not (base and base.is_folder(item))
        for one in langs
    ]
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
    """Return what is to be asked about one image, in one language: a list of them is refused, and so is a file of one.

    :raises BadInput: as `parse_images`, and for what would be more calls than one.
    """
    if isinstance(image, list | tuple) or is_listing_file(as_path(image)):
        raise BadInput(f"image is {_shown(as_path(image))}, expected one image; DescribeImagesOperator takes many.")
    if not isinstance(lang, str):
        raise BadInput(f"lang is {_shown(lang)}, expected one language; DescribeImagesOperator takes several.")
    (request,) = parse_images([image], vendor, prompt=prompt, lang=lang, max_pixels=max_pixels)
    return request


def _langs(lang: object) -> list[str]:
    langs = list(lang) if isinstance(lang, Iterable) and not isinstance(lang, str) else [lang]
    names = [name for name in langs if isinstance(name, str) and name.strip()]
    if not langs or names != langs:
        found = _shown(lang) if langs else "an empty list"
        raise BadInput(f"lang is {found}; expected a language such as 'en', or a list of them.")
    return names


def _items(images: object, open_bucket: OpenBucket | None) -> Iterator[tuple[str, object]]:
    """Yield each image with its place: of lists in lists, and in listing files."""
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
    yield from _flat("images", images, open_bucket)


def _flat(name: str, images: Iterable[object], open_bucket: OpenBucket | None) -> Iterator[tuple[str, object]]:
    for number, item in enumerate(images):
        text = as_path(item)
        if isinstance(item, list | tuple):
            yield from _flat(f"{name}[{number}]", item, open_bucket)
        elif is_listing_file(text):
            yield from read_listing(str(text), open_bucket)
        else:
            yield f"{name}[{number}]", text


def _ask(
    number: str,
    item: object,
    vendor: Vendor,
    specs: dict[Spec, Spec],
    *,
    prompt: str | None,
    lang: str,
    base: Base | None,
    preprocessing: str,
) -> DescribeRequest:
    given: Mapping[str, Any] = item if isinstance(item, Mapping) else {"uri": item}
    if unknown := sorted(str(name) for name in given if name not in _FIELDS):
        raise BadInput(
            f"{number} has the unknown key {', '.join(map(repr, unknown))}; expected some of {', '.join(_FIELDS)} "
            "(values for the prompt go into 'fields')."
        )
    uri = _uri(number, given.get("uri"), base)
    try:
        check_reference(uri)
        spec = vendor.spec(
            _filled(prompt if given.get("prompt") is None else given["prompt"], given.get("fields") or {}),
            given.get("lang") or lang,
        )
    except BadInput as error:
        raise BadInput(f"{number} ({masked(uri)}): {error}") from None
    if preprocessing:
        spec = replace(spec, preprocessing=preprocessing)
    version, size, id_ = given.get("version"), given.get("size"), given.get("id")
    return DescribeRequest(
        Image(uri, None if version is None else str(version), size if isinstance(size, int) else None),
        specs.setdefault(spec, spec),
        None if id_ is None else str(id_),
    )


def _uri(number: str, uri: object, base: Base | None) -> str:
    uri = as_path(uri)
    if not isinstance(uri, str) or not uri.strip():
        raise BadInput(f"{number} is {_shown(uri)}, expected an image uri such as '/data/a.jpg' or 'https://…/a.jpg'.")
    if "\0" in uri:
        raise BadInput(f"{number} is {masked(uri)!r}, which holds a NUL character; no image can be named so.")
    whole = uri if base is None else base.join(uri)
    return _CONNECTION.sub(r"\1", whole, count=1) if "@" in whole else whole


@dataclass(frozen=True, slots=True)
class Base:
    """What comes before relative names. In a bucket they are keys: any character may be their first."""

    text: str
    in_bucket: bool

    def join(self, name: str) -> str:
        """Return the whole address; the name's own where it is one already."""
        whole = _WHOLE.match(name) if self.in_bucket else "://" in name or name.startswith("/")
        return name if whole else f"{self.text}{name}"

    def is_folder(self, item: object) -> bool:
        """Whether the item is the key of a folder, as listings of buckets name them, too."""
        return self.in_bucket and isinstance(item, str) and item.endswith("/") and not _WHOLE.match(item)


def _base(images_base: object) -> Base | None:
    text = as_path(images_base)
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise BadInput(f"images_base is {_shown(text)}, expected something like 's3://bucket/' or '/data/catalog'.")
    text = _CONNECTION.sub(r"\1", text, count=1)
    in_bucket = bucket_address(text) is not None
    if text[:7].lower() == "file://":
        # A name is joined as it is, and not unquoted as the rest of such an address is.
        text = str(local_path(text))
    return Base(text if in_bucket and text.endswith("/") else text.rstrip("/") + "/", in_bucket)


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


def _refuse_duplicates(requests: Sequence[DescribeRequest]) -> None:
    """An image listed twice with the same question is a mistake upstream that would look like two results."""
    seen: dict[tuple[str, Spec, str | None], int] = {}
    for number, request in enumerate(requests):
        first = seen.setdefault((request.image.uri, request.spec, request.id), number)
        if first != number:
            raise BadInput(
                f"images names {masked(request.image.uri)!r} twice with the same prompt and language (the "
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
