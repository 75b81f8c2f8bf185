"""Each mistake gets a message of its own that names the input, fails its task once, and costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_describer.emulator.process import EmulatorProcess

# For each task of dags/bad_inputs.py, words that its message must have; {folder} and {red} stand for the paths.
WORDS = {
    "none_for_a_list": ["images is 'None'", "expected a list", "skipped"],
    "string_for_a_list": ["images is '{red}'", "expected a list"],
    "dict_for_a_list": ["images is a dict", "expected a list"],
    "number_in_the_list": ["images[0] is 7 (int)"],
    "blank_image": ["images[0] is ' '"],
    "unknown_key": ["images[0]", "'titel'", "expected some of uri"],
    "unknown_scheme": ["images[0]", "ftp://shop/a.jpg"],
    "unknown_language": ["lang='xx' is not a language that", "expected one of en"],
    "no_language": ["lang is an empty list"],
    "empty_prompt": ["prompt is blank"],
    "prompt_without_its_field": ["{red}", "{{title}}", "fields have name"],
    "blank_store": ["store is blank"],
    "store_is_a_file": ["store is '{red}'", "is a file"],
    "too_many_for_xcom": ["501", "give a store"],
    "no_concurrency": ["concurrency is '0'"],
    "ratio_in_percent": ["max_failure_ratio is '10'"],
    "negative_limit": ["max_calls is '-1'"],
    "cost_without_a_price": ["max_cost", "price_per_call", "'image_describer_default'"],
    "no_such_connection": ["nowhere"],
    "no_key": ["Connection 'keyless'", "password is empty", "Admin > Connections"],
    "other_type": ["Connection 'web'", "its type is 'http'", "expected one of image_describer"],
    "missing_file": ["/nowhere/a.jpg", "there is no such file"],
    "directory": ["{folder}: is a directory"],
    "zero_bytes": ["{folder}/empty.jpg", "0 bytes"],
    "html_as_jpg": ["{folder}/page.jpg", "text/html"],
    "huge_image": ["{folder}/huge.jpg", "60.0 MB"],
    "svg": ["{folder}/drawing.svg", "takes no image/svg+xml"],
    "heic": ["{folder}/photo.heic", "takes no image/heic"],
    "gif_for_segmind": ["{folder}/small.gif", "Segmind takes no image/gif"],
    "german_from_segmind": ["lang='de'", "Segmind"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that is not an image, or not one that the vendor takes."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>")
    (folder / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (folder / "photo.heic").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200))
    Image.new("RGB", (4, 4)).save(folder / "small.gif")
    with (folder / "huge.jpg").open("wb") as huge:
        huge.write(b"\xff\xd8\xff\xe0")
        huge.truncate(60_000_000)
    return folder


@pytest.fixture(scope="module")
def ran(
    airflow_in_process: None,
    emulator_process: EmulatorProcess,
    folder: Path,
    pictures: list[str],
    run_dag: Callable[..., Any],
) -> Any:
    """All the mistakes in one DAG run."""
    emulator_process.reset()
    connections: dict[str, dict[str, Any]] = {
        f"{vendor}_default": {"conn_type": vendor, "password": key, "host": emulator_process.url}
        for vendor, key in emulator_process.keys.items()
    }
    connections["keyless"] = {"conn_type": "segmind", "host": emulator_process.url}
    connections["web"] = {"conn_type": "http", "host": emulator_process.url}
    return run_dag("bad_inputs", connections, file="bad_inputs.py", red=pictures[0], folder=str(folder))


def test_every_mistake_has_its_words(ran: Any) -> None:
    assert set(ran.states) == set(WORDS)


@pytest.mark.parametrize("name", WORDS)
def test_the_message_names_the_input_and_what_was_expected(
    ran: Any, name: str, folder: Path, pictures: list[str]
) -> None:
    # A secrets backend that is down looks to Airflow like a connection that is not there: worth a retry.
    assert (ran.states[name], ran.tries[name]) == ("failed", 4 if name == "no_such_connection" else 1)
    message = str(ran.errors[name])
    for words in WORDS[name]:
        assert words.format(folder=folder, red=pictures[0]) in message


def test_no_two_mistakes_have_the_same_message(ran: Any) -> None:
    messages = [str(error) for error in ran.errors.values()]
    assert len(set(messages)) == len(messages)


def test_none_of_them_reached_a_vendor(ran: Any, emulator_process: EmulatorProcess) -> None:
    ledger = emulator_process.ledger()
    assert (ledger["requests"], ledger["billed"], ledger["entries"]) == (0, 0, [])
