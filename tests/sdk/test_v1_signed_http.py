"""The v1.0 interface over plain HTTP, signed by our own signer in both dialects; v2 where the two must differ."""

import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from contract import (
    DEFAULT_LIMIT,
    EXAMPLES,
    RECORD_KEYS,
    REMARK_MAX,
    assert_like_example,
    assert_pending,
    assert_succeeded,
    ids,
    second_inside,
    seconds_around,
    seconds_before,
    unknown_uuid,
    wait_until,
)
from signed_http import MEGABYTE, Api, assert_refused, assert_refused_by_gateway
from signing import Access, Credential, Request

BAD_SIGNATURE = "Incorrect IAM authentication information: "


# Create and list


def test_backup_is_created_followed_and_listed(api, v2):
    api.wait_idle()
    backup_id = api.start_backup({"remark": "夜间备份 – nuit"})
    assert api.records()[0]["backup_id"] == backup_id, "listed before the POST answers"

    record = api.wait_backup(backup_id)
    assert_succeeded(record, instance_id=api.service.instance_id, remark="夜间备份 – nuit")
    assert record.get("backup_format", "RDB") == "RDB", "upper case in v1.0"

    same = v2.find(backup_id)
    assert {key: same[key] for key in RECORD_KEYS} == {key: record[key] for key in RECORD_KEYS}
    assert same["backup_format"] == "rdb", "lower case in v2"


@pytest.mark.parametrize("body", [
    b"",
    b"{}\n",
    {"remark": None},
    {"instance_id": "ignored", "unknown": [1]},
], ids=["no-body", "empty-object", "null-remark", "unknown-fields"])
def test_backup_without_remark(api, body):
    assert_succeeded(api.backup(body), instance_id=api.service.instance_id, remark=None)


def test_record_is_like_the_published_example(api):
    example = EXAMPLES["v1_list_backups_200"]["body"]["backup_record_response"][0]
    assert_like_example(api.backup({"remark": "001"}), example)


def test_running_backup_is_listed_at_once_and_refuses_a_second(api, slow_snapshot):
    api.wait_idle()
    backup_id = api.start_backup({"remark": "slow"})

    assert api.records()[0]["backup_id"] == backup_id
    assert_pending(api.records()[0])
    shown = api.shown()
    assert (shown["status"], shown["task"]) == ("RUNNING", "BACKUPING")
    assert_refused(api.call("POST", api.instance_path("backups"), body={}), 400, "111400096")

    assert api.wait_backup(backup_id)["remark"] == "slow"


@pytest.mark.parametrize("version, first", [("v1.0", ("start", 1)), ("v2", ("offset", 0))])
@pytest.mark.parametrize("other_spelling", [False, True], ids=["own-spelling", "other-spelling"])
def test_pages_join_to_the_whole_list(service, dialect, version, first, other_spelling):
    """`start` counts records from 1, `offset` from 0; each version also takes the other's parameter."""
    api = Api(service, dialect, version)
    name, base = {"start": ("offset", 0), "offset": ("start", 1)}[first[0]] if other_spelling else first
    everything = api.history(DEFAULT_LIMIT + 2)
    total = len(everything)

    pages = []
    for index in range(0, total, 5):
        page = api.list(**{name: str(base + index), "limit": "5"})
        assert page["total_num"] == total, "the count of all records, not of the page"
        assert len(page["backup_record_response"]) <= 5
        pages += page["backup_record_response"]
    assert ids(pages) == ids(everything)

    by_default = api.list()
    assert ids(by_default["backup_record_response"]) == ids(everything)[:DEFAULT_LIMIT]
    assert by_default["total_num"] == total
    assert api.list(**{name: str(base + total)}) == {"backup_record_response": [], "total_num": total}


@pytest.mark.parametrize("begin_name, end_name", [
    ("beginTime", "endTime"),
    ("begin_time", "end_time"),
    ("begin_Time", "end_Time"),
    ("beginTime", "end_time"),
])
def test_time_window_filters_the_list(api, begin_name, end_name):
    everything = api.history(3)
    begin, end = seconds_around(everything)
    assert ids(api.records(**{begin_name: begin, end_name: end})) == ids(everything)

    cut, expected = second_inside(everything)
    assert ids(api.records(**{begin_name: cut})) == ids(expected)
    assert api.list(**{begin_name: cut, "limit": "1"})["total_num"] == len(expected)

    begin, end = seconds_before(everything)
    nothing = {"backup_record_response": [], "total_num": 0}
    assert api.list(**{begin_name: begin, end_name: end}) == nothing
    assert api.list(**{end_name: end}) == nothing


