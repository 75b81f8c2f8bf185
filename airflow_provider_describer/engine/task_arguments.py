"""The arguments of all operators, sensors and triggers by their names, each with what reads it.

A value that cannot work is refused before anything is read or sent, and a literal one already when its DAG is parsed.
``None``, a blank text and ``None`` as templates write it are taken where None is an argument's default, except that a
blank ``prompt`` or ``store`` is refused. Everywhere else they are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, get_args

from airflow_provider_describer.arguments import (
    LANGUAGE,
    as_path,
    check_seconds,
    is_none,
    is_template,
    is_undefined,
    list_in,
    parse_bool,
    parse_choice,
    parse_int,
    parse_list,
    parse_number,
    parse_seconds,
    parse_text,
    parse_time,
    parse_whole,
    shown,
    value_in,
)
from airflow_provider_describer.engine.deferral import longest_wait
from airflow_provider_describer.engine.plan import OnClaimed, OnUnknown
from airflow_provider_describer.engine.review_form import MAX_IMAGES
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.images.listing_file import is_listing_file
from airflow_provider_describer.images.scaling import FEWEST_PIXELS
from airflow_provider_describer.rules import parse_rules
from airflow_provider_describer.storage.address import bucket_address, local_path, masked, parse_shared_folder
from airflow_provider_describer.store.results import ResultsFormat

Reader = Callable[[str, object], Any]
"""Returns an argument's value; takes its name and what was given. Raises `BadInput`, naming the argument."""


def read_arguments(given: Mapping[str, object], now: float) -> SimpleNamespace:
    """Return the values of arguments, each as an attribute.

    :param given: what was given for each, rendered.
    :param now: epoch second, for times before now.
    :raises BadInput: for the first that cannot work, naming it.
    """
    times = dict.fromkeys(("modified_after", "modified_before"), partial(parse_time, now=now))
    readers: Mapping[str, Reader] = {**READERS, **times}
    for name, value in given.items():
        if is_undefined(value):
            raise BadInput(f"{name} is a template that names something undefined; expected one that has a value.")
    found = {name: readers[name](name, value) for name, value in given.items()}
    if (conn_id := found.get("describer_conn_id")) in (others := found.get("fallback_conn_ids", ())):
        raise BadInput(
            f"fallback_conn_ids names {conn_id!r}, which is describer_conn_id: expected other connections, in the "
            f"order in which they are asked; found {', '.join(others)}."
        )
    if found.get("stricter_prompt") and found.get("rules") == ():
        raise BadInput("stricter_prompt is given without rules: it asks again about images whose text fails one.")
    return SimpleNamespace(**found)


def read_returned_images(function: str, value: object) -> list[Any] | str:
    """Return the images that a user's function has returned: a list, or the path of a listing file.

    :param function: its name.
    :raises BadInput: for what is neither, naming the function. A generator is neither, as it can be read only once.
    """
    images = as_path(value)
    if is_listing_file(images):
        return str(images)
    found = list_in(images) if isinstance(images, str) else images
    if isinstance(found, Iterable) and not isinstance(found, bytes | Mapping | Iterator):
        return list(found)
    hint = ""
    if images is None:
        hint = " A function without a return returns None; one with nothing to do returns []."
    elif isinstance(images, Iterator):
        hint = " Put it into list(…)."
    elif isinstance(images, str | Mapping):
        hint = " Put one image into brackets."
    shown_value = shown(masked(images) if isinstance(images, str) else images)
    raise BadInput(
        f"{function}() returned {shown_value}, expected a list of image uris or dicts, or the path of a file that "
        f"lists them.{hint}"
    )


def read_literals(given: Mapping[str, object], now: float) -> SimpleNamespace:
    """Return the values of those arguments that need not be rendered first; raises as `read_arguments`."""
    return read_arguments({name: value for name, value in given.items() if not is_template(value)}, now)


def _read_conn_ids(name: str, value: object) -> tuple[str, ...]:
    """Return connections, each named once: none, one, or a list."""
    if is_none(value):
        return ()
    expected = "a connection such as 'segmind_default', or a list of them"
    one = isinstance(value, str) and list_in(value) is None
    found = [value] if one else parse_list(name, value, expected)
    if not all(isinstance(conn_id, str) and conn_id.strip() for conn_id in found):
        raise BadInput(f"{name} is {repr(found)[:80]}, expected {expected}.")
    conn_ids = [parse_text(name, conn_id) for conn_id in found]
    if len(set(conn_ids)) < len(conn_ids):
        raise BadInput(f"{name} is {', '.join(conn_ids)}, expected each connection once.")
    return tuple(conn_ids)


