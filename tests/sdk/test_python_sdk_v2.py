"""The unmodified huaweicloudsdkdcs v2 client against the running service."""

import pytest
from huaweicloudsdkdcs.v2 import BackupInstanceBody

from contract import (
    DEFAULT_LIMIT,
    EXAMPLES,
    PAGE_MAX,
    REMARK_MAX,
    assert_like_example,
    assert_pending,
    assert_succeeded,
    assert_uuid,
    ids,
    second_inside,
    seconds_around,
    seconds_before,
    unknown_uuid,
    wait_until,
)
from python_sdk import Dcs, refused

# A value of another JSON type than documented only earns a warning from the client, which then passes it on raw.
pytestmark = pytest.mark.filterwarnings("error::huaweicloudsdkcore.warning.warning.TypeConversionWarning")


# Instances


def test_adopted_instance_is_listed_with_typed_fields(dcs, service):
    response = dcs.instances()
    [item] = [item for item in response.instances if item.instance_id == service.instance_id]
    [raw] = [raw for raw in response.to_json_object()["instances"] if raw["instance_id"] == service.instance_id]

    assert response.status_code == 200
    assert response.instance_num == len(response.instances)
    assert item.name == service.instance_name
    assert item.status == "RUNNING"
    assert (item.ip, item.port) == ("127.0.0.1", service.redis_port)
    assert item.no_password_access == "true"
    assert item.charging_mode == 0
    assert raw["task"] is None
    assert_instance_types(raw)


def test_adopted_instance_is_shown_with_typed_fields(dcs, service):
    shown = dcs.instance()
    raw = shown.to_json_object()

    assert shown.status_code == 200
    assert (shown.instance_id, shown.name, shown.status) == (service.instance_id, service.instance_name, "RUNNING")
    assert shown.cache_mode == "single"
    assert shown.engine.lower() in ("redis", "valkey")
    assert shown.engine_version[0].isdigit()
    assert shown.used_memory >= 0
    assert raw["task"] is None
    assert raw["instance_backup_policy"] is None
    assert_instance_types(raw)


def assert_instance_types(raw):
    required = {
        str: ("instance_id", "name", "status", "ip", "engine", "engine_version", "no_password_access", "created_at"),
        int: ("port", "capacity", "max_memory", "used_memory", "charging_mode"),
    }
    optional = {
        str: ("capacity_minor", "task", "cache_mode", "spec_code", "maintain_begin", "maintain_end",
              "enterprise_project_id", "description"),
        int: ("db_number", "sharding_count", "replica_count"),
        bool: ("enable_ssl", "enable_publicip", "service_upgrade"),
        list: ("az_codes", "available_zones", "tags"),
        type(None): ("is_free", "free"),
    }
    for kind, keys in required.items():
        for key in keys:
            assert type(raw[key]) is kind, f"{key}: {raw[key]!r}"
    for kind, keys in optional.items():
        for key in keys:
            assert raw.get(key) is None or type(raw[key]) is kind, f"{key}: {raw[key]!r}"


def test_instances_are_filtered_and_an_empty_list_is_a_list(dcs, service):
    assert [i.instance_id for i in dcs.instances(instance_id=service.instance_id).instances] == [service.instance_id]
    assert [i.instance_id for i in dcs.instances(name_equal="true", name=service.instance_name).instances]

    none = dcs.instances(instance_id=unknown_uuid())
    assert (none.status_code, none.instance_num, none.instances) == (200, 0, [])
    beyond = dcs.instances(offset=100, limit=10)
    assert (beyond.status_code, beyond.instances) == (200, [])
    assert beyond.instance_num >= 1, "counts all that match, not the page"


# Create and list


@pytest.mark.parametrize("remark", [
    "Nächtliche Sicherung – 夜间备份 🗄️",
    "🗄" * REMARK_MAX,
], ids=["non-ascii", "128-characters-of-four-bytes"])
def test_backup_succeeds_and_keeps_its_remark(dcs, remark):
    dcs.wait_idle()
    created = dcs.start_backup(BackupInstanceBody(remark=remark))
    assert created.status_code == 200
    assert set(created.to_json_object()) == {"backup_id"}
    assert_uuid(created.backup_id)

    record = dcs.wait_backup(created.backup_id)
    assert_succeeded(record, instance_id=dcs.instance_id, remark=remark)
    assert record["backup_format"] == "rdb"


