"""What users pass as ``images``, made into requests, or refused with the item and the fix named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_describer.errors import BadInput, RejectedImage
from airflow_provider_describer.images.listing_file import is_listing_file
from airflow_provider_describer.images.reference import parse_image, parse_images
from airflow_provider_describer.models import DescribeRequest
from airflow_provider_describer.vendors import get_vendor

IMAGE_DESCRIBER, SEGMIND = get_vendor("image_describer"), get_vendor("segmind")


KEYS = ("uri", "version", "size", "prompt", "lang", "fields", "id")


def set_or_item(values: tuple[Any, ...]) -> Any:
    """A set, or the value itself where a set cannot hold it."""
    try:
        return set(values)
    except TypeError:
        return values[0]


def requests(images: Any, **options: Any) -> list[DescribeRequest]:
    return parse_images(images, options.pop("vendor", IMAGE_DESCRIBER), **options)


def refusal(images: Any, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        requests(images, **options)
    return str(caught.value)


def flaw(images: Any, **options: Any) -> RejectedImage:
    """What is said of the last entry of a list; the others are good."""
    *good, bad = requests(images, **options)
    assert not any(request.flaw for request in good) and bad.flaw
    assert bad.flaw.billed == "no" and bad.spec.vendor == IMAGE_DESCRIBER.name
    return bad.flaw


def uris(images: Any, **options: Any) -> list[str]:
    return [request.image.uri for request in requests(images, **options)]


def prompt(text: object, **fields: object) -> str | None:
    (request,) = requests([{"uri": "a.jpg", "fields": fields}], prompt=text)
    return request.spec.prompt


def test_uris_paths_and_dicts_in_the_order_given(tmp_path: Path) -> None:
    given = ["b.jpg", tmp_path / "a.jpg", {"uri": "https://shop.example/c.jpg", "id": 7, "version": 3, "size": 10}]
    found = requests(given)
    assert [request.image.uri for request in found] == ["b.jpg", str(tmp_path / "a.jpg"), "https://shop.example/c.jpg"]
    assert (found[2].id, found[2].image.version, found[2].image.size) == ("7", "3", 10)
    assert {(request.spec.prompt, request.spec.lang) for request in found} == {(IMAGE_DESCRIBER.default_prompt, "en")}


@pytest.mark.parametrize("images", [("a", "b"), iter(["a", "b"]), {"a": 1, "b": 2}.keys(), (x for x in "ab")])
def test_whatever_can_be_gone_through_is_a_list(images: object) -> None:
    assert uris(images) == ["a", "b"]


def test_lists_of_lists_as_mapped_tasks_return_them_are_one_list() -> None:
    assert uris([["a", "b"], [], ["c"], "d"]) == ["a", "b", "c", "d"]
    assert uris([[["a"], ["b", "c"]], [[], [{"uri": "d"}]]]) == ["a", "b", "c", "d"]


class Lazy(Sequence[object]):
    """As Airflow hands over what mapped tasks have returned: fetched one by one, and no list."""

    def __init__(self, *values: object) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]


def test_what_mapped_tasks_have_returned_is_one_list(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('"c"\n{"uri": "d", "version": "v"}\n')
    assert uris(Lazy(["a", "b"], str(tmp_path / "a.jsonl"), [{"uri": "e"}], [["f"], ["g"]])) == list("abcdefg")
    assert requests(Lazy()) == []


def test_an_empty_list_asks_nothing() -> None:
    assert requests([]) == []
    assert requests([[], []]) == []


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ("s3://bucket/a.jpg", "'s3://bucket/a.jpg' (str), expected a list: put it into brackets"),
        (b"a.jpg", "a bytes, expected a list"),
        (Path("a.jpg"), "expected a list"),
        ({"uri": "https://shop.example/a.jpg?sig=hush"}, "a dict with the keys 'uri', expected a list"),
        ("https://shop.example/a.jpg?sig=hush", "'https://shop.example/a.jpg?…' (str), expected a list"),
        ("https://shop.example/list.csv", "not from the web"),
        ("s3://bucket/list.jsonl", "no bucket can be opened here"),
        ("/nowhere/list.jsonl", "there is no such file"),
        (None, "None (NoneType), expected a list"),
        (7, "7 (int), expected a list"),
    ],
)
def test_what_is_no_list_is_refused(images: object, says: str) -> None:
    found = refusal(images)
    assert found.startswith("images is ") and says in found
    assert "hush" not in found


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (7, "images[1] is 7 (int), expected an image uri such as '/data/a.jpg'"),
        (None, "images[1] is None"),
        ("", "images[1] is ''"),
        ("  ", "images[1] is '  '"),
        (b"a.jpg", "images[1] is a bytes"),
        ({}, "images[1] is None"),
        ({"uri": ["https://x.example/?sig=hush"]}, "images[1] is a list"),
        ({"https://x.example/?sig=hush"}, "images[1] is a set"),
        ([[7]], "images[1][0][0] is 7 (int)"),
        ("a\0.jpg", "NUL"),
        ("https://x.example/a\0.jpg?sig=hush", "NUL"),
        ("ftp://me:hush@x.example/a.jpg", "images[1] (ftp://x.example/a.jpg): "),
        ("https://[oops/a.jpg?sig=hush", "images[1] (https://[oops/a.jpg?…): "),
        ("https:///a.jpg", "not a valid address"),
        ({"url": "a.jpg", "Prompt": "x"}, "images[1] has the unknown key 'Prompt', 'url'; expected some of uri, "),
        ({"uri": "a.jpg", "title": "x"}, "values for the prompt go into 'fields'"),
        ({"uri": "a.jpg", "lang": "xx"}, "images[1] (a.jpg): lang='xx'"),
        ({"uri": "a.jpg", "lang": 7}, "images[1] (a.jpg): lang=7"),
        ({"uri": "a.jpg", "prompt": " "}, "images[1] (a.jpg): prompt is blank"),
        ({"uri": "a.jpg", "prompt": ["x"]}, "images[1] (a.jpg): prompt is a list, expected a text"),
        ({"uri": "a.jpg", "fields": "red"}, "images[1] (a.jpg): fields is 'red' (str), expected a dict"),
        (
            {"uri": "a.jpg", "prompt": "The {title}", "fields": {"name": "x"}},
            "images[1] (a.jpg): prompt asks for {title}",
        ),
    ],
)
def test_a_bad_entry_is_named_with_what_was_expected(item: object, says: str) -> None:
    found = flaw(["good.jpg", item])
    assert says in str(found)
    assert found.kind == ("bad_address" if any(word in says for word in ("NUL", "://", "address")) else "bad_entry")
    assert "hush" not in f"{found}"
    # Where it is the only one, or all are like it, it is the list that is wrong.
    for alone in ([item], [item, item, item]):
        assert says.replace("[1]", "[0]") in refusal(alone)


@pytest.mark.parametrize("empty", [None, float("nan"), "", "  ", "\n", {}, {"uri": None}, {"uri": float("nan")}])
def test_an_empty_cell_is_an_entry_of_its_own(empty: object) -> None:
    found = requests(["a.jpg", empty, "b.jpg", empty])
    assert [request.image.uri for request in found] == ["a.jpg", "images[1]", "b.jpg", "images[3]"]
    assert [bool(request.flaw) for request in found] == [False, True, False, True]
    assert {request.flaw.kind for request in found if request.flaw} == {"bad_entry"}


class NAType:
    """As pandas' NA, which is neither true nor false."""

    def __bool__(self) -> bool:
        raise TypeError

    def __eq__(self, other: object) -> Any:
        return self

    __hash__ = object.__hash__