def read_prompt(name: str, value: object) -> str | None:
    """Return a prompt as it was given; None for None, also as templates write it."""
    if value is None or (isinstance(value, str) and value.strip() == "None"):
        return None
    if not isinstance(value, str):
        raise BadInput(f"{name} is {shown(value)}, expected a text.")
    if not value.strip():
        raise BadInput(f"{name} is blank. Say what you want to know about an image, or leave {name} out.")
    return value


def _read_lang(name: str, value: object) -> str | list[str]:
    """Return one language or several. The vendor is known by the connection alone: it says later which it writes."""
    one = isinstance(value, str) and list_in(value) is None
    found = [value] if one else parse_list(name, value, "a language such as 'en', or a list of them")
    langs: list[Any] = [lang.strip() if isinstance(lang, str) else lang for lang in found]
    if not langs:
        raise BadInput(f"{name} is an empty list, expected a language such as 'en', or a list of them.")
    for number, lang in enumerate(langs):
        if not isinstance(lang, str) or not LANGUAGE.fullmatch(lang):
            raise BadInput(f"{name} is {shown(lang)}, expected a language such as 'en' or 'pt-BR', or a list of them.")
        if lang in langs[:number]:
            raise BadInput(f"{name} names {lang!r} twice, expected each language once.")
    return langs[0] if one else langs


def _read_store(name: str, value: object) -> str | None:
    text = as_path(value)
    if text is None or (isinstance(text, str) and text.strip() == "None"):
        return None
    if not isinstance(text, str):
        raise BadInput(f"{name} is {shown(text)}, expected a folder such as '/data/descriptions', s3://… or gs://….")
    if not text.strip():
        raise BadInput(f"{name} is blank, expected a folder; leave it out to have results inline in XCom.")
    if is_template(text):
        raise BadInput(f"{name} is {shown(text)}: Airflow has rendered it once, and a template is still in it.")
    parse_shared_folder(name, text.strip())
    return text.strip()


def _read_state_path(name: str, value: object) -> str:
    path = _read_store(name, value)
    if path is None:
        raise BadInput(f"{name} is {shown(value)}, expected a folder such as '/data/arrivals', s3://… or gs://….")
    return path


def _read_path(name: str, value: object) -> str:
    """Return the folder or pattern that is listed: in a bucket, or an absolute path, the same one for every process."""
    text = as_path(value)
    expected = "expected something like 's3://bucket/catalog/**' or '/data/catalog'"
    if not isinstance(text, str) or is_none(text):
        found = "blank" if isinstance(text, str) and text.isspace() else shown(text)
        raise BadInput(f"{name} is {found}, {expected}.")
    try:
        if bucket_address(text) is not None:
            return text
        path = local_path(text)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None
    if path is None:
        raise BadInput(f"{name} is {shown(masked(text))}: a web address has no listing; {expected}.")
    if not path.is_absolute():
        raise BadInput(f"{name} is {shown(text)}, {expected}; a path has to be absolute.")
    return text


def _read_base(name: str, value: object) -> str | None:
    """Return the address of a bucket or a web site, or an absolute path."""
    text = as_path(value)
    if is_none(text):
        return None
    if isinstance(text, str) and ("://" in text or text.startswith("/")):
        return text
    found = shown(text)
    raise BadInput(f"{name} is {found}, expected something like 's3://bucket/' or '/data/catalog', an absolute path.")


def _read_images(name: str, value: object) -> Any:
    """Return the list, its text read; or the path of a listing file. Its items are read by `parse_images`."""
    images = as_path(value)
    if is_none(images):
        hint = "an upstream task that was skipped gives None, one with nothing to do []"
        raise BadInput(f"{name} is {shown(images)}, expected a list of image uris or dicts; {hint}.")
    if isinstance(images, str) and not is_listing_file(images):
        found = list_in(images)
        if found is None:
            raise BadInput(
                f"{name} is {shown(masked(images))}, expected a list: put it into brackets, or use "
                "DescribeImageOperator for one."
            )
        return found
    if isinstance(images, bytes | Mapping) or not isinstance(images, Iterable):
        raise BadInput(f"{name} is {shown(images)}, expected a list of image uris or dicts.")
    return images


def _read_image(name: str, value: object) -> Any:
    """Return one image: a uri or path, or a dict, its text read."""
    image = as_path(value)
    if isinstance(image, str) and image.strip().startswith("{") and isinstance(found := value_in(image), Mapping):
        return found
    is_one = isinstance(image, Mapping) or (isinstance(image, str) and not is_none(image) and list_in(image) is None)
    if not is_one or is_listing_file(image):
        found = masked(image) if isinstance(image, str) else image
        raise BadInput(f"{name} is {shown(found)}, expected one image; DescribeImagesOperator takes many.")
    return image