# Delete


def test_deleted_backup_stays_listed_as_deleted(api):
    backup_id = api.backup({"remark": "to be deleted"})["backup_id"]

    answer = api.call("DELETE", api.instance_path("backups", backup_id))
    assert (answer.status, answer.json()) == (200, EXAMPLES["v1_delete_200"]["body"])

    def deleted():
        record = api.find(backup_id)
        assert record["status"] in ("succeed", "deleted")
        return record if record["status"] == "deleted" else None

    record = wait_until(deleted, "the record is listed as deleted")
    assert record["is_support_restore"] == "FALSE"
    assert record["remark"] == "to be deleted"


# Refusals by the service


def test_unknown_backup_is_refused(api):
    assert_refused(api.call("DELETE", api.instance_path("backups", unknown_uuid())), 400, "111400031")


@pytest.mark.parametrize("method, rest, body", [
    ("GET", (), None),
    ("GET", ("backups",), None),
    ("POST", ("backups",), {"remark": "x"}),
    ("DELETE", ("backups", unknown_uuid()), None),
], ids=["show", "list", "create", "delete"])
def test_unknown_instance_is_refused(api, method, rest, body):
    path = api.instance_path(*rest, instance_id=unknown_uuid())
    assert_refused(api.call(method, path, body=body), 404, "111404022")


@pytest.mark.parametrize("body, code", [
    ({"remark": "x" * (REMARK_MAX + 1)}, "111400098"),
    ({"remark": "é" * (REMARK_MAX + 1)}, "111400098"),
    ({"remark": 5}, "111400005"),
    (b'{"remark": "cut', "111400005"),
    (b"[]", "111400005"),
    (b"\xff\xfe", "111400005"),
], ids=["long-remark", "long-remark-non-ascii", "remark-not-a-string", "cut-json", "not-an-object", "not-utf-8"])
def test_bad_body_is_refused_and_leaves_no_record(api, body, code):
    api.wait_idle()
    total = api.list()["total_num"]
    assert_refused(api.call("POST", api.instance_path("backups"), body=body), 400, code)
    assert api.list()["total_num"] == total


@pytest.mark.parametrize("query, code", [
    ([("start", "0")], "111400800"),
    ([("start", "first")], "111400800"),
    ([("limit", "0")], "111400800"),
    ([("beginTime", "yesterday")], "111400062"),
    ([("beginTime", "20240102000000"), ("endTime", "20240101000000")], "111400025"),
], ids=["start-0", "start-no-number", "limit-0", "no-time", "end-before-begin"])
def test_bad_query_is_refused(api, query, code):
    assert_refused(api.call("GET", api.instance_path("backups"), query=query), 400, code)


def test_malformed_instance_id_is_refused(api):
    assert_refused(api.call("GET", api.instance_path("backups", instance_id="not-a-uuid")), 400, "111400061")


@pytest.mark.parametrize("version, status, code", [("v1.0", 401, "111401004"), ("v2", 400, "DCS.1004")])
def test_another_project_is_refused_and_shows_nothing(service, dialect, version, status, code):
    api = Api(service, dialect, version)
    other = uuid.uuid4().hex
    answers = [
        api.call("GET", api.path("instances", instance_id, "backups", project_id=other), headers=names)
        for instance_id in (service.instance_id, unknown_uuid())
        for names in ({"x-project-id": other}, {"x-project-id": service.project_id})
    ]
    for answer in answers:
        assert_refused(answer, status, code)
    assert len({answer.body for answer in answers}) == 1, "whether the instance exists must not be visible"


# Refusals by the gateway


@pytest.mark.parametrize("version", ["v1.0", "v2"])
def test_request_without_credentials_is_refused(service, version):
    api = Api(service, Access(), version)
    unsigned = Request("GET", api.instance_path("backups"), headers={"host": api.address})
    assert_refused_by_gateway(api.send(unsigned), 401, "APIGW.0301", BAD_SIGNATURE)


def test_unknown_key_is_refused(service, dialect):
    api = Api(replace(service, ak="NOSUCHACCESSKEY00000"), dialect)
    assert_refused_by_gateway(api.call("GET", api.path("instances")), 401, "APIGW.0301", BAD_SIGNATURE)


def flip_signature(request):
    value = request.headers["authorization"]
    last = "0" if value[-1] != "0" else "1"
    return replace(request, headers={**request.headers, "authorization": value[:-1] + last})


