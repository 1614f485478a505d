"""Restores by v1.0 over plain HTTP, signed by our own signer in both dialects; v2 where the two must differ."""

import pytest

from contract import (
    DEFAULT_LIMIT,
    EXAMPLES,
    PENDING,
    REMARK_MAX,
    RESTORE_RECORD_KEYS,
    SOURCE_KEYS,
    assert_like_example,
    assert_restore_pending,
    assert_restored,
    restore_ids,
    second_inside,
    seconds_around,
    seconds_before,
    unknown_uuid,
    wait_until,
)
from service import assert_holds, contents, overwrite, slow_snapshots
from signed_http import Api, assert_refused
from signing import Access

SLOW = 2.0


@pytest.fixture
def stage(target, dialect):
    """v1.0 of the instance that restores may overwrite."""
    return Api(target, dialect)


@pytest.fixture
def stage_v2(target, dialect):
    return Api(target, dialect, version="v2")


@pytest.fixture
def backup(stage):
    return stage.backup({"remark": "known good"})


def assert_source(record, service):
    assert record["sourceInstanceId"] == record["sourceInstanceID"] == service.instance_id
    assert record["sourceInstanceName"] == service.instance_name


# Restore


def test_restore_brings_the_data_back(api, service):
    before = contents(service.redis_port)
    backup = api.backup({"remark": "before the accident"})
    overwrite(service.redis_port)
    assert contents(service.redis_port) != before

    restore_id = api.start_restore({"backup_id": backup["backup_id"], "remark": "恢复 – retour"})
    assert api.restores()[0]["restore_id"] == restore_id, "listed before the POST answers"

    record = api.wait_restore(restore_id)
    assert_restored(record, backup=backup, remark="恢复 – retour")
    assert_source(record, service)
    api.wait_idle()
    assert_holds(service.redis_port, before)
    assert f"before restore {restore_id}" in [listed["remark"] for listed in api.records()]


def test_backup_of_another_instance_is_restored_and_its_source_named(api, service, stage, stage_v2, target):
    shop = contents(service.redis_port)
    backup = api.backup({"remark": "of the shop"})

    record = stage.restore({"backup_id": backup["backup_id"]})
    assert_restored(record, backup=backup, remark=None)
    assert_source(record, service)
    assert_holds(target.redis_port, shop)
    assert api.find_restore(record["restore_id"]) is None, "listed with the instance that was restored into"

    same = stage_v2.find_restore(record["restore_id"])
    assert same == {key: record[key] for key in RESTORE_RECORD_KEYS}, "v2 does not name the source"


def test_record_is_like_the_published_example(stage):
    example = EXAMPLES["v1_list_restores_200"]["body"]["restore_record_response"][0]
    record = stage.restore({"backup_id": stage.backup()["backup_id"], "remark": "doctest"})
    assert set(record) == set(example) | {"sourceInstanceID"} == RESTORE_RECORD_KEYS | SOURCE_KEYS
    assert_like_example(record, example)


@pytest.mark.parametrize("more", [{}, {"remark": None}, {"unknown": [1]}], ids=["left-out", "null", "unknown-field"])
def test_restore_without_remark(target, more):
    stage = Api(target, Access())
    record = stage.restore({"backup_id": stage.backup()["backup_id"], **more})
    assert (record["restore_remark"], record["backup_remark"]) == (None, None)


# One operation at a time


def test_running_restore_refuses_others(target):
    stage = Api(target, Access())
    body = {"backup_id": stage.backup()["backup_id"]}
    with slow_snapshots(target.redis_port, SLOW):
        restore_id = stage.start_restore(body)

        assert stage.restores()[0]["restore_id"] == restore_id
        assert_restore_pending(stage.restores()[0])
        shown = stage.shown()
        assert (shown["status"], shown["task"]) == ("RESTORING", "RESTORING")
        assert_refused(stage.call("POST", stage.instance_path("restores"), body=body), 400, "111400097")
        assert_refused(stage.call("POST", stage.instance_path("backups"), body={}), 400, "111400097")

    stage.wait_restore(restore_id)
    wait_until(lambda: stage.shown()["status"] == "RUNNING" or None, "the instance is in service", deadline=5)
    assert stage.shown()["task"] is None
    assert stage.restores()[0]["restore_id"] == restore_id, "the refused restore left no record"


def test_running_backup_refuses_a_restore(service, target):
    stage, elsewhere = Api(target, Access()), Api(service, Access())
    body = {"backup_id": stage.backup()["backup_id"]}
    with slow_snapshots(target.redis_port, SLOW):
        running = stage.start_backup({"remark": "slow"})
        assert_refused(stage.call("POST", stage.instance_path("restores"), body=body), 400, "111400096")
        of_running = elsewhere.call("POST", elsewhere.instance_path("restores"), body={"backup_id": running})
        assert_refused(of_running, 400, "111400087")
        assert stage.find(running)["status"] in PENDING, "it ran all the while"
    stage.wait_backup(running)


# List


def history(api, count):
    """At least so many restores, made now as far as they are missing."""
    body = {"backup_id": api.backup()["backup_id"]}
    while len(api.restores()) < count:
        api.restore(body)
    return api.restores()


