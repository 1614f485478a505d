"""Restores by the unmodified huaweicloudsdkdcs v2 client."""

import pytest
from huaweicloudsdkdcs.v2 import BackupInstanceBody, RestoreInstanceBody

from contract import (
    DEFAULT_LIMIT,
    EXAMPLES,
    PENDING,
    REMARK_MAX,
    RESTORE_RECORD_KEYS,
    assert_like_example,
    assert_pending,
    assert_restore_pending,
    assert_restored,
    assert_succeeded,
    assert_uuid,
    restore_ids,
    second_inside,
    seconds_around,
    seconds_before,
    unknown_uuid,
    wait_until,
)
from python_sdk import Dcs, refused
from service import assert_holds, contents, overwrite, slow_snapshots

pytestmark = pytest.mark.filterwarnings("error::huaweicloudsdkcore.warning.warning.TypeConversionWarning")

SLOW = 2.0


@pytest.fixture
def stage(target):
    """The client, looking at the instance that restores may overwrite."""
    return Dcs(target)


@pytest.fixture
def backup(stage):
    return stage.backup(BackupInstanceBody(remark="known good"))


def safety_backup(dcs, restore_id):
    """What the service saved of the target before it restored into it."""
    return next((record for record in dcs.records() if record["remark"] == f"before restore {restore_id}"), None)


# Restore


def test_restore_brings_the_data_back(dcs, service):
    before = contents(service.redis_port)
    backup = dcs.backup(BackupInstanceBody(remark="before the accident"))
    overwrite(service.redis_port)
    assert contents(service.redis_port) != before

    created = dcs.start_restore(RestoreInstanceBody(backup["backup_id"], "undo"))
    assert created.status_code == 200
    assert set(created.to_json_object()) == {"restore_id"}
    assert_uuid(created.restore_id)
    assert dcs.restores()[0]["restore_id"] == created.restore_id, "listed before the POST answers"

    record = dcs.wait_restore(created.restore_id)
    assert_restored(record, backup=backup, remark="undo")
    dcs.wait_idle()
    assert_holds(service.redis_port, before)


def test_backup_of_another_instance_is_restored(dcs, service, stage, target):
    shop = contents(service.redis_port)
    backup = dcs.backup(BackupInstanceBody(remark="of the shop"))
    total = dcs.list_restores().total_num

    record = stage.restore(RestoreInstanceBody(backup["backup_id"]))
    assert_restored(record, backup=backup, remark=None)
    assert_holds(target.redis_port, shop)
    assert_holds(service.redis_port, shop)
    assert dcs.list_restores().total_num == total, "listed with the instance that was restored into"


def test_overwritten_data_is_kept_as_a_backup_and_can_be_had_back(stage, target, backup):
    overwrite(target.redis_port)
    overwritten = contents(target.redis_port)
    record = stage.restore(RestoreInstanceBody(backup["backup_id"]))

    safety = safety_backup(stage, record["restore_id"])
    assert_succeeded(safety, instance_id=target.instance_id, remark=f"before restore {record['restore_id']}")
    assert stage.records()[0] == safety, "the newest"

    assert_restored(stage.restore(RestoreInstanceBody(safety["backup_id"])), backup=safety, remark=None)
    assert_holds(target.redis_port, overwritten)


def test_deleted_backup_stays_named_in_the_restores_of_it(stage, backup):
    before = stage.restore(RestoreInstanceBody(backup["backup_id"], "then deleted"))
    stage.delete(backup["backup_id"])
    assert stage.find_restore(before["restore_id"]) == before


@pytest.mark.parametrize("remark", [
    "Zurück zum Stand von gestern – 恢复 🗄️",
    "🗄" * REMARK_MAX,
    "",
], ids=["non-ascii", "128-characters-of-four-bytes", "empty"])
def test_restore_keeps_its_remark_and_shows_that_of_the_backup(stage, remark):
    backup = stage.backup(BackupInstanceBody(remark=remark[::-1]))
    record = stage.restore(RestoreInstanceBody(backup["backup_id"], remark))
    assert (record["restore_remark"], record["backup_remark"]) == (remark, remark[::-1])


