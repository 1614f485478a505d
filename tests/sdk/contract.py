"""What the DCS contract says of records, errors and times, as checks that both API versions share."""

import json
import re
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "dcs"
EXAMPLES = json.loads((FIXTURES / "docs_examples.json").read_text(encoding="utf-8"))
PUBLISHED_MESSAGES = {
    row["code"]: row["message"]
    for row in json.loads((FIXTURES / "error_codes.json").read_text(encoding="utf-8"))["codes"]
}
# The published text of 4031 speaks of another feature; clients know the code as "no such backup".
MESSAGES_OF_OTHER_FEATURES = {"DCS.4031", "111400031"}

BACKUP_DEADLINE = 60.0
PAGE_MAX = 1000
DEFAULT_LIMIT = 10
REMARK_MAX = 128
PENDING = ("waiting", "backuping")
RESTORE_PENDING = ("waiting", "restoring")

RECORD_KEYS = {
    "backup_id", "backup_name", "instance_id", "size", "backup_type", "status", "progress", "period", "remark",
    "error_code", "is_support_restore", "created_at", "execution_at", "updated_at",
}
RESTORE_RECORD_KEYS = {
    "restore_id", "restore_name", "restore_remark", "backup_id", "backup_name", "backup_remark", "status", "progress",
    "error_code", "created_at", "updated_at",
}
# Of v1.0 alone: the documentation spells the id in two ways.
SOURCE_KEYS = {"sourceInstanceId", "sourceInstanceID", "sourceInstanceName"}

T = TypeVar("T")


def wait_until(probe: Callable[[], T | None], what: str, deadline: float = BACKUP_DEADLINE) -> T:
    """Polls until `probe` gives something; the deadline only bounds how long a broken service may keep us."""
    end = time.monotonic() + deadline
    while True:
        if (found := probe()) is not None:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:.0f} s: {what}")
        time.sleep(0.05)


def follow(find: Callable[[], dict | None], assert_pending: Callable[[dict], None], what: str) -> dict:
    """Watches a record until it succeeded, and sees that its progress never goes back."""
    progress = [0.0]

    def finished() -> dict | None:
        record = find()
        assert record is not None, "a record is listed before the POST answers and does not vanish"
        progress.append(float(record["progress"]))
        assert progress[-1] >= progress[-2]
        if record["status"] == "succeed":
            return record
        assert_pending(record)
        return None

    return wait_until(finished, f"{what} is done")


def is_idle(instance: dict) -> bool:
    """What clients wait for after an operation; a status that breaks their wait is never shown."""
    assert instance["status"] in ("RUNNING", "RESTORING"), instance["status"]
    return (instance["status"], instance["task"]) == ("RUNNING", None)


def unknown_uuid() -> str:
    return str(uuid.uuid4())


def assert_uuid(text: Any) -> None:
    assert isinstance(text, str) and str(uuid.UUID(text)) == text, f"not a lower-case UUID: {text!r}"


def parse_time(text: Any) -> datetime:
    assert isinstance(text, str), f"not a time: {text!r}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text), f"not YYYY-MM-DDTHH:MM:SS.mmmZ: {text!r}"
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)


def compact(moment: datetime) -> str:
    """The form of the filters' times."""
    return moment.astimezone(timezone.utc).strftime("%Y%m%d%H%M%S")


def ids(records: list[dict]) -> list[str]:
    return [record["backup_id"] for record in records]


def restore_ids(records: list[dict]) -> list[str]:
    return [record["restore_id"] for record in records]


def seconds_around(records: list[dict]) -> tuple[str, str]:
    """A window of whole seconds that holds every one of the records."""
    moments = [parse_time(record["created_at"]) for record in records]
    return compact(min(moments)), compact(max(moments) + timedelta(seconds=1))