def _read_defer_after(name: str, value: object) -> float:
    seconds = parse_seconds(name, value)
    longest_wait(seconds, can_defer=False)
    return seconds


def _read_poll_interval(name: str, value: object) -> float:
    # Of a trigger alone, which has no templates: a text is a mistake.
    check_seconds(name, value, 1.0)
    return parse_seconds(name, value)


def _read_types(name: str, value: object) -> list[str] | None:
    if is_none(value):
        return None
    expected = "a list of suffixes such as ['jpg', 'png'], or ['*']"
    types = parse_list(name, value, expected)
    if not types or not all(isinstance(suffix, str) and suffix.strip() for suffix in types):
        raise BadInput(f"{name} is {repr(types)[:80]}, expected {expected}.")
    return [suffix.strip() for suffix in types]


def _read_results(name: str, value: object) -> list[str] | None:
    """Return the paths of result files: of one or several manifests, or as they are given."""
    if is_none(value):
        return None
    value = value_in(value) if isinstance(value, str) and value.strip()[:1] in ("{", "[", "(") else as_path(value)
    found = value if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) else [value]
    paths: list[str] = []
    for one in found:
        path = one.get("results") if isinstance(one, Mapping) else as_path(one)
        if not isinstance(path, str) or not is_listing_file(path):
            raise BadInput(
                f"{name} is {shown(path)}, expected the manifest of a DescribeImagesOperator with a store, the path "
                "of its result file, or a list of these."
            )
        paths.append(path)
    return paths


def _read_share(name: str, value: object) -> float:
    share = parse_number(name, value, "a share above 0, up to 1", most=1.0)
    if not share:
        raise BadInput(f"{name} is {shown(value)}, expected a share above 0, up to 1.")
    return share


def _read_failed_rules(name: str, value: object) -> bool | tuple[str, ...]:
    """Return whether only images that failed a rule are meant, or the names of the rules."""
    try:
        return parse_bool(name, value)
    except BadInput:
        expected = "True, False, or a list of names of rules such as ['MinWords']"
        names = parse_list(name, value, expected)
        if not names or not all(isinstance(one, str) and one.strip() for one in names):
            raise BadInput(f"{name} is {repr(names)[:80]}, expected {expected}.") from None
        return tuple(one.strip() for one in names)


def _optional(read: Reader) -> Reader:
    return lambda name, value: None if is_none(value) else read(name, value)


_read_usd = partial(parse_number, expected="USD of 0 or more, such as 0.5")

READERS: Mapping[str, Reader] = {
    "chunk_size": partial(parse_int, least=1),
    "concurrency": partial(parse_whole, least=1, most=1024),
    "defer_after": _read_defer_after,
    "deferrable": parse_bool,
    "describer_conn_id": parse_text,
    "failed_rules": _read_failed_rules,
    "fallback_conn_ids": _read_conn_ids,
    "dry_run": parse_bool,
    "image": _read_image,
    "images": _read_images,
    "images_base": _read_base,
    "inline_limit": parse_whole,
    "lang": _read_lang,
    "limit": partial(parse_int, least=1),
    "max_calls": parse_int,
    "max_cost": _optional(_read_usd),
    "max_failure_ratio": partial(parse_number, expected="a share from 0 to 1", most=1.0),
    "max_images": partial(parse_whole, least=1, most=MAX_IMAGES),
    "max_lost_calls": partial(parse_whole, least=1),
    "max_pixels": partial(parse_int, least=FEWEST_PIXELS),
    "max_size": parse_int,
    "min_credits": _read_usd,
    "min_images": partial(parse_whole, least=1),
    "min_size": parse_int,
    "on_claimed": partial(parse_choice, choices=get_args(OnClaimed)),
    "on_unknown": partial(parse_choice, choices=get_args(OnUnknown)),
    "only_new": parse_bool,
    "path": _read_path,
    "poll_interval": _read_poll_interval,
    "prompt": read_prompt,
    "results": _read_results,
    "results_format": partial(parse_choice, choices=get_args(ResultsFormat)),
    "retry_rejected": parse_bool,
    "rules": parse_rules,
    "settle_seconds": parse_seconds,
    "share": _read_share,
    "skip_if_empty": parse_bool,
    "slice_size": partial(parse_whole, least=1),
    "state_path": _read_state_path,
    "storage_conn_id": _optional(parse_text),
    "store": _read_store,
    "stricter_prompt": read_prompt,
    "subject": parse_text,
    "types": _read_types,
}
"""`modified_after` and `modified_before` depend on the time, see `read_arguments`."""