def test_record_reads_well_through_the_client(stage):
    backup_id = stage.backup()["backup_id"]
    restore_id = stage.restore(RestoreInstanceBody(backup_id, "typed"))["restore_id"]
    [typed] = [r for r in stage.list_restores().restore_record_response if r.restore_id == restore_id]

    assert (typed.backup_id, typed.restore_remark, typed.status) == (backup_id, "typed", "succeed")
    assert typed.progress == "100.00"
    assert (typed.backup_remark, typed.error_code) == (None, None), "the documentation's {} would be '{}'"
    assert typed.created_at <= typed.updated_at


def test_record_is_like_the_published_example(stage):
    example = EXAMPLES["v2_list_restores_200"]["body"]["restore_record_response"][0]
    record = stage.restore(RestoreInstanceBody(stage.backup()["backup_id"], "doctest"))
    assert set(record) == set(example) == RESTORE_RECORD_KEYS
    assert_like_example(record, example)


# One operation at a time


def test_running_restore_is_listed_at_once_and_refuses_others(stage, target, backup):
    total = stage.list().total_num
    again = RestoreInstanceBody(backup["backup_id"], "refused")
    with slow_snapshots(target.redis_port, SLOW):
        restore_id = stage.start_restore(RestoreInstanceBody(backup["backup_id"], "slow")).restore_id

        assert stage.restores()[0]["restore_id"] == restore_id
        assert_restore_pending(stage.restores()[0])
        shown = stage.shown()
        assert (shown["status"], shown["task"]) == ("RESTORING", "RESTORING")
        [listed] = [i for i in stage.instances().instances if i.instance_id == target.instance_id]
        assert listed.status == "RESTORING"
        with refused(400, "DCS.4097"):
            stage.start_restore(again)
        with refused(400, "DCS.4097"):
            stage.start_backup()
        with refused(400, "DCS.4097"):
            stage.delete(backup["backup_id"])
        safety = wait_until(lambda: safety_backup(stage, restore_id), "the safety backup is listed")
        assert_pending(safety)

    assert stage.wait_restore(restore_id)["restore_remark"] == "slow"
    wait_until(lambda: stage.shown()["status"] == "RUNNING" or None, "the instance is in service", deadline=5)
    assert stage.shown()["task"] is None
    assert stage.restores()[0]["restore_id"] == restore_id, "the refused restore left no record"
    assert stage.list().total_num == total + 1, "nor did the refused backup: only the safety backup came"
    assert stage.find(backup["backup_id"]) == backup, "nor did the refused deletion"


def test_running_backup_refuses_a_restore(dcs, stage, target, backup):
    total = stage.list_restores().total_num
    with slow_snapshots(target.redis_port, SLOW):
        running = stage.start_backup(BackupInstanceBody(remark="slow")).backup_id
        with refused(400, "DCS.4096"):
            stage.start_restore(RestoreInstanceBody(backup["backup_id"]))
        with refused(400, "DCS.4087"):
            dcs.start_restore(RestoreInstanceBody(running))
        assert stage.find(running)["status"] in PENDING, "it ran all the while"

    assert stage.wait_backup(running)["remark"] == "slow"
    assert stage.list_restores().total_num == total


# List


def history(dcs, count):
    """At least so many restores, made now as far as they are missing."""
    body = RestoreInstanceBody(dcs.backup()["backup_id"])
    while len(dcs.restores()) < count:
        dcs.restore(body)
    return dcs.restores()


def test_pages_join_to_the_whole_list(stage):
    everything = history(stage, DEFAULT_LIMIT + 2)
    total = len(everything)

    pages = []
    for offset in range(0, total, 5):
        page = stage.list_restores(offset=offset, limit=5)
        assert page.total_num == total, "the count of all records, not of the page"
        assert len(page.restore_record_response) <= 5
        pages += page.to_json_object()["restore_record_response"]
    assert pages == everything

    assert stage.restores(offset=3, limit=1) == everything[3:4], "an offset of 3 begins at the 4th record"
    by_default = stage.list_restores()
    assert [r.restore_id for r in by_default.restore_record_response] == restore_ids(everything)[:DEFAULT_LIMIT]
    assert by_default.total_num == total
    beyond = stage.list_restores(offset=total, limit=5)
    assert (beyond.status_code, beyond.total_num, beyond.restore_record_response) == (200, total, [])


