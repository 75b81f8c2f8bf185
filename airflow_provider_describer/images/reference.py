"""Parses what users and upstream tasks pass as ``images`` into requests: one image and what is asked about it."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from numbers import Integral
from typing import TYPE_CHECKING, Any

from airflow_provider_describer.arguments import as_path
from airflow_provider_describer.errors import BadInput, RejectedImage
from airflow_provider_describer.images.listing_file import is_listing_file, read_listing
from airflow_provider_describer.images.prompts import checked_prompt, fill_prompt
from airflow_provider_describer.images.scaling import preprocessing_of
from airflow_provider_describer.models import DescribeRequest, Image, Spec
from airflow_provider_describer.storage.address import bucket_address, check_reference, is_web, local_path, masked
from airflow_provider_describer.vendors.vendor import Vendor

if TYPE_CHECKING:
    from airflow_provider_describer.storage.open_bucket import OpenBucket

_FIELDS = ("uri", "version", "size", "prompt", "lang", "fields", "id")
# "s3://connection@bucket/key" is the text of an ObjectStoragePath; a bucket's name has no "@".
_CONNECTION = re.compile(r"((?:s3|gs)://)[^/]*@", re.IGNORECASE)
_FULL = re.compile(r"(?:s3|s3a|s3n|gs|gcs|https?|file)://", re.IGNORECASE)
# Python reads no number of thousands of digits. A table's column of whole numbers with an empty cell has floats.
_WHOLE = re.compile(r"([0-9]{1,18})(?:\.0*)?")
_LONGEST_URI = 4096
"""Characters of what is given as address that a row keeps; no file or object has a longer name."""
_AROUND = f"{string.whitespace}\ufeff\u00a0"
"""What editors and spreadsheets leave around an address."""


def parse_images(
    images: object,
    vendor: Vendor,
    *,
    prompt: str | None = None,
    lang: str | Sequence[str] = "en",
    images_base: object = None,
    max_pixels: int | None = None,
    open_bucket: OpenBucket | None = None,
    stricter_prompt: str | None = None,
) -> list[DescribeRequest]:
    """Return the requests in the order of the images; with several languages, one request for each.

    An entry that cannot work, such as an empty cell, a wrong key or an address of an unknown scheme, is a request with
    a ``flaw`` of the kind ``bad_entry`` or ``bad_address``: a long list always has some, and the others go on.

    :param images: a list (or other iterable) of uris, paths, or dicts ``{"uri", "prompt"?, "lang"?, "fields"?, "id"?,
        "version"?, "size"?}``; lists within it, as mapped tasks return them, are flattened. Instead of a list, or
        within it, a listing file: see `read_listing`. None and NaN count as an empty cell.
    :param prompt: for every image without one of its own; ``{name}`` is filled from the image's ``fields``.
    :param images_base: the folder or address of relative names. Below a bucket, names are keys and joined literally,
        unless they begin like a whole address; names that end in a slash are folders and left out.
    :param max_pixels: larger images are scaled down to this many pixels before they are sent.
    :param open_bucket: opens the buckets of listing files.
    :param stricter_prompt: for a second try, filled in the same way; not for a vendor that takes no prompt.
    :raises BadInput: for an argument that cannot work, or where all entries have the same kind of flaw, naming the
        first; before any image is read or anything is sent.
    :raises UnreadableImage, BucketError: for a listing file that cannot be read now.
    """
    langs, base, preprocessing = _parse_langs(lang), _parse_base(images_base), preprocessing_of(max_pixels)
    for one_lang in langs:
        # What is wrong with the arguments is not blamed on each image.
        vendor.spec(checked_prompt(prompt, _shown), one_lang)
    if stricter_prompt is not None and vendor.default_prompt is None:
        raise BadInput(f"stricter_prompt is given, but {vendor.title}'s {vendor.model} takes no prompt: leave it out.")
    prompts = (prompt, checked_prompt(stricter_prompt, _shown, "stricter_prompt"))
    # Equal specs are one object: a list can be long, and a prompt too.
    specs: dict[Spec, Spec] = {}
    requests = []
    for place, item in _items(images, open_bucket):
        if base and base.is_folder(item):
            continue
        for one_lang in langs:
            request = _request(place, item, vendor, prompts, one_lang, base, preprocessing)
            spec, second = specs.setdefault(request.spec, request.spec), request.stricter
            second = specs.setdefault(second, second) if second else None
            requests.append(DescribeRequest(request.image, spec, request.id, request.flaw, second))
    flaws = [request.flaw for request in requests if request.flaw]
    if flaws and len(flaws) == len(requests) and len({flaw.kind for flaw in flaws}) == 1:
        raise BadInput(str(flaws[0]))
    return requests


def parse_image(
    image: object,
    vendor: Vendor,
    *,
    prompt: str | None = None,
    lang: object = "en",
    max_pixels: int | None = None,
    stricter_prompt: str | None = None,
) -> DescribeRequest:
    """Return the request for one image in one language. Raises as `parse_images`, and for several of either."""
    if isinstance(image, list | tuple) or is_listing_file(as_path(image)):
        raise BadInput(f"image is {_shown(as_path(image))}, expected one image; DescribeImagesOperator takes many.")
    if not isinstance(lang, str):
        raise BadInput(f"lang is {_shown(lang)}, expected one language; DescribeImagesOperator takes several.")
    (request,) = parse_images(
        [image], vendor, prompt=prompt, lang=lang, max_pixels=max_pixels, stricter_prompt=stricter_prompt
    )
    return request


def _parse_langs(lang: object) -> list[str]:
    langs = list(lang) if isinstance(lang, Iterable) and not isinstance(lang, str) else [lang]
    names = [name for name in langs if isinstance(name, str) and name.strip()]
    if not langs or names != langs:
        found = _shown(lang) if langs else "an empty list"
        raise BadInput(f"lang is {found}; expected a language such as 'en', or a list of them.")
    if len(set(names)) < len(names):
        raise BadInput(f"lang is {', '.join(map(repr, names))}; expected each language once.")
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
        hint = " An upstream task that was skipped gives None; one with nothing to do returns []." * (images is None)
        raise BadInput(f"images is {_shown(images)}, expected a list of image uris or dicts.{hint}")
    for number, item in enumerate(images):
        place, text = f"{name}[{number}]", as_path(item)
        if isinstance(item, list | tuple) or is_listing_file(text):
            yield from _items(text, open_bucket, place)
        else:
            yield place, text


def _request(
    place: str,
    item: object,
    vendor: Vendor,
    prompts: tuple[str | None, str | None],
    lang: str,
    base: Base | None,
    preprocessing: str,
) -> DescribeRequest:
    given: Mapping[str, Any] = item if isinstance(item, Mapping) else {"uri": item}
    uri = id_ = None
    try:
        if isinstance(item, BadInput):
            raise item
        uri = _full_uri(given, base)
        _check_entry(place, given, uri)
        assert uri is not None
        try:
            id_ = _own_text("id", given.get("id"))
            image = Image(uri, _own_text("version", given.get("version")), _own_size(given.get("size")))
            own, own_lang = given.get("prompt"), given.get("lang")
            prompt = checked_prompt(prompts[0] if _is_left_out(own) else own, _shown)
            asked_lang = lang if _is_left_out(own_lang) else own_lang or lang
            fields = _own_fields(given.get("fields"))
            spec = vendor.spec(fill_prompt(prompt, fields), asked_lang)
            second = fill_prompt(prompts[1], fields, "stricter_prompt")
            stricter = None if second is None else vendor.spec(second, asked_lang)
        except BadInput as error:
            raise BadInput(f"{place} ({_brief(uri)}): {error}") from None
    except Exception as error:  # noqa: BLE001  # nothing that is given as one entry may refuse the list
        kind = "bad_address" if isinstance(error, BadInput) and error.kind == "bad_address" else "bad_entry"
        odd = f"{place} cannot be read: {type(error).__name__}; expected an image uri or a dict with one."
        flaw = RejectedImage(str(error) if isinstance(error, BadInput) else odd, kind=kind)
        spec = replace(vendor.spec(lang=lang), prompt=None, preprocessing=preprocessing)
        return DescribeRequest(Image(uri[:_LONGEST_URI] if uri else place), spec, id_, flaw)
    if preprocessing:
        spec = replace(spec, preprocessing=preprocessing)
        stricter = replace(stricter, preprocessing=preprocessing) if stricter else None
    return DescribeRequest(image, spec, id_, stricter=None if stricter == spec else stricter)


def _full_uri(given: Mapping[str, Any], base: Base | None) -> str | None:
    """Return the entry's whole address; None where it has no text."""
    uri = as_path(given.get("uri"))
    if not isinstance(uri, str) or not uri.strip(_AROUND):
        return None
    bare = uri.strip(_AROUND)
    if is_web(bare) or (base and is_web(base.text) and "://" not in bare):
        uri = bare
    elif _FULL.match(bare):
        # A key may end in a space; one in a line break is known from a listing, which tells its version too.
        uri = uri.lstrip(_AROUND)
        uri = uri.rstrip("\r\n") if is_missing(given.get("version")) else uri
    full = uri if base is None else base.join(uri)
    return _CONNECTION.sub(r"\1", full, count=1) if "@" in full else full


