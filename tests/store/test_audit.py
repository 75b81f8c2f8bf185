"""The store's command line: what it says of a store, and of paths that are none."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_provider_describer.emulator.process import child_environment
from airflow_provider_describer.store.__main__ import main
from airflow_provider_describer.store.shard import encode_shard, json_line


@pytest.fixture
def store(tmp_path, events):
    """A store with all kinds of calls, at two vendors and on two days."""
    put = Put(tmp_path / "store")
    put("1", events.sent("a1", "a", at=1.7e9), events.outcome("a1", "a"), events.sent("b1", "b", at=1.7e9))
    put("2", events.outcome("b2", "b", described_at="2026-01-02T09:00:00.000+00:00", vendor="segmind", prompt=None))
    put("3", events.outcome("c1", "c", "rejected", cost_usd=None, billed="no"), events.lost("a0", "a"))
    put("4", events.outcome("d1", "d", "unknown", cost_usd=None, billed="unknown"), events.sent("e1", "e", at=1.8e9))
    put("5", events.accepted("f1", "f", "request-7", at=1.9e9), events.outcome("a2", "a"))
    return put


class Put:
    def __init__(self, path):
        self.path = path
        (path / "journal").mkdir(parents=True)

    def __call__(self, name, *events):
        (self.path / "journal" / f"{name}.jsonl").write_bytes(encode_shard(map(json_line, events)))


@pytest.fixture
def run(capsys):
    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_check_of_a_whole_store(store, run):
    code, out, _ = run("check", store.path)
    assert code == 0
    assert f"{store.path}: 5 shards, 5 whole, 0 damaged" in out
    assert "1 request runs at the vendor" in out and "request-7" in out
    assert "2 calls sent, or about to be" in out
    assert "2023-11-14 22:13:20+00:00  u" in out
    assert "3 images without a description for which 3 calls may have been paid for" in out


@pytest.mark.parametrize("path", ["store", "./store", "store/", "../{name}/store"])
def test_a_path_may_be_relative_where_a_person_types_it(store, run, monkeypatch, tmp_path, path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("check", path.format(name=tmp_path.name))
    assert code == 0 and "5 shards, 5 whole" in out


def test_check_lists_every_damaged_shard(store, run):
    for name in ("2", "4"):
        shard = store.path / "journal" / f"{name}.jsonl"
        shard.write_bytes(shard.read_bytes()[:-1])
    (store.path / "journal/6.jsonl").write_bytes(b"")
    (store.path / "journal/7.jsonl").mkdir()
    (store.path / "journal/notes.txt").write_text("mine")
    code, out, _ = run("check", store.path)
    assert code == 1
    assert "7 shards, 3 whole, 4 damaged" in out
    for name in ("2", "4", "6"):
        assert f"journal/{name}.jsonl is damaged" in out
    assert "journal/7.jsonl cannot be read" in out
    assert "journal/notes.txt is no shard" in out

    code, out, _ = run("check", store.path, "--json")
    assert code == 1 and len(json.loads(out)["damaged"]) == 4
    for command in ("show", "compact"):
        code, out, err = run(command, store.path)
        assert code == 1 and out == "" and "error: " in err and f"{store.path}/journal/" in err


def test_show_sums_by_vendor_prompt_and_day(store, run):
    code, out, _ = run("show", store.path, "--json")
    assert code == 0
    shown = json.loads(out)
    total = {"described": 3, "rejected": 1, "unknown": 1, "cost_usd": 0.045, "unpriced": 1}
    assert shown["total"] == pytest.approx(total)
    assert {name: one["described"] for name, one in shown["by_vendor"].items()} == {"segmind": 1, "vendor": 2}
    assert {name: one["described"] for name, one in shown["by_prompt"].items()} == {
        "What is it? [en]": 2,
        "(none) [en]": 1,
    }
    assert {name: one["described"] for name, one in shown["by_day"].items()} == {"2026-01-01": 2, "2026-01-02": 1}
    # b1, e1, f1 are open, a0 and d1 are lost; a and b have a description, and a has two.
    assert shown["lost_calls"] == 5 and shown["perhaps_twice"] == 2 and shown["described_again"] == 1
    assert shown["twice_cost_usd"] == pytest.approx(0.045)


def test_show_for_people(store, run):
    code, out, _ = run("show", store.path)
    lines = out.splitlines()
    assert code == 0 and lines[0] == str(store.path)
    assert lines[2].split() == ["vendor", "described", "rejected", "unknown", "cost", "of", "no", "known", "price"]
    assert lines[3].split() == ["segmind", "1", "0", "0", "$0.015", "0"]
    assert "total" in out and "$0.045" in out
    assert "5 calls were sent and have no answer here" in out
    assert "3 calls were, or may have been, paid for a second time (1 image described again, 2 answers lost)" in out


def test_a_prompt_cannot_write_to_the_terminal(tmp_path, events, run):
    put = Put(tmp_path)
    put("1", events.outcome("a", prompt="line\nbreak \x1b[31mred " + "x" * 100, lang=None))
    _, out, _ = run("show", tmp_path)
    assert "\x1b" not in out and "line break [31mred xxx" in out and "…" in out


def test_a_name_that_is_no_utf8_is_shown(tmp_path, events, run):
    Put(tmp_path)("1", events.sent("c", uri="/photos/\udcff\x1b.jpg"))
    code, out, _ = run("check", tmp_path)
    assert code == 0 and "/photos/ .jpg" in out


def test_compact_then_all_is_as_before(store, run):
    before = run("show", store.path, "--json")
    code, out, _ = run("compact", store.path)
    assert code == 0 and out == f"{store.path}: 5 shards are now 1\n"
    assert run("show", store.path, "--json") == before
    code, out, _ = run("compact", store.path, "--json")
    assert json.loads(out) == {"store": str(store.path), "shards_before": 1, "shards_after": 1}


def test_copies_of_a_killed_merge_are_counted_once(store, run):
    before = run("show", store.path, "--json")
    shards = list((store.path / "journal").iterdir())
    for shard in shards:
        shard.with_name(f"copy-of-{shard.name}").write_bytes(shard.read_bytes())
    assert run("show", store.path, "--json") == before


@pytest.mark.parametrize("command", ["check", "compact", "show"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "store is blank"),
        ("  ", "store is blank"),
        ("nowhere", "is no description store: there is nothing in"),
        ("empty", "give the folder that the task names as its store"),
        ("store/journal", "give the folder above it"),
        ("a_file", "which is a file"),
        ("ftp://host/x", "expected a local folder"),
    ],
)
def test_a_path_that_is_no_store_is_said_to_be_none(tmp_path, store, run, monkeypatch, command, path, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty/journal").mkdir(parents=True)
    (tmp_path / "a_file").write_text("")
    code, out, err = run(command, path)
    assert code == 2 and out == "" and words in err
    assert not (tmp_path / "nowhere").exists()


def test_it_is_a_command(store):
    told = [sys.executable, "-m", "airflow_provider_describer.store"]
    done = subprocess.run(
        [*told, "check", store.path], capture_output=True, text=True, env=child_environment(), check=True
    )
    assert done.stdout.startswith(str(store.path)) and done.stderr == ""
    usage = subprocess.run([*told, "mend", "x"], capture_output=True, text=True, env=child_environment(), check=False)
    assert usage.returncode == 2 and "check" in usage.stderr


def test_calls_of_unknown_price_are_not_said_to_be_free(tmp_path, events, run):
    """It said "at most $0.00" of calls that nobody knows the price of."""
    put = Put(tmp_path)
    put("1", events.outcome("a1", "a", cost_usd=None), events.outcome("a2", "a", cost_usd=None))
    _, out, _ = run("show", tmp_path)
    assert "1 call was, or may have been, paid for a second time (1 image described again, 0 answers lost)" in out
    assert out.endswith(": the cost is unknown\n") and "$0.00" not in out
    _, out, _ = run("show", tmp_path, "--json")
    assert json.loads(out)["twice_cost_usd"] is None


def test_an_outcome_without_an_identity_is_counted(tmp_path, events, run):
    put = Put(tmp_path)
    put("1", *(events.outcome(name, keys=[]) for name in "ab"), events.sent("c", keys=[]), events.sent("d", keys=[]))
    code, out, _ = run("show", tmp_path, "--json")
    shown = json.loads(out)
    assert code == 0 and shown["total"]["described"] == 2 and shown["described_again"] == 0
    code, out, _ = run("check", tmp_path)
    assert code == 0 and "2 images without a description for which 2 calls may have been paid for" in out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("check", ["1 shard, 1 whole", "0 requests run", "1 call sent", "1 image without", "1 call may have"]),
        ("show", ["1 call was sent and has no answer", "0 calls were, or may have been", "0 images described again"]),
        ("compact", ["1 shard is now 1"]),
    ],
)
def test_one_is_told_as_one(tmp_path, events, run, command, words):
    Put(tmp_path)("1", events.sent("a"))
    _, out, _ = run(command, tmp_path)
    assert [word for word in words if word not in out] == []


@pytest.mark.parametrize("arguments", [["check"], ["show"], ["show", "--json"], ["compact"], ["--help"]])
def test_a_reader_that_has_seen_enough_ends_it_without_a_word(store, arguments):
    """`… store show PATH | head` ended in a traceback."""
    given = arguments if "--help" in arguments else [*arguments, str(store.path)]
    child = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_describer.store", *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
    )
    assert child.stdout and child.stderr
    child.stdout.close()
    assert (child.stderr.read(), child.wait(60)) == (b"", 0)
    child.stderr.close()