def second_inside(records: list[dict]) -> tuple[str, list[dict]]:
    """The second in which the middle record was made, and the records made at or after its start."""
    cut = parse_time(records[len(records) // 2]["created_at"]).replace(microsecond=0)
    return compact(cut), [record for record in records if parse_time(record["created_at"]) >= cut]


def seconds_before(records: list[dict]) -> tuple[str, str]:
    """A window that ends before the oldest record."""
    oldest = min(parse_time(record["created_at"]) for record in records)
    return compact(oldest - timedelta(hours=2)), compact(oldest - timedelta(hours=1))


def assert_list_envelope(body: Any) -> None:
    assert_envelope(body, "backup_record_response", assert_record)


def assert_restore_list_envelope(body: Any) -> None:
    assert_envelope(body, "restore_record_response", assert_restore_record)


def assert_envelope(body: Any, array: str, assert_one: Callable[[dict], None]) -> None:
    assert set(body) == {array, "total_num"}, "pagers take the one array at the top level"
    assert type(body["total_num"]) is int
    assert isinstance(body[array], list)
    moments = [parse_time(record["created_at"]) for record in body[array]]
    assert moments == sorted(moments, reverse=True), "newest first"
    for record in body[array]:
        assert_one(record)


def assert_record(record: dict) -> None:
    """What holds for the record of a backup in any state."""
    missing = RECORD_KEYS - set(record)
    assert not missing, f"every documented key is always present, these are not: {missing}"
    assert_uuid(record["backup_id"])
    assert_uuid(record["instance_id"])
    assert type(record["size"]) is int and record["size"] >= 0
    assert record["backup_type"] in ("manual", "auto")
    assert record["status"] in (*PENDING, "succeed", "failed", "expired", "deleted")
    assert_progress(record["progress"])
    assert_texts_or_null(record, "period", "remark", "error_code", "execution_at", "updated_at")
    restorable = "TRUE" if record["status"] == "succeed" else "FALSE"
    assert record["is_support_restore"] == restorable, "a string, TRUE exactly when the backup succeeded"
    assert record["backup_name"] == f"backup_{compact(parse_time(record['created_at']))}"


def assert_restore_record(record: dict) -> None:
    """What holds for the record of a restore in any state, and in both versions."""
    assert set(record) in (RESTORE_RECORD_KEYS, RESTORE_RECORD_KEYS | SOURCE_KEYS)
    assert_uuid(record["restore_id"])
    assert_uuid(record["backup_id"])
    assert record["status"] in (*RESTORE_PENDING, "succeed", "failed")
    assert_progress(record["progress"])
    assert_texts_or_null(record, "restore_remark", "backup_remark", "error_code", "updated_at")
    assert record["restore_name"] == f"restore_{compact(parse_time(record['created_at']))}"
    assert re.fullmatch(r"backup_\d{14}", record["backup_name"])


def assert_progress(progress: Any) -> None:
    assert isinstance(progress, str) and re.fullmatch(r"\d{1,3}\.\d\d", progress), f"not two decimals: {progress!r}"
    assert 0 <= float(progress) <= 100


def assert_texts_or_null(record: dict, *keys: str) -> None:
    for key in keys:
        assert record[key] is None or isinstance(record[key], str), f"{key}: {record[key]!r}"


def assert_pending(record: dict) -> None:
    assert record["status"] in PENDING, f"ended as {record['status']}: {record['error_code']}"
    assert record["size"] == 0
    assert record["updated_at"] is None, "completion time, so null before it"
    assert record["error_code"] is None


def assert_restore_pending(record: dict) -> None:
    assert record["status"] in RESTORE_PENDING, f"ended as {record['status']}: {record['error_code']}"
    assert record["updated_at"] is None, "completion time, so null before it"
    assert record["error_code"] is None


def assert_succeeded(record: dict, *, instance_id: str, remark: str | None) -> None:
    assert record["status"] == "succeed"
    assert record["instance_id"] == instance_id
    assert record["remark"] == remark
    assert record["backup_type"] == "manual"
    assert record["period"] is None
    assert record["error_code"] is None
    assert record["progress"] == "100.00"
    assert record["size"] > 0
    created, started, finished = (parse_time(record[key]) for key in ("created_at", "execution_at", "updated_at"))
    assert created <= started <= finished
    assert_just_now(created)


def assert_restored(record: dict, *, backup: dict, remark: str | None) -> None:
    """`backup` is the record of the backup that was restored."""
    assert record["status"] == "succeed"
    assert (record["backup_id"], record["backup_name"]) == (backup["backup_id"], backup["backup_name"])
    assert (record["restore_remark"], record["backup_remark"]) == (remark, backup["remark"])
    assert record["error_code"] is None
    assert record["progress"] == "100.00"
    created, finished = (parse_time(record[key]) for key in ("created_at", "updated_at"))
    assert created <= finished
    assert_just_now(created)


def assert_just_now(created: datetime) -> None:
    assert abs(datetime.now(timezone.utc) - created) < timedelta(minutes=10), "created_at is UTC"


def assert_like_example(record: dict, example: dict) -> None:
    """Same keys, same JSON types; where the documentation prints `{}` it means null."""
    for key, shown in example.items():
        if shown is None or shown == {}:
            assert record[key] is None, f"{key}: {record[key]!r}"
        else:
            assert type(record[key]) is type(shown), f"{key}: {record[key]!r}"


def assert_published_message(code: str, message: Any) -> None:
    assert isinstance(message, str) and 0 < len(message) <= 1024
    published = PUBLISHED_MESSAGES.get(code)
    if published is None or code in MESSAGES_OF_OTHER_FEATURES:
        return
    pattern = ".+".join(re.escape(part) for part in published.split("{0}"))
    assert re.fullmatch(pattern, message), f"{code} is published as {published!r}, got {message!r}"