def _check_entry(place: str, given: Mapping[str, Any], uri: str | None) -> None:
    if unknown := sorted(str(name) for name in given if name not in _FIELDS):
        raise BadInput(
            f"{place} has the unknown key {', '.join(map(repr, unknown))}; expected some of {', '.join(_FIELDS)} "
            "(values for the prompt go into 'fields')."
        )
    if uri is None:
        raise BadInput(
            f"{place} is {_shown(as_path(given.get('uri')))}, expected an image uri such as '/data/a.jpg' or "
            "'https://…/a.jpg'."
        )
    try:
        if "\0" in uri and bucket_address(uri) is None:
            raise BadInput("it has a NUL character; no image can have such a name.")
        check_reference(uri)
    except BadInput as error:
        raise BadInput(f"{place} ({_brief(uri)}): {error}", kind="bad_address") from None


def is_missing(value: object) -> bool:
    """Whether a cell is empty: None, or what pandas writes for it."""
    if value is None or isinstance(value, str | int):
        return value is None
    return isnan(value) if isinstance(value, float) else type(value).__name__ in ("NAType", "NaTType")


def _is_left_out(value: object) -> bool:
    """Whether a key of an image has no value: its cell is empty, or says None as templates write it."""
    return is_missing(value) or (isinstance(value, str) and value.strip() == "None")


