"""Plain HTTP to either version of the API, signed by our own signer."""

import http.client
import json
import select
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from urllib.parse import urlsplit

from contract import (
    PAGE_MAX,
    assert_list_envelope,
    assert_pending,
    assert_published_message,
    assert_restore_list_envelope,
    assert_restore_pending,
    assert_uuid,
    follow,
    is_idle,
    wait_until,
)
from signing import Access, Request, authorization, encode_query

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self):
        return json.loads(self.body)


class Api:
    """Signed requests to one version of the API; a test may tamper with a request after it was signed."""

    def __init__(self, service, dialect, version="v1.0"):
        self.service = service
        self.dialect = dialect
        self.version = version
        self.address = urlsplit(service.endpoint).netloc

    def path(self, *rest, project_id=None):
        return "/".join(["", self.version, project_id or self.service.project_id, *rest])

    def instance_path(self, *rest, instance_id=None):
        return self.path("instances", instance_id or self.service.instance_id, *rest)

    def signed(self, method, path, *, query=(), body=None, headers=None, date=None):
        """`body` is bytes to send as they are, or anything else to send as JSON."""
        payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        date = date or datetime.now(timezone.utc)
        all_headers = {
            "host": self.address,
            "accept": "application/json",
            "content-type": "application/json",
            "user-agent": "dcs-contract-test",
            "x-sdk-date": date.strftime("%Y%m%dT%H%M%SZ"),
            **({"x-project-id": self.service.project_id} if isinstance(self.dialect, Access) else {}),
            **(headers or {}),
        }
        request = Request(method, path, tuple(query), all_headers, payload)
        names = [name for name in self.dialect.default_signed if name in all_headers]
        value = authorization(self.dialect, self.service.ak, self.service.sk, request, names)
        return replace(request, headers={**all_headers, "authorization": value})

    def send(self, request):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            target = request.path + (f"?{encode_query(request.query)}" if request.query else "")
            connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            if request.body or request.method in ("POST", "PUT"):
                connection.putheader("content-length", str(len(request.body)))
            connection.endheaders()
            send_until_answered(connection.sock, request.body)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def call(self, method, path, **parts):
        return self.send(self.signed(method, path, **parts))

    def shown(self):
        return self.call("GET", self.instance_path()).json()

    def list(self, **query):
        return self._page("backups", assert_list_envelope, query)

    def _page(self, kind, assert_envelope, query):
        """A page of records; the envelope is checked on the way."""
        answer = self.call("GET", self.instance_path(kind), query=list(query.items()))
        assert answer.status == 200, answer.body
        assert_envelope(answer.json())
        return answer.json()

    def records(self, **query):
        return self.list(**{"limit": str(PAGE_MAX), **query})["backup_record_response"]

    def find(self, backup_id):
        return next((record for record in self.records() if record["backup_id"] == backup_id), None)

    def start_backup(self, body=None, **parts):
        return self._start("backups", "backup_id", body, parts)

    def _start(self, kind, id_key, body, parts):
        answer = self.call("POST", self.instance_path(kind), body=body, **parts)
        assert answer.status == 200, answer.body
        assert set(answer.json()) == {id_key}
        assert_uuid(answer.json()[id_key])
        return answer.json()[id_key]

    def wait_idle(self):
        wait_until(lambda: is_idle(self.shown()) or None, "the instance runs and nothing is done with it")

    def wait_backup(self, backup_id):
        return follow(lambda: self.find(backup_id), assert_pending, f"backup {backup_id}")

    def backup(self, body=None, **parts):
        self.wait_idle()
        return self.wait_backup(self.start_backup(body, **parts))

    def history(self, count):
        """At least so many records, made now as far as they are missing."""
        self.wait_idle()
        while len(self.records()) < count:
            self.backup()
        return self.records()

    def list_restores(self, **query):
        return self._page("restores", assert_restore_list_envelope, query)

    def restores(self, **query):
        return self.list_restores(**{"limit": str(PAGE_MAX), **query})["restore_record_response"]

    def find_restore(self, restore_id):
        return next((record for record in self.restores() if record["restore_id"] == restore_id), None)

    def start_restore(self, body, **parts):
        return self._start("restores", "restore_id", body, parts)

    def wait_restore(self, restore_id):
        return follow(lambda: self.find_restore(restore_id), assert_restore_pending, f"restore {restore_id}")

    def restore(self, body, **parts):
        """Gives the record when the instance is in service again."""
        self.wait_idle()
        record = self.wait_restore(self.start_restore(body, **parts))
        self.wait_idle()
        return record

    def assert_key_works(self):
        """One refusal must not lock the key; this success also ends the series of failures that does."""
        assert self.call("GET", self.path("instances")).status == 200


def send_until_answered(sock, body):
    """A server may refuse a large body from its length alone; to go on sending would only lose its answer."""
    view = memoryview(body)
    if len(body) > MEGABYTE and select.select([sock], [], [], 0.5)[0]:
        return
    while view:
        readable, _, _ = select.select([sock], [sock], [])
        if readable:
            return
        try:
            view = view[sock.send(view[:65_536]):]
        except (BrokenPipeError, ConnectionResetError):
            return


def assert_refused(answer, status, code):
    """The nested shape of v1.0; of v2, the flat one."""
    assert answer.status == status, answer.body
    body = answer.json()
    if code.startswith("DCS."):
        assert set(body) == {"error_code", "error_msg", "error_ext_msg"}
        found, message, extra = body["error_code"], body["error_msg"], body["error_ext_msg"]
    else:
        assert set(body) == {"error"}
        assert set(body["error"]) == {"code", "message", "ext_message"}
        found, message, extra = body["error"]["code"], body["error"]["message"], body["error"]["ext_message"]
    assert (found, extra) == (code, None)
    assert_published_message(code, message)
    assert answer.headers["X-Request-Id"]


def assert_refused_by_gateway(answer, status, code, message=""):
    """The gateway's shape, which is the same for every version."""
    assert answer.status == status, answer.body
    body = answer.json()
    assert set(body) == {"error_msg", "error_code", "request_id"}
    assert body["error_code"] == code
    assert message in body["error_msg"]
    assert body["request_id"] and body["request_id"] == answer.headers["X-Request-Id"]
