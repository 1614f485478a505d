"""A real Redis and the real service, run as child processes on the loopback interface."""

import json
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue

HOST = "127.0.0.1"
DATABASES = 16
START_DEADLINE = 30.0
STOP_DEADLINE = 30.0
READY = re.compile(r"cachevault is ready at (http://127\.0\.0\.1:\d+)")


class Unavailable(Exception):
    """Something the tests need is not there; the text says what to do."""


@dataclass(frozen=True)
class Service:
    endpoint: str
    region: str
    project_id: str
    ak: str
    sk: str
    instance_id: str
    instance_name: str
    redis_port: int
    adopt: Callable[[str, int], str]
    run: Callable

    def with_instance(self, name: str, redis_port: int) -> "Service":
        """The same service, looked at for another instance, which is adopted now."""
        return replace(self, instance_id=self.adopt(name, redis_port), instance_name=name, redis_port=redis_port)


class Redis:
    """The few words of RESP2 that the tests speak, so that no client library stands between them and the server."""

    def __init__(self, port: int):
        self._socket = socket.create_connection((HOST, port), timeout=10)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> "Redis":
        return self

    def __exit__(self, *_exc) -> None:
        self._stream.close()
        self._socket.close()

    def __call__(self, *words: str | bytes | int | float):
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded))
        return self._reply()

    def _reply(self):
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise RuntimeError(f"not RESP2: {line!r}")


def populate(port: int) -> None:
    """A shop's cache in database 0 and its job queue in database 3, every basic type among them."""
    rng = random.Random(20240501)
    with Redis(port) as redis:
        for number in range(300):
            user = f"user:{number}"
            redis("HSET", user, "name", f"Zoë Müller {number}", "city", "北京", "visits", rng.randrange(10_000))
            redis("SET", f"session:{rng.randbytes(16).hex()}", rng.randbytes(rng.randrange(64, 512)), "EX", 86_400)
            redis("ZADD", "leaderboard", rng.random() * 1000, user)
            redis("SADD", f"tag:{number % 7}", number)
        redis("SET", "page:home", "<html>" + "<p>offer</p>" * 2_000)
        redis("SELECT", 3)
        for number in range(100):
            redis("RPUSH", "queue:mail", json.dumps({"to": f"user{number}@example.test", "try": 0}))
            redis("XADD", "audit", "*", "actor", f"user:{number}", "action", "login")


def populate_lightly(port: int) -> None:
    """Other data than the shop's, and so little that it is backed up and restored in a moment."""
    with Redis(port) as redis:
        for number in range(20):
            redis("SET", f"draft:{number}", f"<p>{number}</p>")


def overwrite(port: int) -> None:
    """Does to the data what a restore is wanted for: keys changed, gone, new, and a whole database emptied."""
    with Redis(port) as redis:
        victims = sorted(redis("KEYS", "*"))
        redis("DEL", *victims[::2])
        redis("SET", victims[1], "overwritten")
        redis("SET", "intruder", random.randbytes(8).hex())
        redis("SELECT", 3)
        redis("FLUSHDB")
        redis("SELECT", 5)
        redis("RPUSH", "queue:new", "a", "b")


def contents(port: int) -> dict[tuple[int, bytes], tuple[bytes, int]]:
    """Every key of every database, with its value as the server writes it down and the moment it expires."""
    found = {}
    with Redis(port) as redis:
        for number in range(DATABASES):
            redis("SELECT", number)
            for key in redis("KEYS", "*"):
                found[number, key] = (redis("DUMP", key), redis("PEXPIRETIME", key))
    return found


def assert_holds(port: int, expected: dict[tuple[int, bytes], tuple[bytes, int]]) -> None:
    """Names the keys that differ, as the values would fill pages."""
    found = contents(port)
    differing = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    assert not differing, f"{len(differing)} keys differ, such as {differing[:3]}"