def _own_text(name: str, value: object) -> str | None:
    if _is_left_out(value) or value == "":
        return None
    if isinstance(value, bool | bytes) or (isinstance(value, Iterable) and not isinstance(value, str)):
        raise BadInput(f"{name} is {_shown(value)}, expected a text or a number.")
    return str(value)


def _own_size(value: Any) -> int | None:
    if _is_left_out(value) or value == "":
        return None
    if isinstance(value, str) and (found := _WHOLE.fullmatch(value.strip())):
        return int(found[1])
    whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 0:
        raise BadInput(f"size is {_shown(value)}, expected a number of bytes.")
    return int(value)


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


def _own_fields(fields: Any) -> dict[str, Any]:
    """Return the fields that have a value."""
    if is_missing(fields):
        return {}
    if not isinstance(fields, Mapping):
        raise BadInput(f"fields is {_shown(fields)}, expected a dict such as {{'title': 'Red shoe'}}.")
    return {name: value for name, value in fields.items() if not is_missing(value)}


def _brief(uri: str) -> str:
    shown = masked(uri)
    return f"{shown[:200]}…" if len(shown) > 200 else shown


def _shown(value: object) -> str:
    """Return the value for a message; of a dict or a list only its type, as it may hold a presigned address."""
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"a {name} with the keys {', '.join(repr(str(key)) for key in value)[:80] or '(none)'}"
    if value is not None and not isinstance(value, str | int | float):
        return f"a {name}"
    text = repr(masked(value) if isinstance(value, str) else value)
    return f"{text[:80]}{'…' if len(text) > 80 else ''} ({name})"
