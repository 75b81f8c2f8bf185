"""Every argument of every task and trigger: what its text and its value are read as, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.arguments import is_template
from airflow_provider_describer.engine.task_arguments import READERS, read_arguments, read_literals
from airflow_provider_describer.errors import BadInput
from airflow_provider_describer.rules import MinWords, NoMarkdown

NOW = 1_700_000_000.0
NONE = (None, "None", " None\n", "", "  ")
"""What means None where that is the default, and is refused elsewhere."""
NAN, INF = float("nan"), float("inf")
NO_NUMBERS: tuple[Any, ...] = (
    "$5",
    "10%",
    "5 USD",
    "1,5",
    "0x10",
    "1_000",
    "²",
    "five",
    "nan",
    "inf",
    NAN,
    INF,
    -INF,
    True,
    "True",
    [],
    {},
)
NO_BOOLS: tuple[Any, ...] = ("maybe", "2", 2, -1, 0.0, 1.0, "truee", "None", None, "", " ", [], {}, "[]", object())


class Cloudy:
    """As Airflow's ObjectStoragePath: its text names the connection, its path does not."""

    def __init__(self, protocol: str, path: str) -> None:
        self.protocol, self.path = protocol, path


class Numpy:
    """As a number of numpy: neither an int nor registered as one, and with the text of one."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


Numpy.__module__ = "numpy"

BOOLS = [
    (True, True),
    (False, False),
    ("True", True),
    ("False", False),
    (" false ", False),
    ("TRUE", True),
    ("yes", True),
    ("No", False),
    ("on", True),
    ("off", False),
    ("1", True),
    ("0", False),
    (1, True),
    (0, False),
    (Numpy("False"), False),
]


def wholes(least: int, most: int | None = None) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """What is a whole number from least to most, and what is none."""
    low, high = str(least), str(most or 10**9)
    good = [(least, least), (low, least), (f" {low}\n", least), (Decimal(low), least), (high, int(high))]
    bad = [least - 1, str(least - 1), -1, "-1", least + 0.5, f"{least}.5", "1e3", "16.0", "9" * 5000, Fraction(7, 2)]
    bad += [number for number in NO_NUMBERS if number not in (most or INF, INF)] + [INF, -INF]
    if most is not None:
        bad += [most + 1, str(most + 1)]
    return good, bad


def numbers(least: float, most: float) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """What is a number from least to most, and what is none."""
    good = [(least, least), (str(least), least), (most, most), (f" {most} ", most)]
    good += [(Decimal(str(most)), most), (Fraction(most), most)]
    bad = [least - 0.5, str(least - 0.5), Decimal(-1), Decimal("NaN"), "1e999", 10**400, *NO_NUMBERS]
    return good, bad


def optional(table: tuple[list[tuple[Any, Any]], list[Any]]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    return [*table[0], *((none, None) for none in NONE)], table[1]


def required(table: tuple[list[tuple[Any, Any]], list[Any]]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    return table[0], [*table[1], *NONE]


def choices(*names: str) -> tuple[list[tuple[Any, Any]], list[Any]]:
    good = [pair for name in names for pair in ((name, name), (f" {name}\n", name))]
    return good, [names[0][:-1], names[0].upper(), f"{names[0]},{names[1]}", 0, True, [names[0]], object(), *NONE]


LISTS = [  # of texts
    (["de"], ["de"]),
    (("de", "fr"), ["de", "fr"]),
    ("['de', 'fr']", ["de", "fr"]),
    ('["de", "fr"]', ["de", "fr"]),
    ("('de', 'fr')", ["de", "fr"]),
    (" ['de']\n", ["de"]),
]
PLACES = [
    ("/data/a", "/data/a"),
    (Path("/data/a"), "/data/a"),
    ("file:///data/a", "file:///data/a"),
    ("s3://shop/a", "s3://shop/a"),
    ("gs://shop/a/", "gs://shop/a/"),
    (Cloudy("s3", "shop/a"), "s3://shop/a"),
    (Cloudy("gcs", "shop/a"), "gs://shop/a"),
    (Cloudy("file", "/data/a"), "/data/a"),
]
NO_PLACES = [
    "data/a",
    "./a",
    "../a",
    "~/a",
    "~",
    Path("a"),
    "a b",
    "ftp://h/a",
    "s3://",
    "gcs://shop/a",
    7,
    True,
    ["/a"],
    b"/a",
]
NO_FOLDERS = ["https://h/a", "s3://shop/a//b", "s3://shop/../b", "s3://me:hush@shop/a", "file://host/a"]
STORE = [("/data/a ", "/data/a"), (" s3://shop/a\n", "s3://shop/a"), *PLACES]
IMAGES: list[tuple[Any, Any]] = [
    (["/a.jpg"], ["/a.jpg"]),
    ([], []),
    ("[]", []),
    ("['/a.jpg', '/b.jpg']", ["/a.jpg", "/b.jpg"]),
    ('["/a.jpg"]', ["/a.jpg"]),
    (
        "[{'uri': 's3://shop/it\\'s.jpg', 'version': None, 'size': 7}]",
        [{"uri": "s3://shop/it's.jpg", "version": None, "size": 7}],
    ),
    ('[{"uri": "/a.jpg", "version": null}]', [{"uri": "/a.jpg", "version": None}]),
    ("/data/list.csv", "/data/list.csv"),
    ("s3://shop/list.JSONL", "s3://shop/list.JSONL"),
    (Path("/data/list.parquet"), "/data/list.parquet"),
]

# For each argument: what it may be and what that means, and what is refused.
PROMPTS: Any = (
    [
        ("What is it?", "What is it?"),
        (" x ", " x "),
        ("None of these?", "None of these?"),
        (None, None),
        ("None", None),
    ],
    ["", " ", "\n", 7, True, ["x"], object()],
)
TABLE: dict[str, tuple[list[tuple[Any, Any]], list[Any]]] = {
    "chunk_size": optional(wholes(1)),
    "concurrency": required(wholes(1, 1024)),
    "defer_after": required(numbers(15.0, 3600.0)),
    "deferrable": (BOOLS, [*NO_BOOLS]),
    "describer_conn_id": ([("shop", "shop"), (" shop\n", "shop")], [*NONE, 7, True, ["shop"]]),
    "dry_run": (BOOLS, [*NO_BOOLS]),
    "fallback_conn_ids": (
        [(None, ()), ("", ()), ("a", ("a",)), (["a", "b"], ("a", "b")), ("['a', 'b']", ("a", "b"))],
        [7, True, [7], [""], ["a", "a"]],
    ),
    "failed_rules": (
        [*BOOLS, (["MinWords"], ("MinWords",)), ("['MinWords', 'Short']", ("MinWords", "Short"))],
        [*NONE, "MinWords", [], "[]", [""], [7], 7, {"MinWords": 8}],
    ),
    "image": (
        [
            ("/a.jpg", "/a.jpg"),
            ("[1].jpg", "[1].jpg"),
            ("{a}.jpg", "{a}.jpg"),
            (Path("/a.jpg"), "/a.jpg"),
            (Cloudy("s3", "shop/a.jpg"), "s3://shop/a.jpg"),
            ({"uri": "/a.jpg"}, {"uri": "/a.jpg"}),
            ("{'uri': '/a.jpg', 'version': None}", {"uri": "/a.jpg", "version": None}),
            ('{"uri": "/a.jpg", "version": null}', {"uri": "/a.jpg", "version": None}),
        ],
        [*NONE, 7, True, ["/a.jpg"], "['/a.jpg']", "[]", "/data/list.csv", b"/a.jpg", object()],
    ),
    "images": (
        IMAGES,
        [
            *NONE,
            "/a.jpg",
            "https://h/a.jpg?sig=hush",
            {"uri": "/a.jpg"},
            "{'uri': '/a.jpg'}",
            7,
            True,
            b"a",
            "[1",
            object(),
        ],
    ),
    "images_base": optional(
        ([*PLACES, ("https://h/a/", "https://h/a/")], ["data", "./a", "~/a", Path("a"), 7, ["/a"], b"/a"])
    ),
    "inline_limit": required(wholes(0)),
    "lang": (
        [("de", "de"), (" de\n", "de"), *LISTS],
        [
            *NONE,
            "englsh",
            "EN",
            "de,fr",
            ["de", "x"],
            "['de', 'x-']",
            [],
            "[]",
            ["de", "de"],
            [7],
            7,
            True,
            {"de": 1},
            [["de"]],
        ],
    ),
    "limit": optional(wholes(1)),
    "max_calls": optional(wholes(0)),
    "max_cost": optional(numbers(0.0, 2.5)),
    "max_failure_ratio": required((numbers(0.0, 1.0)[0], [*numbers(0.0, 1.0)[1], 1.01, "2", 10])),
    "max_images": required(wholes(1, 50)),
    "max_lost_calls": required(wholes(1)),
    "max_pixels": optional(wholes(1024)),
    "max_size": optional(wholes(0)),
    "min_credits": required(numbers(0.0, 2.5)),
    "min_images": required(wholes(1)),
    "min_size": optional(wholes(0)),
    "modified_after": ([], []),  # below
    "modified_before": ([], []),
    "on_claimed": choices("wait", "skip"),
    "on_unknown": choices("retry", "hold", "fail"),
    "only_new": (BOOLS, [*NO_BOOLS]),
    "path": (
        [*PLACES, ("s3://shop/**/a b?.jpg", "s3://shop/**/a b?.jpg"), ("/data/** ", "/data/** ")],
        [*NO_PLACES, *NONE, "https://h/a?sig=hush", "s3://me:hush@shop/a"],
    ),
    "poll_interval": ([(1, 1.0), (60.0, 60.0)], [0, 0.5, "60", -1, NAN, INF, True, *NONE]),
    "prompt": PROMPTS,
    "results": optional(
        (
            [
                ({"store": "/s", "results": "/s/results/a.jsonl"}, ["/s/results/a.jsonl"]),
                ("{'store': '/s', 'results': '/s/results/a.parquet'}", ["/s/results/a.parquet"]),
                ([{"results": "/s/a.jsonl"}, "/s/b.jsonl"], ["/s/a.jsonl", "/s/b.jsonl"]),
                ("['/s/a.jsonl']", ["/s/a.jsonl"]),
                ("s3://shop/results/a.jsonl", ["s3://shop/results/a.jsonl"]),
                (Path("/s/a.jsonl"), ["/s/a.jsonl"]),
                ([], []),
            ],
            [{"results": None}, {"store": "/s"}, "/s/a.jpg", [None], ["/s/a.jsonl", 7], 7, True, "[1"],
        )
    ),
    "results_format": choices("jsonl", "parquet"),
    "retry_rejected": (BOOLS, [*NO_BOOLS]),
    "rules": (
        [
            ([MinWords(8)], (MinWords(8),)),
            ("MinWords(8)", (MinWords(8),)),
            ("['MinWords(8)', NoMarkdown()]", (MinWords(8), NoMarkdown())),
            *((none, ()) for none in NONE),
        ],
        [7, True, {"rule": "MinWords"}, "MinWords", "MinWords(0)", ["MinWords(8)", "MinWords(8)"], [None], b"x"],
    ),
    "settle_seconds": required(numbers(0.0, 60.0)),
    "share": required((list(numbers(0.5, 1.0)[0]), ["0", 0, -0.5, 1.5, "2", *NO_NUMBERS])),
    "skip_if_empty": (BOOLS, [*NO_BOOLS]),
    "slice_size": required(wholes(1)),
    "state_path": (STORE, [*NO_PLACES, *NO_FOLDERS, *NONE, "/data/{{ ds }}"]),
    "storage_conn_id": optional(([("shop", "shop")], [7, True, ["shop"]])),
    "store": (
        [*STORE, (None, None), ("None", None)],
        [*NO_PLACES, *NO_FOLDERS, "", " ", "\n", "/data/{{ ds }}", "s3://shop/{% if x %}"],
    ),
    "stricter_prompt": PROMPTS,
    "subject": ([("Look!", "Look!"), (" Look!\n", "Look!")], [*NONE, 7, True, ["Look!"]]),
    "types": optional(
        (
            [*LISTS, (["*"], ["*"]), ([" jpg "], ["jpg"])],
            ["jpg", "jpg,png", "*", [], "[]", [""], ["jpg", None], [7], 7, True, {"jpg": 1}, b"jpg", object()],
        )
    ),
}
GOOD = [(name, given, value) for name, (good, _) in TABLE.items() for given, value in good]
BAD = [(name, given) for name, (_, bad) in TABLE.items() for given in bad]


def read(name: str, value: object) -> Any:
    return getattr(read_arguments({name: value}, NOW), name)


def test_a_list_that_is_wrong_is_not_answered_with_expected_a_list() -> None:
    for types, shown in (([], "[]"), ([""], "['']"), ("['jpg', 7]", "['jpg', 7]")):
        with pytest.raises(BadInput) as caught:
            read("types", types)
        assert str(caught.value).startswith(f"types is {shown}, expected a list of suffixes such as")


def test_the_table_has_every_argument() -> None:
    assert set(TABLE) == {*READERS, "modified_after", "modified_before"}


@pytest.mark.parametrize(("name", "given", "value"), GOOD)
def test_a_value_and_its_text_are_the_same(name: str, given: object, value: object) -> None:
    found = read(name, given)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(("name", "given"), BAD)
def test_what_cannot_work_is_refused_by_name(name: str, given: object) -> None:
    with pytest.raises(BadInput) as caught:
        read(name, given)
    said = str(caught.value)
    assert said.startswith((f"{name} is ", f"{name} names ", f"{name}: ")), said
    assert "hush" not in said and len(said) < 600
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("when", "epoch"),
    [
        ("1 day, 0:00:00", NOW - 86400),
        ("0:30:00", NOW - 1800),
        ("2 days", NOW - 2 * 86400),
        (timedelta(minutes=30), NOW - 1800),
        ("2026-01-01 00:00:00+00:00", 1767225600.0),
        ("2026-01-01", 1767225600.0),
        (date(2026, 1, 1), 1767225600.0),
        (datetime(2026, 1, 1, tzinfo=UTC), 1767225600.0),
        # {{ ds_nodash }}, as text and natively
        ("20260101", 1767225600.0),
        (20260101, 1767225600.0),
        ("1767225600", 1767225600.0),
        ("1767225600.5", 1767225600.5),
        (1767225600, 1767225600.0),
        (Decimal("1767225600.5"), 1767225600.5),
        *((none, None) for none in NONE),
    ],
)
def test_a_time_and_its_text_are_the_same(when: object, epoch: float | None) -> None:
    assert read("modified_after", when) == read("modified_before", when) == epoch


@pytest.mark.parametrize(
    "when", ["2026", "31.01.2026", "tomorrow", "nan", NAN, INF, True, [], "20261301", "1:2", "-5", object(), 10**400]
)
def test_what_is_no_time_is_refused(when: object) -> None:
    with pytest.raises(BadInput, match=r"^modified_after is "):
        read("modified_after", when)


@given(st.sampled_from(sorted(TABLE)), st.text(max_size=12) | st.floats() | st.integers() | st.booleans() | st.none())
def test_any_text_or_number_is_read_or_refused(name: str, value: object) -> None:
    try:
        read(name, value)
    except BadInput as error:
        said = str(error)
    else:
        return
    assert said.startswith(name)


@given(st.integers(0, 10**12))
def test_a_whole_number_and_what_jinja_makes_of_it_are_the_same(number: int) -> None:
    assert read("max_calls", number) == read("max_calls", str(number)) == number


@given(st.floats(0, 1e9, allow_nan=False))
def test_usd_and_what_jinja_makes_of_it_are_the_same(usd: float) -> None:
    assert read("max_cost", usd) == read("max_cost", str(usd)) == read("max_cost", Decimal(repr(usd))) == usd


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda of: st.lists(of) | st.dictionaries(st.text(), of),
)


@given(st.lists(_JSON, max_size=4))
def test_a_list_of_images_and_its_text_are_the_same(images: list[Any]) -> None:
    # A lone surrogate has no JSON in UTF-8, but Python's text has it.
    assert read("images", str(images)) == read("images", json.dumps(images)) == images


# --- what is not rendered yet ---


class Unrendered:
    def iter_references(self) -> tuple[()]:
        return ()

    def resolve(self, context: Mapping[str, Any]) -> Any: ...


TEMPLATES = [
    "{{ params.x }}",
    "{% if x %}1{% endif %}",
    "{# nothing #}1",
    Unrendered(),
    lambda context, jinja_env: 1,
    ["a", "{{ b }}"],
    [{"uri": "{{ b }}"}],
    ("{{ a }}",),
    {"uri": "{{ b }}"},
    Cloudy("s3", "shop/{{ ds }}"),
]


@pytest.mark.parametrize("value", TEMPLATES)
@pytest.mark.parametrize("name", TABLE)
def test_what_airflow_is_still_to_render_is_left_alone(name: str, value: object) -> None:
    assert is_template(value)
    assert vars(read_literals({name: value}, NOW)) == {}


@pytest.mark.parametrize(
    "value", [None, 0, False, "a", "{a}", "50%", ["a"], {"uri": "a"}, Path("/a"), timedelta(1), NOW]
)
def test_what_is_no_template_is_read_at_once(value: object) -> None:
    assert not is_template(value)


def test_a_literal_is_read_beside_templates() -> None:
    known = read_literals({"max_calls": "7", "max_cost": "{{ x }}"}, NOW)
    assert vars(known) == {"max_calls": 7}
    with pytest.raises(BadInput, match="max_calls is -7"):
        read_literals({"max_cost": "{{ x }}", "max_calls": -7}, NOW)