@pytest.mark.parametrize("empty", [None, float("nan"), NAType(), "", "None", " None "])
def test_an_empty_cell_beside_the_uri_counts_as_left_out(empty: object) -> None:
    item = {"uri": "a.jpg", "version": empty, "size": empty, "lang": empty, "id": empty}
    assert requests([item, {"uri": "b.jpg"}]) == requests(["a.jpg", "b.jpg"])
    if not isinstance(empty, str) or empty:
        assert requests([{"uri": "a.jpg", "prompt": empty}], prompt="What is it?") == requests(
            ["a.jpg"], prompt="What is it?"
        )
    if not isinstance(empty, str):
        assert requests([{"uri": "a.jpg", "prompt": empty, "fields": empty}]) == requests(["a.jpg"])
        assert "fields have colour" in refusal(
            [{"uri": "a.jpg", "fields": {"title": empty, "colour": "red"}}], prompt="The {title}"
        )


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"version": ["v"]}, "version is a list, expected a text or a number"),
        ({"version": {"etag": "v"}}, "version is a dict with the keys 'etag'"),
        ({"version": b"v"}, "version is a bytes"),
        ({"version": True}, "version is True"),
        ({"size": -1}, "size is -1 (int), expected a number of bytes"),
        ({"size": "-1"}, "size is '-1' (str)"),
        ({"size": 7.5}, "size is 7.5 (float)"),
        ({"size": "7.5"}, "size is '7.5' (str)"),
        ({"size": "12 KB"}, "size is '12 KB'"),
        ({"size": "9" * 5000}, "size is '999"),
        ({"size": float("inf")}, "size is inf"),
        ({"size": True}, "size is True"),
        ({"size": [12]}, "size is a list"),
        ({"id": ["x"]}, "id is a list"),
        ({"id": False}, "id is False"),
        ({"lang": ["en", "de"]}, "lang=['en', 'de']"),
    ],
)
def test_what_is_said_of_an_image_is_checked_for_each(about: dict[str, Any], says: str) -> None:
    found = flaw(["good.jpg", {"uri": "a.jpg", **about}])
    assert str(found).startswith(f"images[1] (a.jpg): {says}") and found.kind == "bad_entry"


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        (" https://h.example/a.jpg ", "https://h.example/a.jpg"),
        ("https://h.example/a.jpg\r\n", "https://h.example/a.jpg"),
        ("\ufeffhttps://h.example/a.jpg\u00a0", "https://h.example/a.jpg"),
        ("\tHTTPS://h.example/a b.jpg", "HTTPS://h.example/a b.jpg"),
        (" s3://shop/a .jpg", "s3://shop/a .jpg"),
        ("s3://shop/a.jpg ", "s3://shop/a.jpg "),
        ("s3://shop/a.jpg\r\n", "s3://shop/a.jpg"),
        ("gs://shop/ a.jpg \n", "gs://shop/ a.jpg "),
        ("\nfile:///data/a%20b.jpg\n", "file:///data/a%20b.jpg"),
        (" a.jpg ", " a.jpg "),
        ("/data/a.jpg ", "/data/a.jpg "),
        # What worked before has the name by which the store knows it.
        ('https://h.example/é|.jpg?q="', 'https://h.example/é|.jpg?q="'),
    ],
)
def test_blanks_around_an_address_are_none_of_it(given: str, uri: str) -> None:
    assert uris([given]) == uris([{"uri": given}]) == [uri]


