"""A real server as a source or target, behind a proxy."""

import random
import signal
import socket
import subprocess
from pathlib import Path

from common import HOST, REPOSITORY, Unavailable, Violation, free_port, wait_until
from proxy import Proxy

START_DEADLINE = 60.0
DELAYS = ("rdb-key-save-delay", "key-load-delay")


class RedisError(Exception):
    """What the server answers to a command that it refuses."""


class Connection:
    """The few words of RESP2 that the run speaks."""

    def __init__(self, port: int, password: str):
        self._socket = socket.create_connection((HOST, port), timeout=30)
        self._stream = self._socket.makefile("rb")
        if password:
            self.pipeline([("AUTH", password)])

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_exc) -> None:
        self._stream.close()
        self._socket.close()

    def pipeline(self, commands: list[tuple]) -> list:
        self._socket.sendall(b"".join(_encode(command) for command in commands))
        return [self._reply() for _ in commands]

    def _reply(self):
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RedisError(rest.decode(errors="replace"))
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        raise ConnectionError(f"not RESP2: {line!r}")


def _encode(words: tuple) -> bytes:
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded)


class RedisServer:
    """One server in a folder of its own; what it holds outlives its death."""

    def __init__(self, engine: str, folder: Path, password: str, rdb: bytes | None = None):
        self.engine = engine
        self.password = password
        self.port = free_port()
        self._binary = REPOSITORY / ".engines" / engine
        self._folder = folder
        if not self._binary.exists():
            raise Unavailable(f"{self._binary} is missing: run scripts/install-engines")
        folder.mkdir(parents=True)
        if rdb is not None:
            (folder / "dump.rdb").write_bytes(rdb)
        self.start()

    def start(self) -> None:
        words = [self._binary, "--port", str(self.port), "--bind", HOST, "--dir", str(self._folder), "--save", "",
                 "--appendonly", "no", "--repl-diskless-sync-delay", "0"]
        if self.password:
            words += ["--requirepass", self.password]
        if not self.engine.startswith(("redis-5", "redis-6")):
            words += ["--enable-debug-command", "yes"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(f"{self.engine} answers", START_DEADLINE, self._answers)

    def _answers(self) -> bool | None:
        if self._process.poll() is not None:
            raise Unavailable(f"{self.engine} ended by itself: see {self._folder}/server.log")
        try:
            return self("PING") == "PONG" or None
        except (OSError, RedisError):
            return None

    def __call__(self, *words):
        return self.pipeline([words])[0]

    def pipeline(self, commands: list[tuple]) -> list:
        with Connection(self.port, self.password) as connection:
            return connection.pipeline(commands)

    def digest(self) -> str:
        return self("DEBUG", "DIGEST")

    def info(self, name: str) -> str | None:
        """A field of all that the server reports; nothing where it has none."""
        lines = self("INFO", "all").decode(errors="replace").splitlines()
        return next((line.partition(":")[2] for line in lines if line.startswith(f"{name}:")), None)

    def settings(self) -> dict[bytes, bytes]:
        flat = self("CONFIG", "GET", "*")
        return dict(zip(flat[::2], flat[1::2]))

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        self.kill()


class Peer:
    """A server as the service knows it: by a name, and through a proxy that can fail."""

    def __init__(self, name: str, engine: str, folder: Path, password: str):
        self.name = name
        self.server = RedisServer(engine, folder / name, password)
        self.proxy = Proxy(self.server.port)
        self.instance = ""
        self.expected = ""

    def fill(self, seed: str, keys: int, value_bytes: int, marker: str) -> None:
        """Other data than before, of every basic type, the same for the same seed; on its disk too."""
        rng = random.Random(seed)
        commands: list[tuple] = [("FLUSHALL",)]
        for number in range(keys):
            key, value = f"{marker}:{number}", rng.randbytes(rng.randrange(1, 2 * value_bytes))
            kind = number % 6
            if kind == 0:
                commands.append(("HSET", key, "field", value, "other", number))
            elif kind == 1:
                commands.append(("ZADD", key, number, value[:64], number + 1, b"second"))
            elif kind == 2:
                commands.append(("RPUSH", key, value, number))
            elif kind == 3:
                commands.append(("SADD", key, value[:64], number))
            else:
                commands.append(("SET", key, value))
        commands += [("SELECT", 3), ("SET", f"{marker}:elsewhere", seed), ("SAVE",)]
        self.server.pipeline(commands)
        self.expected = self.server.digest()

    def slow_down(self, microseconds: int) -> None:
        """Snapshots and loading take so long for each key, where the server can do that."""
        for name in DELAYS:
            try:
                self.server("CONFIG", "SET", name, microseconds)
            except RedisError:
                pass

    def assert_left_alone(self) -> None:
        """What must be true of every server with which nothing is done."""
        def is_quiet() -> bool | None:
            quiet = self.server.info("rdb_bgsave_in_progress") == "0" and self.server.info("connected_slaves") == "0"
            return quiet or None
        wait_until(f"{self.name} has no child and no replica", 60, is_quiet)
        if self.server.info("role") != "master":
            raise Violation(f"{self.name} is no primary: {self.server.info('role')}")

    def close(self) -> None:
        self.proxy.close()
        self.server.stop()