def test_newest_restore_is_first(stage, backup):
    made = [stage.restore(RestoreInstanceBody(backup["backup_id"]))["restore_id"] for _ in range(3)]
    assert restore_ids(stage.restores(limit=3)) == made[::-1]


def test_time_window_filters_the_list(stage):
    everything = history(stage, 3)
    begin, end = seconds_around(everything)
    assert stage.restores(begin_time=begin, end_time=end) == everything
    assert stage.restores(begin_time=begin) == everything
    assert stage.restores(end_time=end) == everything

    cut, expected = second_inside(everything)
    assert stage.list_restores(begin_time=cut, limit=1).total_num == len(expected), "counts what matches the window"
    assert stage.restores(begin_time=cut) == expected

    begin, end = seconds_before(everything)
    none = stage.list_restores(begin_time=begin, end_time=end)
    assert (none.status_code, none.total_num, none.restore_record_response) == (200, 0, [])


# Refusals


@pytest.mark.parametrize("body, code", [
    (None, "DCS.4004"),
    (RestoreInstanceBody(), "DCS.4063"),
    (RestoreInstanceBody(remark="of nothing"), "DCS.4063"),
    (RestoreInstanceBody(""), "DCS.4063"),
    (RestoreInstanceBody("not-a-uuid"), "DCS.4063"),
    (RestoreInstanceBody(unknown_uuid()), "DCS.4063"),
], ids=["no-body", "empty-object", "missing", "empty", "malformed", "unknown"])
def test_restore_of_no_backup_is_refused(stage, body, code):
    total = stage.list_restores().total_num
    with refused(400, code):
        stage.start_restore(body)
    assert stage.list_restores().total_num == total


def test_restore_of_a_deleted_backup_is_refused(stage, backup):
    stage.delete(backup["backup_id"])
    total = stage.list_restores().total_num
    with refused(400, "DCS.4087"):
        stage.start_restore(RestoreInstanceBody(backup["backup_id"]))
    assert stage.list_restores().total_num == total


@pytest.mark.parametrize("remark, code", [
    ("x" * (REMARK_MAX + 1), "DCS.4098"),
    ("é" * (REMARK_MAX + 1), "DCS.4098"),
    (5, "DCS.4005"),
], ids=["long", "long-non-ascii", "not-a-string"])
def test_bad_remark_is_refused_and_leaves_no_record(stage, backup, remark, code):
    total = stage.list_restores().total_num
    with refused(400, code):
        stage.start_restore(RestoreInstanceBody(backup["backup_id"], remark))
    assert stage.list_restores().total_num == total
    assert stage.shown()["status"] == "RUNNING"


def test_unknown_instance_is_refused(stage, backup):
    with refused(404, "DCS.3022"):
        stage.start_restore(RestoreInstanceBody(backup["backup_id"]), unknown_uuid())
    with refused(404, "DCS.3022"):
        stage.list_restores(unknown_uuid())


def test_malformed_instance_id_is_refused(stage, backup):
    with refused(400, "DCS.4061"):
        stage.start_restore(RestoreInstanceBody(backup["backup_id"]), "not-a-uuid")
    with refused(400, "DCS.4061"):
        stage.list_restores("not-a-uuid")


@pytest.mark.parametrize("query, code", [
    ({"offset": -1}, "DCS.4800"),
    ({"limit": 0}, "DCS.4800"),
    ({"begin_time": "yesterday"}, "DCS.4062"),
    ({"begin_time": "20240102000000", "end_time": "20240101000000"}, "DCS.4025"),
], ids=["negative-offset", "limit-0", "no-time", "end-before-begin"])
def test_bad_query_is_refused(stage, query, code):
    with refused(400, code):
        stage.list_restores(**query)