@pytest.mark.parametrize("version, first", [("v1.0", ("start", 1)), ("v2", ("offset", 0))])
@pytest.mark.parametrize("other_spelling", [False, True], ids=["own-spelling", "other-spelling"])
def test_pages_join_to_the_whole_list(target, dialect, version, first, other_spelling):
    """`start` counts records from 1, `offset` from 0; each version also takes the other's parameter."""
    api = Api(target, dialect, version)
    name, base = {"start": ("offset", 0), "offset": ("start", 1)}[first[0]] if other_spelling else first
    everything = history(api, DEFAULT_LIMIT + 2)
    total = len(everything)

    pages = []
    for index in range(0, total, 5):
        page = api.list_restores(**{name: str(base + index), "limit": "5"})
        assert page["total_num"] == total, "the count of all records, not of the page"
        assert len(page["restore_record_response"]) <= 5
        pages += page["restore_record_response"]
    assert pages == everything

    by_default = api.list_restores()
    assert by_default == {"restore_record_response": everything[:DEFAULT_LIMIT], "total_num": total}
    beyond = api.list_restores(**{name: str(base + total)})
    assert beyond == {"restore_record_response": [], "total_num": total}


def test_newest_restore_is_first(stage, backup):
    made = [stage.restore({"backup_id": backup["backup_id"]})["restore_id"] for _ in range(2)]
    assert restore_ids(stage.restores(limit="2")) == made[::-1]


@pytest.mark.parametrize("begin_name, end_name", [
    ("beginTime", "endTime"),
    ("begin_time", "end_time"),
    ("begin_Time", "end_Time"),
    ("beginTime", "end_time"),
])
def test_time_window_filters_the_list(stage, begin_name, end_name):
    everything = history(stage, 3)
    begin, end = seconds_around(everything)
    assert stage.restores(**{begin_name: begin, end_name: end}) == everything

    cut, expected = second_inside(everything)
    assert stage.restores(**{begin_name: cut}) == expected
    assert stage.list_restores(**{begin_name: cut, "limit": "1"})["total_num"] == len(expected)

    begin, end = seconds_before(everything)
    nothing = {"restore_record_response": [], "total_num": 0}
    assert stage.list_restores(**{begin_name: begin, end_name: end}) == nothing
    assert stage.list_restores(**{end_name: end}) == nothing


# Refusals


@pytest.mark.parametrize("body, code", [
    (b"", "111400004"),
    ({}, "111400063"),
    ({"remark": "of nothing"}, "111400063"),
    ({"backup_id": None}, "111400063"),
    ({"backup_id": "not-a-uuid"}, "111400063"),
    ({"backup_id": unknown_uuid()}, "111400063"),
    ({"backup_id": 5}, "111400005"),
    (b'{"backup_id": "cut', "111400005"),
    (b"[]", "111400005"),
], ids=["no-body", "empty-object", "missing", "null", "malformed", "unknown", "number", "cut-json", "not-an-object"])
def test_restore_of_no_backup_is_refused(stage, body, code):
    total = stage.list_restores()["total_num"]
    assert_refused(stage.call("POST", stage.instance_path("restores"), body=body), 400, code)
    assert stage.list_restores()["total_num"] == total


def test_restore_of_a_deleted_backup_is_refused(stage, backup):
    assert stage.call("DELETE", stage.instance_path("backups", backup["backup_id"])).status == 200
    total = stage.list_restores()["total_num"]
    body = {"backup_id": backup["backup_id"]}
    assert_refused(stage.call("POST", stage.instance_path("restores"), body=body), 400, "111400087")
    assert stage.list_restores()["total_num"] == total


@pytest.mark.parametrize("remark, code", [
    ("x" * (REMARK_MAX + 1), "111400098"),
    ("é" * (REMARK_MAX + 1), "111400098"),
    (5, "111400005"),
], ids=["long", "long-non-ascii", "not-a-string"])
def test_bad_remark_is_refused_and_leaves_no_record(stage, backup, remark, code):
    total = stage.list_restores()["total_num"]
    body = {"backup_id": backup["backup_id"], "remark": remark}
    assert_refused(stage.call("POST", stage.instance_path("restores"), body=body), 400, code)
    assert stage.list_restores()["total_num"] == total


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("instance_id, status, code", [
    (unknown_uuid(), 404, "111404022"),
    ("not-a-uuid", 400, "111400061"),
], ids=["unknown", "malformed"])
def test_bad_instance_is_refused(stage, backup, method, instance_id, status, code):
    body = {"backup_id": backup["backup_id"]} if method == "POST" else None
    path = stage.instance_path("restores", instance_id=instance_id)
    assert_refused(stage.call(method, path, body=body), status, code)


@pytest.mark.parametrize("query, code", [
    ([("start", "0")], "111400800"),
    ([("limit", "0")], "111400800"),
    ([("beginTime", "yesterday")], "111400062"),
    ([("beginTime", "20240102000000"), ("endTime", "20240101000000")], "111400025"),
], ids=["start-0", "limit-0", "no-time", "end-before-begin"])
def test_bad_query_is_refused(stage, query, code):
    assert_refused(stage.call("GET", stage.instance_path("restores"), query=query), 400, code)
