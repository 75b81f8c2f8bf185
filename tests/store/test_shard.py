"""A shard tells all it was given, or names itself as damaged: never less, and never something else."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.errors import CorruptShard
from airflow_provider_describer.store.shard import encode_shard, json_line, peek, shard_lines, shard_name

EVENTS: list[dict[str, Any]] = [
    {"event": "sent", "call": "c1", "keys": ["k1"], "uri": "/a b.jpg", "at": 1.5},
    {"event": "outcome", "call": "c1", "keys": ["k1"], "status": "described", "text": "Ein «Bär»\nund 🐻\u2028."},
]
SHARD = encode_shard(map(json_line, EVENTS))


def decoded(content):
    return [json.loads(line) for _, line in shard_lines("journal/x.jsonl", content)]


def is_told_or_named(content):
    try:
        return decoded(bytes(content)) == EVENTS
    except CorruptShard as error:
        return "journal/x.jsonl" in str(error)


def test_what_goes_in_comes_out_and_can_be_found_again():
    assert decoded(SHARD) == EVENTS
    for (offset, line), event in zip(shard_lines("x", SHARD), EVENTS, strict=True):
        assert json.loads(SHARD[offset : offset + len(line)]) == event
    assert decoded(encode_shard([])) == []


@given(st.lists(st.dictionaries(st.text(st.characters()), st.text(st.characters()) | st.floats(allow_nan=False))))
def test_any_text_survives(events):
    """Among them lone surrogates: a file name that is no UTF-8, or half an emoji in a vendor's answer."""
    content = encode_shard(map(json_line, events))
    content.decode("utf-8")
    assert decoded(content) == events


@pytest.mark.parametrize("length", range(len(SHARD)))
def test_cut_off_anywhere_it_names_itself(length):
    with pytest.raises(CorruptShard, match=r"journal/x\.jsonl is damaged"):
        decoded(SHARD[:length])


def test_any_flipped_bit_is_found():
    """Or changes nothing that is read, as the case of a letter in the checksum's name would, were there one."""
    for position in range(len(SHARD)):
        for bit in range(8):
            content = bytearray(SHARD)
            content[position] ^= 1 << bit
            assert is_told_or_named(content)


def test_many_random_changes_are_found():
    dice = random.Random(3)
    for _ in range(2000):
        content = bytearray(SHARD)
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(content))
            match dice.randrange(3):
                case 0:
                    content[at] = dice.randrange(256)
                case 1:
                    del content[at]
                case 2:
                    content.insert(at, dice.randrange(256))
        assert is_told_or_named(content)


NO_SHARDS = [b"", b"\n", b"\0" * len(SHARD), b"{}\n", b"[]\n", b"null\n", SHARD + SHARD, SHARD + b"\n"]


@pytest.mark.parametrize("content", NO_SHARDS)
def test_what_is_no_shard_names_itself(content):
    with pytest.raises(CorruptShard, match=r"journal/x\.jsonl is damaged"):
        decoded(content)


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_another_version_is_not_guessed_at(version):
    head, _, body = SHARD.partition(b"\n")
    content = json.dumps({**json.loads(head), "version": version}).encode() + b"\n" + body
    with pytest.raises(CorruptShard, match=r"journal/x\.jsonl was written in version .*Upgrade"):
        decoded(content)


@given(
    st.sampled_from(["sent", "accepted", "closed", "lost", "outcome", "same", "Weiß"]),
    st.text(),
    st.dictionaries(st.text(), st.text()),
    st.booleans(),
)
def test_a_glance_sees_what_reading_would(kind, call, more, call_is_first):
    more.pop("event", None), more.pop("call", None)
    event = {"event": kind, "call": call, **more} if call_is_first else {**more, "event": kind, "call": call}
    assert peek(json_line(event)) == peek(json.dumps(event, indent=1).encode()) == (kind, call)
    assert peek(json_line({"event": kind, **more})) == (kind, "")


def test_names_sort_by_time():
    names = [shard_name(moment, "w") for moment in (0.001, 1.0, 1.5, 86400.0, 1e9, 1.7e9, 4e9)]
    assert names == sorted(names) and len(set(names)) == len(names)
    assert names[4] == "journal/20010909T014640.000-w.jsonl"


@pytest.mark.parametrize("character", [*map(chr, range(0x20)), "\x7f", "\x85", "\u2028", "\u2029", "\udcff", "日"])
def test_a_line_is_one_line_for_every_reader(character: str) -> None:
    values = {"event": "outcome", "call": "1", "uri": f"s3://shop/a{character}b.jpg", "text": "é"}
    line = json_line(values)
    assert len(line.decode().splitlines()) == 1 and json.loads(line) == values
