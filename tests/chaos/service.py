"""The real service as a child process, its API, and its commands that need it stopped."""

import http.client
import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from common import HOST, REPOSITORY, Violation, free_port, wait_until

sys.path.append(str(REPOSITORY / "tests/sdk"))
from signing import Access, Request, authorization  # noqa: E402

START_DEADLINE = 60.0
STOP_DEADLINE = 90.0
REQUEST_DEADLINE = 75.0
PAGE = 100

# Limits so short that all of a job, with its attempts, ends within a round.
LIMITS = {
    "attempts-max": "3", "retry-pause": "200ms", "stall-timeout": "4s", "command-timeout": "3s", "busy-timeout": "8s",
    "capture-timeout": "12s", "commit-timeout": "6s", "verify-timeout": "15s", "restore-timeout": "20s",
    "store-timeout": "5s", "sweep-grace": "19s", "observe-every": "2s", "shutdown-grace": "5s",
    "backups-max": "10000", "disk-reserve-mib": "2", "fork-pause-max": "60s", "ping-max": "20s",
    "memory-reserve-percent": "0", "jobs-max": "4", "host-jobs-max": "4",
}
SWEEP_GRACE = 19.0
# What a job may take by these limits in the worst case: three attempts, each with its undoing, and the pauses.
SETTLE_DEADLINE = 150.0


class NoAnswer(Exception):
    """The service was away, or went away before it answered."""


class Refused(Exception):
    """The service answered, and not with what was asked for."""

    def __init__(self, status: int, answer):
        super().__init__(f"{status} {answer}")
        self.status = status


class Service:
    """One data folder, and the process that serves it when there is one."""

    def __init__(self, binary: Path, data_dir: Path, log: Path, options: list[str]):
        self._binary = binary
        self.data_dir = data_dir
        self.log = log
        self._port = free_port()
        self._settings = ["--data-dir", str(data_dir), "--listen", f"{HOST}:{self._port}", *options]
        for name, value in LIMITS.items():
            self._settings += [f"--{name}", value]
        self._process: subprocess.Popen | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "serve", *self._settings], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=log, env=_clean_environment(),
            )

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the service; it must come up, as nothing is wrong with what it needs."""
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        def is_ready() -> bool | None:
            if self._process.poll() is not None:
                raise Violation(f"the service ended by itself with {self._process.returncode}")
            try:
                return self._get("/readyz") == 200 or None
            except NoAnswer:
                return None
        wait_until("the service is ready", START_DEADLINE, is_ready)

    def _get(self, path: str) -> int:
        return self._exchange("GET", path, b"", {})[0]

    def kill(self) -> None:
        if self.is_running():
            self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stops it in order, which it must do in time, and say so."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            raise Violation(f"the service does not stop within {STOP_DEADLINE:.0f} s of SIGTERM") from None
        if code != 0:
            raise Violation(f"the service ended with {code} on SIGTERM")

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def offline(self, *words: str) -> subprocess.Popen:
        """Begins a command on the data folder, while nothing serves it."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self._binary, *words, *self._settings], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                env=_clean_environment(), text=True, encoding="utf-8",
            )

    def credentials(self) -> dict[str, str]:
        return json.loads((self.data_dir / "credentials.json").read_text(encoding="utf-8"))

    def call(self, method: str, path: str, body=None):
        """What the service answers to a signed call of `/api/v1`."""
        keys = self.credentials()
        payload = b"" if body is None else json.dumps(body).encode()
        path, _, query = f"/api/v1{path}".partition("?")
        pairs = tuple(tuple(pair.split("=", 1)) for pair in query.split("&") if pair)
        date = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": f"{HOST}:{self._port}", "content-type": "application/json", "x-sdk-date": date}
        request = Request(method, path, pairs, headers, payload)
        signed = ["content-type", "host", "x-sdk-date"]
        headers["authorization"] = authorization(Access(), keys["access_key"], keys["secret_key"], request, signed)
        status, answer = self._exchange(method, path + (f"?{query}" if query else ""), payload, headers)
        parsed = json.loads(answer) if answer else None
        if status >= 300:
            raise Refused(status, parsed)
        return parsed

    def _exchange(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=REQUEST_DEADLINE)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError:
            raise Violation(f"{method} {path} has no answer after {REQUEST_DEADLINE:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(str(error)) from None
        finally:
            connection.close()

    def listed(self, path: str) -> list[dict]:
        """All pages of a list."""
        items: list[dict] = []
        while True:
            page = self.call("GET", f"{path}?limit={PAGE}&offset={len(items)}")
            items += page["items"]
            if not page["items"] or len(items) >= page["total"]:
                return items

    def download(self, backup: str) -> bytes:
        """The RDB of a backup, by a link, which is signed in itself."""
        links = self.call("POST", f"/backups/{backup}/links", {})["links"]
        if len(links) != 1:
            raise Violation(f"backup {backup} has {len(links)} files")
        status, body = self._exchange("GET", "/" + links[0]["url"].split("/", 3)[3], b"", {})
        if status != 200:
            raise Refused(status, body[:500])
        return body


def _clean_environment() -> dict[str, str]:
    """Settings of the caller must not configure the service under test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CACHEVAULT_")}
    return {**kept, "RUST_BACKTRACE": "1"}