def test_record_reads_well_through_the_client(dcs):
    backup_id = dcs.backup(BackupInstanceBody(remark="typed"))["backup_id"]
    response = dcs.list(limit=PAGE_MAX)
    [typed] = [record for record in response.backup_record_response if record.backup_id == backup_id]

    assert (typed.instance_id, typed.remark, typed.status) == (dcs.instance_id, "typed", "succeed")
    assert (typed.backup_type, typed.backup_format, typed.is_support_restore) == ("manual", "rdb", "TRUE")
    assert typed.progress == "100.00"
    assert typed.size > 0
    assert (typed.period, typed.error_code) == (None, None), "null is None; the documentation's {} would be '{}'"
    assert typed.created_at <= typed.execution_at <= typed.updated_at


@pytest.mark.parametrize("body", [
    None,
    BackupInstanceBody(),
    BackupInstanceBody(backup_format="rdb"),
    BackupInstanceBody(backup_format="RDB"),
], ids=["no-body", "empty-object", "rdb", "RDB"])
def test_backup_without_remark(dcs, body):
    record = dcs.backup(body)
    assert_succeeded(record, instance_id=dcs.instance_id, remark=None)
    assert record["backup_format"] == "rdb"


def test_record_is_like_the_published_example(dcs):
    example = EXAMPLES["v2_list_backups_200"]["body"]["backup_record_response"][0]
    assert_like_example(dcs.backup(BackupInstanceBody(remark="001")), example)


def test_running_backup_is_listed_at_once_and_refuses_a_second(dcs, slow_snapshot):
    dcs.wait_idle()
    backup_id = dcs.start_backup(BackupInstanceBody(remark="slow")).backup_id

    assert_pending(dcs.records()[0])
    assert dcs.records()[0]["backup_id"] == backup_id
    shown = dcs.shown()
    assert (shown["status"], shown["task"]) == ("RUNNING", "BACKUPING")
    with refused(400, "DCS.4096"):
        dcs.start_backup()

    assert dcs.wait_backup(backup_id)["remark"] == "slow"
    wait_until(lambda: dcs.shown()["task"] is None or None, "the task is over", deadline=5)
    assert dcs.records()[0]["backup_id"] == backup_id, "the refused backup left no record"


def test_pages_join_to_the_whole_list(dcs):
    everything = dcs.history(DEFAULT_LIMIT + 2)
    total = len(everything)

    pages = []
    for offset in range(0, total, 5):
        page = dcs.list(offset=offset, limit=5)
        assert page.total_num == total, "the count of all records, not of the page"
        assert len(page.backup_record_response) <= 5
        pages += page.to_json_object()["backup_record_response"]
    assert ids(pages) == ids(everything)

    assert ids(dcs.records(offset=3, limit=1)) == ids(everything)[3:4], "an offset of 3 begins at the 4th record"
    by_default = dcs.list()
    assert [r.backup_id for r in by_default.backup_record_response] == ids(everything)[:DEFAULT_LIMIT]
    assert by_default.total_num == total
    beyond = dcs.list(offset=total, limit=5)
    assert (beyond.status_code, beyond.total_num, beyond.backup_record_response) == (200, total, [])


def test_newest_backup_is_first(dcs):
    made = [dcs.backup()["backup_id"] for _ in range(3)]
    assert ids(dcs.records(limit=3)) == made[::-1]


def test_time_window_filters_the_list(dcs):
    everything = dcs.history(3)
    begin, end = seconds_around(everything)
    assert ids(dcs.records(begin_time=begin, end_time=end)) == ids(everything)
    assert ids(dcs.records(begin_time=begin)) == ids(everything)
    assert ids(dcs.records(end_time=end)) == ids(everything)

    cut, expected = second_inside(everything)
    page = dcs.list(begin_time=cut, limit=1)
    assert page.total_num == len(expected), "counts what matches the window"
    assert ids(dcs.records(begin_time=cut)) == ids(expected)

    begin, end = seconds_before(everything)
    none = dcs.list(begin_time=begin, end_time=end)
    assert (none.status_code, none.total_num, none.backup_record_response) == (200, 0, [])