def test_a_key_from_a_listing_is_literal() -> None:
    assert uris([{"uri": "s3://shop/a.jpg\n", "version": "v"}]) == ["s3://shop/a.jpg\n"]
    assert uris(["a.jpg ", " b.jpg\n"], images_base="s3://shop/") == ["s3://shop/a.jpg ", "s3://shop/ b.jpg\n"]
    assert uris([" a b.jpg\n"], images_base="https://h.example/x/") == ["https://h.example/x/a b.jpg"]


def test_an_image_within_its_address_is_kept_nowhere() -> None:
    (_, bad) = requests(["a.jpg", f"data:image/png;base64,{'A' * 100_000}"])
    assert bad.flaw and bad.flaw.kind == "bad_address" and len(str(bad.flaw)) < 500 and len(bad.image.uri) == 4096


def test_a_row_of_a_bad_entry_can_be_found_again() -> None:
    (_, bad, worse) = requests(
        ["a.jpg", {"uri": "ftp://h/b.jpg", "id": 7, "lang": "xx"}, {"id": 8}], images_base="/data"
    )
    assert (bad.image.uri, worse.image.uri) == ("ftp://h/b.jpg", "images[2]")
    (_, named) = requests(["a.jpg", {"uri": "b.jpg", "id": 7, "lang": "xx"}], images_base="/data")
    assert (named.image.uri, named.id) == ("/data/b.jpg", "7")


@pytest.mark.parametrize("odd", ["digits", "uri", "id", "object"])
def test_nothing_that_is_given_as_an_entry_refuses_the_list(odd: str) -> None:
    # Python writes no number of so many digits.
    entries = {"digits": 10**5000, "uri": {"uri": 10**5000}, "id": {"uri": "b.jpg", "id": 10**5000}, "object": object()}
    assert flaw(["a.jpg", entries[odd]]).kind == "bad_entry"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.dictionaries(st.sampled_from([*KEYS, "x"]) | st.text(), inner) | st.tuples(inner).map(set_or_item),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(entries=st.lists(values | st.dictionaries(st.sampled_from(KEYS), values), max_size=8))