@pytest.mark.parametrize("tamper", [
    flip_signature,
    lambda request: replace(request, body=request.body.replace(b"signed", b"forged")),
    lambda request: replace(request, query=(("limit", "2"),)),
    lambda request: replace(request, path=request.path.replace(request.path.split("/")[4], unknown_uuid())),
    lambda request: replace(request, method="GET"),
    lambda request: replace(request, headers={**request.headers, "user-agent": "another"}),
], ids=["signature", "body", "query", "path", "method", "signed-header"])
def test_request_changed_after_signing_is_refused(api, tamper):
    api.wait_idle()
    total = api.list()["total_num"]
    honest = api.signed("POST", api.instance_path("backups"), query=[("limit", "1")], body={"remark": "signed"})
    forged = tamper(honest)
    assert forged != honest

    answer = api.send(forged)
    assert_refused_by_gateway(answer, 401, "APIGW.0301", BAD_SIGNATURE + "verify aksk signature fail")
    api.assert_key_works()
    assert api.list()["total_num"] == total


@pytest.mark.parametrize("minutes", [-16, 16])
def test_date_more_than_a_quarter_of_an_hour_off_is_refused(api, minutes):
    date = datetime.now(timezone.utc) + timedelta(minutes=minutes)
    answer = api.call("GET", api.path("instances"), date=date)
    assert_refused_by_gateway(answer, 401, "APIGW.0301", BAD_SIGNATURE)
    assert "expired" in answer.json()["error_msg"]
    api.assert_key_works()


@pytest.mark.parametrize("minutes", [-14, 14])
def test_date_less_than_a_quarter_of_an_hour_off_is_accepted(api, minutes):
    date = datetime.now(timezone.utc) + timedelta(minutes=minutes)
    assert api.call("GET", api.path("instances"), date=date).status == 200


def test_wrong_method_is_an_unknown_route(api):
    answer = api.call("PUT", api.instance_path("backups"), body={"remark": "x"})
    assert_refused_by_gateway(answer, 404, "APIGW.0101")


def test_unknown_route_is_refused(api):
    assert_refused_by_gateway(api.call("GET", "/nonsense"), 404, "APIGW.0101")


def test_body_over_twelve_megabytes_is_refused(api):
    body = b'{"remark": "' + b"x" * 13 * MEGABYTE + b'"}'
    answer = api.call("POST", api.instance_path("backups"), body=body)
    assert_refused_by_gateway(answer, 413, "APIGW.0201")
    api.assert_key_works()


def test_body_under_twelve_megabytes_is_read(api):
    body = {"remark": "x" * 11 * MEGABYTE}
    assert_refused(api.call("POST", api.instance_path("backups"), body=body), 400, "111400098")


# What the two dialects sign


@pytest.mark.parametrize("headers", [
    {"user-agent": "two  spaces\tand a tab"},
    {"user-agent": "a,b;c=d"},
], ids=["inner-whitespace", "punctuation"])
def test_header_values_are_read_as_each_dialect_signs_them(api, headers):
    assert api.call("GET", api.path("instances"), headers=headers).status == 200


@pytest.mark.parametrize("query", [
    [("offset", "0"), ("limit", "10")],
    [("name", "café & d'été/~*%+ü"), ("limit", "10")],
    [("tags", "b"), ("tags", "a")],
    [("limit", "10"), ("Name", "x"), ("ip", "")],
], ids=["unsorted", "to-be-encoded", "repeated-key", "upper-case-key-and-empty-value"])
def test_query_is_read_as_each_dialect_signs_it(v2, query):
    assert v2.call("GET", v2.path("instances"), query=query).status == 200


def test_post_without_body_but_with_a_query_is_accepted(api):
    """In the Credential dialect its query is signed as if it were the body."""
    record = api.backup(query=[("trace", "1")])
    assert_succeeded(record, instance_id=api.service.instance_id, remark=None)


def test_credential_scope_may_name_region_and_service(service):
    scoped = Api(service, Credential(region=service.region, service="dcs"))
    assert scoped.call("GET", scoped.path("instances")).status == 200


def test_host_need_not_be_signed(service):
    """golangsdk and the huaweicloud Terraform provider leave it out."""
    dialect = Access()
    dialect.default_signed = ("accept", "user-agent", "x-sdk-date")
    api = Api(service, dialect)
    assert api.call("GET", api.path("instances")).status == 200
