"""How *Rendered Templates* shows a list of images: item by item, without secrets, and never as one cut line of text."""

from __future__ import annotations

import json
from collections import UserList
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_provider_describer.arguments import list_in
from airflow_provider_describer.models import plural
from airflow_provider_describer.storage.address import masked

_COUNT = 80
"""Room for the item that counts those left out, in characters."""


class RenderedImages(UserList[Any]):
    """A list of images that Airflow stores in short. As a list it is whole.

    Of a list that is too long, Airflow would store the beginning of its text, which its UI shows as one line.

    :param given: what the template field holds, as the task works with it.
    :param longest: ``[core] max_templated_field_length``: the longest value that Airflow stores, in characters.
    """

    def __init__(self, images: Iterable[Any], given: Any, longest: int) -> None:
        super().__init__(images)
        self.given = given
        self._longest = longest

    def serialize(self) -> list[Any]:
        """Return all images or, if they are too many, the addresses of the first ones and how many there are."""
        whole = list(_fitting(map(_plain, self.data), self._longest))
        if len(whole) == len(self.data):
            return whole
        first = list(_fitting(map(_address, self.data), self._longest - _COUNT))
        total = len(self.data)
        return [*first, f"… and {total - len(first):,} more: {total:,} {plural(total, 'image')}"]


def rendered_images(value: Any, longest: int) -> Any:
    """Return what a field of images is to hold while Airflow stores it; the value itself where it is no list.

    :param value: a list of images, or its text.
    """
    images = list_in(value) if isinstance(value, str) else value
    return RenderedImages(images, value, longest) if isinstance(images, list | tuple) and images else value


def given_value(value: Any) -> Any:
    """Return the value that `rendered_images` was called on; any other value is returned as it is."""
    return value.given if isinstance(value, RenderedImages) else value


def _fitting(items: Iterable[Any], longest: int) -> Iterator[Any]:
    """Yield items as long as the text of their list is no longer than this."""
    length = len("[]")
    for item in items:
        length += len(repr(item)) + len(", ")
        if length > longest:
            return
        yield item


def _plain(image: Any) -> Any:
    """Return an image as JSON has it."""
    if not isinstance(image, Mapping):
        return _address(image)
    named = {**image, "uri": _address(image)} if "uri" in image else image
    return json.loads(json.dumps(dict(named), default=str, skipkeys=True))


def _address(image: Any) -> str:
    return masked(str(image.get("uri", "") if isinstance(image, Mapping) else image))