# Delete


def test_deleted_backup_stays_listed_as_deleted(dcs):
    before = dcs.backup(BackupInstanceBody(remark="to be deleted"))
    total = dcs.list().total_num

    gone = dcs.delete(before["backup_id"])
    assert gone.status_code == 204
    assert dcs.seen[-1].content == b""

    def deleted():
        record = dcs.find(before["backup_id"])
        assert record["status"] in ("succeed", "deleted"), "any other state aborts a Terraform destroy"
        return record if record["status"] == "deleted" else None

    record = wait_until(deleted, "the record is listed as deleted")
    assert record["is_support_restore"] == "FALSE"
    for key in ("backup_name", "remark", "created_at", "execution_at", "backup_type"):
        assert record[key] == before[key], key
    assert dcs.list().total_num == total


# Refusals


def test_unknown_backup_is_refused(dcs):
    with refused(400, "DCS.4031"):
        dcs.delete(unknown_uuid())


@pytest.mark.parametrize("call", [
    lambda dcs, unknown: dcs.instance(unknown),
    lambda dcs, unknown: dcs.list(unknown),
    lambda dcs, unknown: dcs.start_backup(BackupInstanceBody(remark="x"), unknown),
    lambda dcs, unknown: dcs.delete(unknown_uuid(), unknown),
], ids=["show", "list", "create", "delete"])
def test_unknown_instance_is_refused(dcs, call):
    with refused(404, "DCS.3022"):
        call(dcs, unknown_uuid())


def test_malformed_instance_id_is_refused(dcs):
    with refused(400, "DCS.4061"):
        dcs.list("not-a-uuid")


@pytest.mark.parametrize("body, code", [
    (BackupInstanceBody(remark="x" * (REMARK_MAX + 1)), "DCS.4098"),
    (BackupInstanceBody(remark="é" * (REMARK_MAX + 1)), "DCS.4098"),
    (BackupInstanceBody(backup_format="aof"), "DCS.4063"),
    (BackupInstanceBody(backup_format="zip"), "DCS.4063"),
    (BackupInstanceBody(remark=5), "DCS.4005"),
], ids=["long-remark", "long-remark-non-ascii", "aof", "unknown-format", "remark-not-a-string"])
def test_bad_body_is_refused_and_leaves_no_record(dcs, body, code):
    dcs.wait_idle()
    total = dcs.list().total_num
    with refused(400, code):
        dcs.start_backup(body)
    assert dcs.list().total_num == total


@pytest.mark.parametrize("query, code", [
    ({"offset": -1}, "DCS.4800"),
    ({"limit": 0}, "DCS.4800"),
    ({"begin_time": "yesterday"}, "DCS.4062"),
    ({"begin_time": "20240102000000", "end_time": "20240101000000"}, "DCS.4025"),
], ids=["negative-offset", "limit-0", "no-time", "end-before-begin"])
def test_bad_query_is_refused(dcs, query, code):
    with refused(400, code):
        dcs.list(**query)


def test_wrong_secret_key_is_refused(dcs, service):
    impostor = Dcs(service, secret_key=service.sk[::-1])
    with refused(401, "APIGW.0301") as caught:
        impostor.list()
    assert caught.value.error_msg.startswith("Incorrect IAM authentication information: verify aksk signature fail")
    assert set(impostor.seen[-1].json()) == {"error_msg", "error_code", "request_id"}
    # One failure must not lock the key; this success also ends the series of failures that does.
    assert dcs.list().status_code == 200


def test_every_answer_has_a_request_id_of_its_own(dcs):
    dcs.list()
    dcs.instances()
    with refused(400, "DCS.4031") as caught:
        dcs.delete(unknown_uuid())
    given = [response.headers["X-Request-Id"] for response in dcs.seen]
    assert caught.value.request_id == given[-1]
    assert len(set(given)) == 3 and all(given)