@contextmanager
def slow_snapshots(port: int, seconds: float) -> Iterator[None]:
    """Snapshots that the server begins meanwhile take about so long, so that a running job can be looked at."""
    with Redis(port) as redis:
        redis("SELECT", 0)
        redis("CONFIG", "SET", "rdb-key-save-delay", int(seconds * 1_000_000) // redis("DBSIZE"))
        try:
            yield
        finally:
            redis("CONFIG", "SET", "rdb-key-save-delay", 0)


@contextmanager
def running_redis(directory: Path, rdb: bytes | None = None) -> Iterator[int]:
    """Yields the port of a Redis that answers PING, having loaded `rdb`."""
    binary = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
    if not binary:
        raise Unavailable("redis-server is not on PATH: install it or set REDIS_SERVER to its path")
    directory.mkdir()
    if rdb is not None:
        (directory / "dump.rdb").write_bytes(rdb)
    process, port = _start_redis(binary, directory)
    try:
        yield port
    finally:
        code = _stop(process)
    assert code == 0, f"redis-server ended with {code}:\n{(directory / 'redis.log').read_text()}"


def _start_redis(binary: str, directory: Path) -> tuple[subprocess.Popen, int]:
    """Another process may take the free port before Redis binds it; then Redis ends at once and we choose anew."""
    for _ in range(5):
        port = _free_port()
        with (directory / "redis.log").open("ab") as log:
            process = subprocess.Popen(
                [binary, "--port", str(port), "--bind", HOST, "--dir", str(directory), "--databases", str(DATABASES),
                 "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        if _answers_ping(process, port):
            return process, port
        _stop(process)
    raise Unavailable(f"{binary} does not start:\n{(directory / 'redis.log').read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _answers_ping(process: subprocess.Popen, port: int) -> bool:
    end = time.monotonic() + START_DEADLINE
    while time.monotonic() < end and process.poll() is None:
        try:
            with Redis(port) as redis:
                if redis("PING") == "PONG" and redis("CONFIG", "GET", "port")[1] == str(port).encode():
                    return process.poll() is None
        except (OSError, RuntimeError):
            time.sleep(0.02)
    return False


class Cachevault:
    """One `cachevault serve` over one data directory."""

    def __init__(self, binary: str, directory: Path, store: list[str]):
        self.binary = binary
        self.data_dir = directory / "data"
        self.stderr = directory / "stderr.log"
        directory.mkdir()
        with self.stderr.open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "serve", "--data-dir", str(self.data_dir), "--listen", f"{HOST}:0", "--backups-max", "1000", *store],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=_clean_environment(),
                text=True, encoding="utf-8",
            )
        self._printed: list[str] = []
        self._lines: Queue[str | None] = Queue()
        # A thread, so that waiting for a line has a deadline and the pipe can never fill up.
        self._reader = threading.Thread(target=self._read_stdout, daemon=True)
        self._reader.start()

    def _read_stdout(self) -> None:
        for line in self._process.stdout:
            self._printed.append(line.rstrip("\n"))
            self._lines.put(self._printed[-1])
        self._lines.put(None)

    def wait_ready(self) -> str:
        """The endpoint that the service prints when it serves."""
        try:
            line = self._lines.get(timeout=START_DEADLINE)
        except Empty:
            raise AssertionError(f"cachevault printed nothing in {START_DEADLINE:.0f} s{self.errors()}") from None
        if line is None:
            raise AssertionError(f"cachevault ended with {self._process.wait()} before it was ready{self.errors()}")
        match = READY.fullmatch(line)
        assert match, f"the first line on stdout is not the ready line: {line!r}"
        return match[1]

    def adopt(self, name: str, redis_port: int) -> str:
        """Registers a Redis; gives the id of the instance."""
        return self.run("instance", "add", "--name", name, f"redis://{HOST}:{redis_port}")["id"]

    def run(self, *words: str, given: str | None = None):
        """Runs a command of the command line, with `given` as its standard input; gives what it prints as JSON."""
        done = subprocess.run(
            [self.binary, *words, "--data-dir", str(self.data_dir), "--output", "json"],
            input=given or "", capture_output=True, text=True, encoding="utf-8", timeout=START_DEADLINE,
            env=_clean_environment(),
        )
        assert done.returncode == 0, f"{words[:2]} ended with {done.returncode}: {done.stderr}{self.errors()}"
        return json.loads(done.stdout or "null")

    def credentials(self) -> dict[str, str]:
        path = self.data_dir / "credentials.json"
        assert path.is_file(), f"no {path.name} in the data directory{self.errors()}"
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == 0o600, f"{path.name} holds a secret key, yet its mode is {mode:o}"
        credentials = json.loads(path.read_text(encoding="utf-8"))
        missing = {"endpoint", "region", "project_id", "access_key", "secret_key"} - set(credentials)
        assert not missing, f"{path.name} lacks {missing}"
        return credentials

    def stop(self) -> None:
        assert self._process.poll() is None, f"cachevault ended by itself: {self._process.returncode}{self.errors()}"
        code = _stop(self._process)
        self._reader.join(STOP_DEADLINE)
        assert code == 0, f"cachevault ended with {code} on SIGTERM{self.errors()}"
        assert len(self._printed) == 1, f"stdout is for the ready line alone: {self._printed}"

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def errors(self) -> str:
        return f"\n--- stderr of cachevault\n{self.stderr.read_text(encoding='utf-8', errors='replace')[-4_000:]}"


def _clean_environment() -> dict[str, str]:
    """Our own variables (CACHEVAULT_BIN and any setting of the caller) must not configure the service under test."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CACHEVAULT_")}


def _stop(process: subprocess.Popen) -> int | str:
    """The exit code after SIGTERM, or a word when only SIGKILL helped."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"SIGKILL, {STOP_DEADLINE:.0f} s after SIGTERM"


@contextmanager
def running_cachevault(directory: Path, *options: str) -> Iterator[Cachevault]:
    binary = os.environ.get("CACHEVAULT_BIN")
    if not binary:
        raise Unavailable("CACHEVAULT_BIN is not set: build the service and set it to the path of its binary")
    found = shutil.which(binary)
    if not found:
        raise Unavailable(f"CACHEVAULT_BIN does not name an executable file: {binary}")
    with store_settings() as store:
        cachevault = Cachevault(str(Path(found).resolve()), directory, [*store, *options])
        try:
            yield cachevault
            cachevault.stop()
        finally:
            cachevault.kill()


@contextmanager
def store_settings() -> Iterator[list[str]]:
    """What puts backups into the bucket of the S3 server that S3_SERVER names; nothing where it names none."""
    binary = os.environ.get("S3_SERVER")
    if not binary:
        yield []
        return
    process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        url, credentials_file = (process.stdout.readline().rstrip("\n") for _ in range(2))
        if not credentials_file:
            raise Unavailable(f"{binary} does not start")
        yield ["--store", url, "--store-credentials-file", credentials_file]
    finally:
        process.stdin.close()
        process.wait(STOP_DEADLINE)
