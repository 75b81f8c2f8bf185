"""Which images need a call: what is known is reused under any name, and nothing is asked about twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_describer.engine.plan import IdentifiedImage, make_plan
from airflow_provider_describer.errors import RejectedImage, UnreadableImage
from airflow_provider_describer.store.index import JournalIndex, Spending, load_index
from airflow_provider_describer.store.rows import TaskInstanceKey
from airflow_provider_describer.store.settling import compact


@pytest.fixture
def actions(disk):
    """The actions for images, one by one, with what the journal knows."""

    def decide(*images, **options):
        plan = make_plan(images, load_index(disk), **options)
        return [entry.action for entry in plan.entries]

    return decide


@pytest.fixture
def spec(events):
    return events.spec


def test_nothing_is_known_to_an_empty_journal(image):
    plan = make_plan([image("a"), image("b")], JournalIndex())
    assert [entry.action for entry in plan.entries] == ["call", "call"]
    assert plan.summary(0.015) == "2 images: 2 new, 0 reused; at most 2 calls, $0.03"
    assert plan.summary(None) == "2 images: 2 new, 0 reused; at most 2 calls"


def test_content_is_known_under_any_name(disk, events, image, actions):
    disk.put("1", events.sent("c", "a"), events.outcome("c", "a"))
    assert actions(image("a", uri="elsewhere/renamed.jpg")) == ["reuse"]
    assert actions(image("b", uri="u")) == ["call"]


@pytest.mark.parametrize(
    "change", [{"prompt": "Why?"}, {"lang": "de"}, {"vendor": "other"}, {"model": "newer"}, {"preprocessing": "scaled"}]
)
def test_another_question_is_a_new_call(disk, events, image, actions, spec, change):
    disk.put("1", events.outcome("c", "a"))
    assert actions(image("a", replace(spec, **change))) == ["call"]


def test_a_version_is_known_where_the_bytes_were_not_read(disk, events, image, actions):
    known = image("a", uri="s3://b/a.jpg", version="v1")
    disk.put("1", events.outcome("c", "a", keys=list(known.keys)))
    assert actions(image("", uri="s3://b/a.jpg", version="v1")) == ["reuse"]
    assert actions(image("", uri="s3://b/a.jpg", version="v2")) == ["call"]
    assert actions(image("", uri="s3://b/other.jpg", version="v1")) == ["call"]
    # Read, it is known by its content whatever the listing says.
    assert actions(image("a", uri="s3://b/other.jpg", version="v9")) == ["reuse"]


def test_rejected_is_remembered_unless_told_otherwise(disk, events, image, actions):
    disk.put("1", events.outcome("c", "a", "rejected"))
    assert actions(image("a")) == ["rejected"]
    assert actions(image("a"), retry_rejected=True) == ["call"]
    disk.put("2", events.outcome("d", "a"))
    assert actions(image("a")) == ["reuse"]


@pytest.mark.parametrize(("on_unknown", "action"), [("retry", "call"), ("hold", "unknown"), ("fail", "unknown")])
def test_a_call_without_an_end_is_decided_by_on_unknown(disk, events, image, on_unknown, action):
    disk.put("1", events.sent("open", "a"), events.sent("lost", "b"), events.lost("lost", "b"))
    disk.put("2", events.sent("unknown", "c"), events.outcome("unknown", "c", "unknown"))
    disk.put("3", events.sent("closed", "d"), events.closed("closed"))
    plan = make_plan([image(content) for content in "abcd"], load_index(disk), on_unknown=on_unknown)
    assert [(entry.action, entry.lost) for entry in plan.entries] == [(action, 1)] * 3 + [("call", 0)]


def test_the_plan_says_what_may_be_paid_twice(disk, events, image):
    disk.put("1", events.sent("c1", "a"), events.sent("c2", "a"), events.accepted("c3", "b"))
    plan = make_plan([image("a"), image("b"), image("c")], load_index(disk))
    assert plan.summary(1.0) == (
        "3 images: 2 new, 0 reused, 1 still running at the vendor, 1 of them of unknown outcome, sent again; "
        "at most 2 calls, $2.00"
    )
    held = make_plan([image("a"), image("b")], load_index(disk), on_unknown="hold")
    assert "1 of unknown outcome, left alone; at most 0 calls" in held.summary(None)


@pytest.mark.parametrize(("most", "actions"), [(1, ["unknown"] * 2), (2, ["call", "unknown"]), (3, ["call"] * 2)])
def test_an_image_is_held_after_so_many_lost_answers(disk, events, image, most, actions):
    """A call that ended with its process is no lost answer."""
    disk.put("1", events.lost("c1", "a"), events.lost("c2", "b"), events.outcome("c3", "b", "unknown"))
    disk.put("2", *(events.sent(call, "b") for call in ("c4", "c5", "c6")))
    plan = make_plan([image("a"), image("b")], load_index(disk), max_lost_calls=most)
    assert [entry.action for entry in plan.entries] == actions
    assert [(entry.lost, entry.lost_answers) for entry in plan.entries] == [(1, 1), (5, 2)]


def test_a_running_request_is_attached_to_the_latest_first(disk, events, image):
    disk.put("1", events.accepted("c1", "a", at=5.0), events.sent("c1", "a", at=4.0))
    disk.put("2", events.sent("c2", "a", at=9.0), events.accepted("c3", "a", at=8.0), events.sent("c3", "a", at=7.0))
    for on_unknown in ("retry", "hold", "fail"):
        (entry,) = make_plan([image("a")], load_index(disk), on_unknown=on_unknown).entries
        assert entry.action == "attach" and entry.lost == 2
        assert entry.open_call is not None
        call, opened = entry.open_call
        assert call == "c3" and opened.request_id == "request of c3" and opened.accepted_at == 8.0


def test_an_expired_request_is_not_attached_to_again(disk, events, image):
    disk.put("1", events.accepted("c1", "a"), events.outcome("c1", "a", "unknown"))
    (entry,) = make_plan([image("a")], load_index(disk)).entries
    assert entry.action == "call" and entry.lost == 1


def test_copies_in_one_list_are_one_call(image, spec):
    images = [image("a", uri="1"), image("b", uri="2"), image("a", uri="3"), image("a", replace(spec, lang="de"))]
    plan = make_plan(images, JournalIndex())
    assert [len(entry.all) for entry in plan.entries] == [2, 1, 1]
    assert [one.request.image.uri for one in plan.entries[0].all] == ["1", "3"]
    assert plan.calls == 3 and plan.count("call") == 4
    assert plan.summary(None) == "4 images: 3 new, 1 reused; at most 3 calls"


def test_what_cannot_be_used_is_no_call(image):
    request = image("a").request
    bad = [
        IdentifiedImage(request, error=RejectedImage("no image")),
        IdentifiedImage(request, error=UnreadableImage("not now")),
    ]
    plan = make_plan([*bad, image("b")], JournalIndex())
    assert [entry.action for entry in plan.entries] == ["unusable", "unusable", "call"]
    assert plan.summary(None) == "3 images: 1 new, 0 reused, 2 that cannot be used; at most 1 call"


def test_an_image_without_any_identity_is_never_taken_for_another(image):
    nameless = [image(""), image("")]
    assert [len(entry.all) for entry in make_plan(nameless, JournalIndex()).entries] == [1, 1]


def test_an_identity_belongs_to_the_entry_that_had_it_first(image):
    plan = make_plan([image("a"), image("b")], JournalIndex())
    a, b = plan.entries
    assert plan.owner(a, image("a").keys) is a
    assert plan.owner(a, image("new").keys) is a
    assert plan.owner(b, image("new").keys) is a
    assert plan.owner(b, image("a").keys) is a


def test_an_answer_that_older_versions_took_for_a_rejection_is_a_lost_one(disk, events, image):
    unread = {"error": {"kind": "unexpected_answer", "message": "HTML"}, "billed": "unknown", "cost_usd": None}
    refused = {"error": {"kind": "harmful_content", "message": "no"}, "billed": "no", "cost_usd": None}
    disk.put("1", events.outcome("c1", "a", "rejected", **unread), events.outcome("c2", "b", "rejected", **refused))
    plan = make_plan([image("a"), image("b")], load_index(disk))
    assert [(entry.action, entry.lost) for entry in plan.entries] == [("call", 1), ("rejected", 0)]


RUN = TaskInstanceKey("shop", "nightly", "describe", 2)
OF_RUN = {"dag_id": "shop", "run_id": "nightly", "task_id": "describe", "map_index": 2}
OTHER = {**OF_RUN, "map_index": 3}


@pytest.mark.parametrize("compacted", [False, True])
def test_spending_is_that_of_the_task_instance(disk, events, compacted):
    """What it has sent, and what it has fetched; each call once, whatever was written of it."""
    own = {"by": RUN.instance}
    disk.put(
        "1",
        {**events.sent("open", "a"), **own},
        {**events.sent("theirs", "a"), "by": "another"},
        {**events.sent("ended", "b"), **own},
        events.outcome("ended", "b", **OF_RUN),
        {**events.lost("lost", "c"), **own},
        {**events.closed("free"), **own},
    )
    disk.put(
        "2",
        events.outcome("ended", "b", **OF_RUN),
        events.outcome("fetched by us", "d", **OF_RUN, by="another"),
        events.outcome("fetched by them", "d", **OTHER, **own),
        events.outcome("theirs too", "d", **OTHER),
        events.outcome("unknown", "e", "unknown", **OF_RUN, cost_usd=None, billed="unknown"),
        events.outcome("refused", "e", "rejected", **OF_RUN, cost_usd=None, billed="no"),
    )
    if compacted:
        compact(disk)
    spending = load_index(disk, task_instance=RUN).spending()
    assert (spending.calls, spending.unpriced, spending.open_calls) == (5, 2, frozenset({"open"}))
    assert spending.cost_usd == pytest.approx(3 * 0.015)
    assert load_index(disk).spending() == Spending()
