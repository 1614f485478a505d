"""What the benchmarks share: a real server with data in it, the service, and a stopwatch."""

import os
import socket
import subprocess
import time
import urllib.parse
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CACHEVAULT = REPOSITORY / "target/release/cachevault"
WORDS = "lamp chair kettle notebook backpack radio bicycle mug headphones blanket compass order cart".split()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def encode(*words) -> bytes:
    """A command as RESP."""
    parts = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def pipe(cli: list[str], commands) -> None:
    """Sends encoded commands to a server."""
    sender = subprocess.Popen([*cli, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    batch: list[bytes] = []
    for command in commands:
        batch.append(command)
        if len(batch) == 1000:
            sender.stdin.write(b"".join(batch))
            batch.clear()
    sender.stdin.write(b"".join(batch))
    sender.stdin.close()
    if sender.wait() != 0:
        raise SystemExit("loading the data failed")


class Server:
    """A server of its own folder, or of a given one; ended by close()."""

    def __init__(self, binary, folder: Path, *options: str):
        self.port = free_port()
        self.cli = ["redis-cli", "-p", str(self.port)]
        arguments = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(folder)]
        arguments += ["--repl-diskless-sync-delay", "0", *options]
        self.process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)

    def ready(self) -> "Server":
        """Waits until it has loaded its data."""
        while subprocess.run([*self.cli, "ping"], capture_output=True, check=False).stdout != b"PONG\n":
            if self.process.poll() is not None:
                raise SystemExit(f"{self.process.args[0]} does not start")
            time.sleep(0.01)
        return self

    def ask(self, *words: str) -> str:
        return subprocess.run([*self.cli, *words], check=True, capture_output=True, text=True).stdout.strip()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Service:
    """The service with a data folder of its own; ended by close()."""

    def __init__(self, data: Path, **settings: str):
        settings = {f"CACHEVAULT_{name.upper()}": value for name, value in settings.items()}
        self.environment = {**os.environ, "CACHEVAULT_DATA_DIR": str(data), **settings}
        self.process = subprocess.Popen(
            [CACHEVAULT, "serve", "--listen", "127.0.0.1:0", "--log-level", "warn"],
            env=self.environment, stdout=subprocess.PIPE, text=True,
        )
        if "ready" not in self.process.stdout.readline():
            raise SystemExit("the service does not start")

    def run(self, *words: str) -> str:
        command = [CACHEVAULT, *words]
        done = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    def memory_mib(self, field: str) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
        raise SystemExit(f"no {field}")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


class S3Server:
    """The S3 server of the tests, built for release; ended by close()."""

    def __init__(self):
        build("--package", "cachevault-testkit", "--example", "s3_server")
        program = REPOSITORY / "target/release/examples/s3_server"
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url, self.credentials = (self.process.stdout.readline().strip() for _ in range(2))
        if not self.credentials:
            raise SystemExit("the S3 server does not start")
        self.endpoint = urllib.parse.parse_qs(urllib.parse.urlparse(self.url).query)["endpoint"][0]

    def close(self) -> None:
        # Its folder goes with it when its input ends.
        self.process.stdin.close()
        self.process.wait()


def build(*what: str) -> None:
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", *what], cwd=REPOSITORY, check=True)