def test_every_entry_is_one_request(entries: list[Any]) -> None:
    # A name that ends like a listing's is a listing.
    entries = [entry for entry in entries if not is_listing_file(entry)]
    found = requests([*entries, "good.jpg"])
    assert len(found) == len(entries) + 1 and not found[-1].flaw
    assert all(request.image.uri and (not request.flaw or request.flaw.billed == "no") for request in found)


def test_entries_that_are_bad_in_several_ways_are_no_fault_of_the_list() -> None:
    assert [request.flaw.kind for request in requests([None, "ftp://h/a.jpg"]) if request.flaw] == [
        "bad_entry",
        "bad_address",
    ]


def test_sizes_and_numbers_as_tables_give_them() -> None:
    found = requests([{"uri": "a", "size": 12.0, "id": 3}, {"uri": "b", "size": " 12 ", "version": 1.5}])
    # As pandas writes a column with an empty cell to CSV.
    found += requests([{"uri": "c", "size": "12.0"}, {"uri": "d", "size": "12."}])
    assert [request.image.size for request in found] == [12] * 4
    assert (found[0].id, found[1].image.version) == ("3", "1.5")


@pytest.mark.parametrize("prompt", ["", "  ", 7, ["x"]])
@pytest.mark.parametrize("images", [[], ["a.jpg"], [{"uri": "a.jpg", "prompt": "Own."}, None]])
def test_a_prompt_that_is_none_is_no_images_fault(prompt: Any, images: list[Any]) -> None:
    assert refusal(images, prompt=prompt).startswith("prompt is ")
    assert "lang='xx'" in refusal(images, lang="xx")


def test_a_missing_field_names_those_there_are() -> None:
    found = refusal([{"uri": "a.jpg", "fields": {"name": "x", "colour": "red"}}], prompt="The {title}")
    assert "fields have colour, name" in found and "{{title}}" in found
    assert "fields have none" in refusal(["a.jpg"], prompt="The {title}")


def test_a_prompt_is_filled_from_each_images_fields() -> None:
    images = [{"uri": f"{n}.jpg", "fields": {"title": f"shoe {n}", "no": n}} for n in range(3)]
    found = requests(images, prompt="Describe {title}, number {no}.")
    assert [request.spec.prompt for request in found] == [f"Describe shoe {n}, number {n}." for n in range(3)]


def test_an_images_own_prompt_and_language_come_first() -> None:
    (own, none) = requests(
        [{"uri": "a", "prompt": "Own.", "lang": "fr"}, {"uri": "b", "prompt": None, "lang": None, "fields": None}],
        prompt="Common.",
        lang="de",
    )
    assert (own.spec.prompt, own.spec.lang) == ("Own.", "fr")
    assert (none.spec.prompt, none.spec.lang) == ("Common.", "de")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("The {title}.", "The shoe."),
        ("{title}{title}", "shoeshoe"),
        ("The {{title}}.", "The {title}."),
        ("{{{title}}}", "{shoe}"),
        ('Answer as {"text": …}', 'Answer as {"text": …}'),
        ("a set {} and {0} and { title }", "a set {} and {0} and { title }"),
        ("50 % off {title!r}", "50 % off {title!r}"),
        ("{title.__class__}", "{title.__class__}"),
        ("half {", "half {"),
    ],
)
def test_only_plain_names_in_braces_are_filled(text: str, filled: str) -> None:
    assert prompt(text, title="shoe") == filled


def test_what_is_filled_in_is_not_filled_again() -> None:
    assert prompt("The {title}.", title="{secret} {{x}}") == "The {secret} {{x}}."


@settings(deadline=None)
@given(value=st.text(min_size=1).filter(lambda text: text.strip()))
def test_any_text_is_filled_in_as_it_is(value: str) -> None:
    assert prompt("{x}", x=value) == value


@pytest.mark.parametrize("blank", ["", " \n", "{x}"])
def test_a_blank_prompt_is_refused_before_anything_is_asked(blank: str) -> None:
    assert "prompt is blank" in refusal([{"uri": "a.jpg", "fields": {"x": " "}}], prompt=blank)


