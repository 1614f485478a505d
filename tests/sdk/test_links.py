"""Download links: by the unmodified v2 client and by v1.0 over signed HTTP; what they open, by a plain HTTP client."""

import http.client
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from contract import EXAMPLES, unknown_uuid
from python_sdk import refused
from service import assert_holds, contents, running_redis, slow_snapshots
from signed_http import Api, assert_refused
from signing import Access

LIFETIME = EXAMPLES["v2_links"]["request"]["expiration"]


@pytest.fixture(scope="module")
def backup(service):
    """A backup of the shop that no test here deletes."""
    return Api(service, Access()).backup({"remark": "to download"})


def fetch(link, method="GET", **headers):
    """The response, read, without any header but Host and those given."""
    parts = urlsplit(link)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", headers={n.replace("_", "-"): v for n, v in headers.items()})
        response = connection.getresponse()
        response.body = response.read()
        return response
    finally:
        connection.close()


def assert_links(body, instance_id, backup_id):
    """What both versions answer; gives the file's name and link."""
    assert set(body) == set(EXAMPLES["v2_links"]["response_200"])
    assert isinstance(body["bucket_name"], str) and body["bucket_name"]
    assert f"{instance_id}/{backup_id}/" in body["file_path"]
    [file] = body["links"]
    assert set(file) == {"file_name", "link"}
    assert re.fullmatch(r"redis_127\.0\.0\.1_\d+_\d{14}\.rdb", file["file_name"])
    assert urlsplit(file["link"]).path.endswith("/" + file["file_name"])
    assert set(parse_qs(urlsplit(file["link"]).query)) == {"Expires", "Signature"}
    return file["file_name"], file["link"]


def test_client_gets_links_and_the_file_is_loaded_by_a_server(dcs, service, backup, tmp_path):
    response = dcs.links(backup["backup_id"], LIFETIME)

    assert response.status_code == 200
    assert response.file_path.endswith("/")
    name, link = assert_links(response.to_json_object(), service.instance_id, backup["backup_id"])
    assert [(file.file_name, file.link) for file in response.links] == [(name, link)]

    download = fetch(link)
    assert download.status == 200
    assert download.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert len(download.body) == int(download.headers["Content-Length"]) == backup["size"]
    assert download.body[-8:] == int(download.headers["X-Cachevault-Rdb-Crc64"], 16).to_bytes(8, "little")
    with running_redis(tmp_path / "redis", download.body) as port:
        assert_holds(port, contents(service.redis_port))


def test_a_download_is_described_and_gone_on_with(dcs, backup):
    [file] = dcs.links(backup["backup_id"], LIFETIME).links
    whole = fetch(file.link)
    head = fetch(file.link, "HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "ETag", "Accept-Ranges", "Content-Type", "X-Cachevault-Rdb-Crc64"):
        assert head.headers[name] == whole.headers[name], name

    rest = fetch(file.link, Range="bytes=1000-", If_Range=whole.headers["ETag"])
    assert (rest.status, rest.body) == (206, whole.body[1000:])
    assert fetch(file.link, Range=f"bytes={len(whole.body)}-").status == 416


@pytest.mark.parametrize("expiration", [300, 86_400, "300", "86400"])
def test_v1_takes_numbers_and_texts(api, service, backup, expiration):
    path = api.instance_path("backups", backup["backup_id"], "links")
    answer = api.call("POST", path, body={"expiration": expiration})
    assert answer.status == 200, answer.body
    _, link = assert_links(answer.json(), service.instance_id, backup["backup_id"])
    stored = answer.json()["file_path"]
    assert re.search(r"/attempt-\d{4}/shard-0000\.rdb\.zst$", stored), "the object in the store, unlike in v2"
    assert fetch(link).status == 200


@pytest.mark.parametrize("expiration, code", [
    (299, "DCS.4063"),
    (86_401, "DCS.4063"),
    (0, "DCS.4063"),
    (-300, "DCS.4063"),
    (None, "DCS.4063"),
    ("1800", "DCS.4005"),
], ids=["short", "long", "zero", "negative", "missing", "text"])
def test_bad_expiration_is_refused(dcs, backup, expiration, code):
    with refused(400, code):
        dcs.links(backup["backup_id"], expiration)


@pytest.mark.parametrize("body, code", [
    (b"", "111400004"),
    ({}, "111400063"),
    ({"expiration": "soon"}, "111400063"),
    ({"expiration": [300]}, "111400005"),
    (b"[]", "111400005"),
], ids=["no-body", "empty-object", "no-number", "list", "not-an-object"])
def test_bad_body_is_refused_by_v1(api, backup, body, code):
    path = api.instance_path("backups", backup["backup_id"], "links")
    assert_refused(api.call("POST", path, body=body), 400, code)


def test_what_has_no_files_has_no_links(dcs, service):
    with refused(400, "DCS.4031"):
        dcs.links(unknown_uuid(), LIFETIME)
    with refused(404, "DCS.3022"):
        dcs.links(unknown_uuid(), LIFETIME, unknown_uuid())
    dcs.wait_idle()
    with slow_snapshots(service.redis_port, seconds=2):
        running = dcs.start_backup().backup_id
        with refused(400, "DCS.4026"):
            dcs.links(running, LIFETIME)
    dcs.wait_backup(running)


def test_deleting_a_backup_ends_its_links(dcs):
    deleted = dcs.backup()["backup_id"]
    [file] = dcs.links(deleted, LIFETIME).links
    assert fetch(file.link).status == 200
    dcs.delete(deleted)
    assert fetch(file.link).status == 403
    with refused(400, "DCS.4031"):
        dcs.links(deleted, LIFETIME)


def test_changed_link_is_refused_without_saying_why(dcs, backup):
    [file] = dcs.links(backup["backup_id"], LIFETIME).links
    expires = parse_qs(urlsplit(file.link).query)["Expires"][0]
    later = file.link.replace(f"Expires={expires}", f"Expires={int(expires) + 1}")
    other = file.link.replace(backup["backup_id"], unknown_uuid())
    answers = [fetch(link) for link in (later, other, file.link + "0", file.link.split("&")[0])]
    for answer in answers:
        assert answer.status == 403
        assert b'"error_code":"APIGW.0302"' in answer.body
