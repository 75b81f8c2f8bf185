"""The document as bytes: it is read as it was written, and a damaged one is never taken for a new one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_describer.errors import StoreError
from airflow_provider_describer.quota.document import LeaseDocument, decode_leases, encode_leases
from airflow_provider_describer.quota.leases import Grant, Lease, Leases
from airflow_provider_describer.storage.cas_document import LocalDocument, MemoryDocument

moments = st.floats(0, 4e9, allow_nan=False)
money = st.dictionaries(st.sampled_from(["2025-11-21", "2025-11-22"]), st.integers(0, 10**12))
whole = st.builds(
    Leases,
    next_at=moments,
    free=st.lists(moments, max_size=5).map(tuple),
    paused_until=moments,
    spent=money,
    holders=st.dictionaries(st.text(max_size=5), st.builds(Lease, moments, moments, money, money), max_size=3),
)
FULL = Leases(5.0, (6.0,), 1.0, {"2025-11-21": 15}, {"a": Lease(9.0, 8.0, {"2025-11-21": 30}, {"2025-11-21": 45})})


@given(whole)
def test_encoding_and_decoding_returns_the_same_state(leases):
    assert decode_leases("here", encode_leases(leases)) == leases


def test_no_document_is_a_new_state():
    assert decode_leases("here", None) == Leases()


def damaged_documents():
    yield b""
    yield b"\xff\xfe"
    yield encode_leases(FULL)[:-1]
    yield b"[]"
    yield b"null"
    yield b'{"format": "something else", "version": 1}'
    yield b"[" * 100_000
    document = json.loads(encode_leases(FULL))
    for name in set(document) - {"version"}:
        yield json.dumps({key: value for key, value in document.items() if key != name}).encode()
    wrong: dict[str, list[object]] = {
        "next_at": [None, "1", -1, True, float("inf"), float("nan"), []],
        "free": [None, 5, ["x"], [None]],
        "paused_until": [None, -0.5],
        "spent": [None, [], {"2025-11-21": 1.5}, {"2025-11-21": -1}, {"2025-11-21": True}, {"2025-11-21": "1"}],
        "holders": [None, [], {"a": None}, {"a": {}}, {"a": {"until": 1, "sharing_until": 1, "spent": {}, "held": []}}],
    }
    for name, values in wrong.items():
        for value in values:
            yield json.dumps({**document, name: value}).encode()


@pytest.mark.parametrize("content", list(damaged_documents()))
def test_a_damaged_document_is_an_error_that_names_it(content):
    with pytest.raises(StoreError, match=r"^s3://here is damaged.*Restore it") as raised:
        decode_leases("s3://here", content)
    assert raised.value.kind == "corrupt_limits"


def test_a_newer_version_is_an_error_that_names_it():
    document = json.loads(encode_leases(FULL)) | {"version": 2, "free": "something new"}
    with pytest.raises(StoreError, match=r"here was written in version 2.*reads version 1"):
        decode_leases("here", json.dumps(document).encode())


def add(leases, now):
    return Leases(leases.next_at + 1), Grant()


class CountingDocument(LocalDocument):
    """Counts how often it is written."""

    swaps = 0

    def swap(self, content, token):
        self.swaps += 1
        return super().swap(content, token)


def test_only_a_changed_state_is_written(tmp_path):
    counting = CountingDocument(tmp_path / "x.json")
    document = LeaseDocument(counting, lambda: 0.0)
    document.change(add)
    assert document.read().next_at == 1
    before = (tmp_path / "x.json").stat()
    document.change(lambda leases, now: (leases, Grant()))
    assert (tmp_path / "x.json").stat().st_ino == before.st_ino
    assert counting.swaps == 1


def test_a_document_that_vanishes_in_use_is_an_error_and_not_a_new_state(tmp_path):
    document = LeaseDocument(LocalDocument(tmp_path / "x.json"), lambda: 0.0)
    document.change(add)
    (tmp_path / "x.json").unlink()
    with pytest.raises(StoreError, match="vanished"):
        document.read()
    with pytest.raises(StoreError, match="vanished"):
        document.change(add)
    assert not (tmp_path / "x.json").exists()


class Rival(MemoryDocument):
    """Another writer is faster, that many times."""

    def __init__(self, times):
        super().__init__()
        self.times = times
        self.swaps = 0

    def swap(self, content, token):
        self.swaps += 1
        if self.times:
            self.times -= 1
            rival = add(decode_leases("", self.load()[0]), 0.0)[0]
            super().swap(encode_leases(rival), self.load()[1])
        return super().swap(content, token)


def test_the_slower_writer_starts_again_from_the_other_ones_state():
    rival = Rival(3)
    document = LeaseDocument(rival, lambda: 0.0)
    document.change(add)
    assert document.read().next_at == 4 and rival.swaps == 4


def test_a_document_that_changes_all_the_time_is_left_for_later():
    document = LeaseDocument(Rival(10**6), lambda: 0.0)
    document._document.write_interval = 0.0
    with pytest.raises(StoreError) as raised:
        document.change(add)
    assert raised.value.kind == "throttled"