def test_several_languages_are_a_request_each() -> None:
    found = requests(["a", "b"], lang=["en", "de"])
    assert [(request.image.uri, request.spec.lang) for request in found] == [
        ("a", "en"),
        ("a", "de"),
        ("b", "en"),
        ("b", "de"),
    ]


@pytest.mark.parametrize(
    ("lang", "says"),
    [
        ("xx", "lang='xx' is not a language that Image Describer writes; expected one of en, zh"),
        (["en", "xx"], "lang='xx'"),
        ([], "lang is an empty list"),
        (None, "lang is None (NoneType); expected a language such as 'en'"),
        (7, "lang is 7 (int)"),
        (["en", None], "lang is a list"),
        ("", "lang is '' (str)"),
        (["en", "de", "en"], "lang is 'en', 'de', 'en'; expected each language once"),
    ],
)
def test_a_language_that_is_none_is_refused(lang: object, says: str) -> None:
    assert says in refusal(["a.jpg"], lang=lang)


def test_a_vendor_that_writes_one_language_says_so() -> None:
    assert "lang='de' is not a language that Segmind writes; expected one of en" in refusal(
        ["a.jpg"], vendor=SEGMIND, lang="de"
    )
    (request,) = requests(["a.jpg"], vendor=SEGMIND, prompt="Anything")
    assert (request.spec.prompt, request.spec.lang) == (None, None)


def test_an_image_that_is_listed_twice_is_two_requests() -> None:
    found = requests(["a.jpg", "b.jpg", "c.jpg", "b.jpg"])
    assert [request.image.uri for request in found] == ["a.jpg", "b.jpg", "c.jpg", "b.jpg"]
    assert found[1] == found[3] and found[1] is not found[3] and found[1].spec is found[3].spec


def test_a_duplicate_that_asks_something_else_or_has_its_own_name_is_none() -> None:
    assert (
        len(requests(["a", {"uri": "a", "prompt": "Else?"}, {"uri": "a", "lang": "de"}, {"uri": "a", "id": "x"}])) == 4
    )
    assert len(requests(["photo #1.jpg", "photo #2.jpg", "https://x.example/a?n=1", "https://x.example/a?n=2"])) == 4


@pytest.mark.parametrize(
    ("base", "uri", "whole"),
    [
        ("/data", "a.jpg", "/data/a.jpg"),
        ("/data/", "sub/a b.jpg", "/data/sub/a b.jpg"),
        ("https://x.example/shop/", "a.jpg", "https://x.example/shop/a.jpg"),
        ("/data", "/elsewhere/a.jpg", "/elsewhere/a.jpg"),
        ("/data", "https://x.example/a.jpg", "https://x.example/a.jpg"),
        (None, "a.jpg", "a.jpg"),
    ],
)
def test_names_are_joined_to_the_base(base: str | None, uri: str, whole: str) -> None:
    assert uris([uri], images_base=base) == [whole]


@pytest.mark.parametrize(
    ("base", "uri", "whole"),
    [
        ("s3://shop", "a.jpg", "s3://shop/a.jpg"),
        ("s3://shop/", "catalog/a b%20#?+é.jpg", "s3://shop/catalog/a b%20#?+é.jpg"),
        ("gs://shop/catalog/", "a.jpg", "gs://shop/catalog/a.jpg"),
        ("s3://shop/catalog", "a.jpg", "s3://shop/catalog/a.jpg"),
        ("s3://shop/catalog//", "a.jpg", "s3://shop/catalog//a.jpg"),
        ("s3://shop/", "/a.jpg", "s3://shop//a.jpg"),
        ("s3://shop/", "odd/http://x/a.jpg", "s3://shop/odd/http://x/a.jpg"),
        ("s3://shop/", "ftp://x/a.jpg", "s3://shop/ftp://x/a.jpg"),
        ("s3://shop/", "gs://other/a.jpg", "gs://other/a.jpg"),
        ("s3://shop/", "https://x.example/a.jpg", "https://x.example/a.jpg"),
        ("s3://aws_default@shop/", "a@b.jpg", "s3://shop/a@b.jpg"),
        ("file:///data/a%20b", "50%20off.jpg", "/data/a b/50%20off.jpg"),
        (Path("/data"), "a.jpg", "/data/a.jpg"),
        ("/", "a.jpg", "/a.jpg"),
        ("", "a.jpg", "a.jpg"),
    ],
)
def test_a_key_is_joined_as_it_is(base: object, uri: str, whole: str) -> None:
    assert uris([uri], images_base=base) == uris([{"uri": uri}], images_base=base) == [whole]


def test_keys_as_s3_list_operator_returns_them_without_those_of_folders() -> None:
    keys = ["catalog/", "catalog/a.jpg", "catalog/sub/", "catalog/sub/b.jpg"]
    assert uris(keys, images_base="s3://shop/") == ["s3://shop/catalog/a.jpg", "s3://shop/catalog/sub/b.jpg"]
    assert str(flaw([["a.jpg"], ["b/"], [7]], images_base="s3://shop/")).startswith("images[2][0] is 7")


@pytest.mark.parametrize(
    ("base", "says"),
    [
        (7, "images_base is 7 (int), expected something like 's3://bucket/'"),
        (b"/data", "images_base is a bytes"),
        ("s3://", "names no bucket"),
        ("gcs://shop/", "write gs://shop/ instead"),
    ],
)
def test_a_base_that_is_none_is_refused(base: object, says: str) -> None:
    assert says in refusal(["a.jpg"], images_base=base)


class StoragePath:
    """As ObjectStoragePath of Airflow 3.2 and later: no PathLike, and its text names the connection."""

    def __init__(self, protocol: str, path: str) -> None:
        self.protocol, self.path = protocol, path

    def __str__(self) -> str:
        return f"{self.protocol}://aws_default@{self.path}"


def test_paths_of_object_storage_without_their_connection() -> None:
    given = [StoragePath("s3", "shop/a b#1.jpg"), StoragePath("file", "/data/50%20off.jpg")]
    wanted = ["s3://shop/a b#1.jpg", "/data/50%20off.jpg"]
    assert uris(given) == uris([{"uri": path} for path in given]) == wanted
    assert uris(["s3://aws_default@shop/a@b.jpg", "gs://google_cloud_default@shop/b.jpg"]) == [
        "s3://shop/a@b.jpg",
        "gs://shop/b.jpg",
    ]
    assert uris(["/data/me@shop.jpg"]) == ["/data/me@shop.jpg"]
    assert "expected a list: put it into brackets" in refusal(StoragePath("s3", "shop/a.jpg"))


def test_a_listing_file_stands_for_its_list(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri,title\na.jpg,Shoe\nb.jpg,Hat\n")
    for listing in (tmp_path / "list.csv", str(tmp_path / "list.csv"), [tmp_path / "list.csv"]):
        found = requests(listing, prompt="The {title}", images_base="s3://shop/")
        assert [(request.image.uri, request.spec.prompt) for request in found] == [
            ("s3://shop/a.jpg", "The Shoe"),
            ("s3://shop/b.jpg", "The Hat"),
        ]


def test_a_listing_does_not_lead_to_another(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('"b.jpg"\n')
    (tmp_path / "a.jsonl").write_text(f'"{tmp_path}/b.jsonl"\n')
    assert uris(tmp_path / "a.jsonl") == [f"{tmp_path}/b.jsonl"]


# --- one image ---


@pytest.mark.parametrize("image", ["a.jpg", Path("a.jpg"), {"uri": "a.jpg"}, StoragePath("file", "a.jpg")])
def test_one_image_is_one_request(image: object) -> None:
    assert parse_image(image, IMAGE_DESCRIBER, prompt="Which?") == requests(["a.jpg"], prompt="Which?")[0]


@pytest.mark.parametrize(
    ("image", "lang", "says"),
    [
        (["a.jpg"], "en", "image is a list, expected one image; DescribeImagesOperator takes many"),
        ((), "en", "image is a tuple"),
        ("/data/list.jsonl", "en", "image is '/data/list.jsonl' (str), expected one image"),
        (Path("list.csv"), "en", "image is 'list.csv' (str)"),
        (StoragePath("s3", "shop/list.parquet"), "en", "image is 's3://shop/list.parquet' (str)"),
        ("https://x.example/?sig=hush&x=.csv", "en", "expected one image"),
        ("a.jpg", ["en", "de"], "lang is a list, expected one language"),
        ("a.jpg", None, "lang is None"),
        (7, "en", "images[0] is 7 (int)"),
    ],
)
def test_what_would_be_several_calls_is_no_one_image(image: object, lang: object, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_image(image, IMAGE_DESCRIBER, lang=lang)
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)
