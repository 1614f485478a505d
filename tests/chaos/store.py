"""Where the service keeps its backups: a folder or a bucket, on a small disk."""

import os
import signal
import subprocess
from pathlib import Path

from common import Unavailable
from proxy import Proxy

STOP_DEADLINE = 30.0


class SmallDisk:
    """A file system in memory of its own, which can be filled to the last byte."""

    def __init__(self, folder: Path, mib: int):
        self.folder = folder
        folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "tmpfs", str(folder)]
        if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
            folder.rmdir()
            raise Unavailable("a chaos run mounts small file systems: run it as root")

    @property
    def _filler(self) -> Path:
        return self.folder / ".filler"

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while file.write(b"\7" * size) == size:
                        pass
                except OSError:
                    pass

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        self.free()
        subprocess.run(["umount", "-l", str(self.folder)], stderr=subprocess.DEVNULL)


class FolderStore:
    """A folder of its own, on a disk of its own."""

    kind = "folder"
    secret = None

    def __init__(self, folder: Path):
        self.disk = SmallDisk(folder / "store-disk", 192)
        self._root = self.disk.folder / "vault"

    def settings(self) -> list[str]:
        return ["--store", f"file://{self._root}"]

    def files(self) -> list[str]:
        """Paths of all that lies in the store, in its own terms."""
        return [path for path in _walk(self._root) if _is_of_a_backup(path)]

    def heal(self) -> None:
        self.disk.free()

    def close(self) -> None:
        self.disk.unmount()


class BucketStore:
    """A bucket of the testkit's server of the S3 protocol, behind a proxy."""

    kind = "bucket"

    def __init__(self, folder: Path, binary: Path):
        self.disk = SmallDisk(folder / "store-disk", 192)
        self._process = subprocess.Popen(
            [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
            env={**os.environ, "TMPDIR": str(self.disk.folder)},
        )
        url, credentials = (self._process.stdout.readline().rstrip("\n") for _ in range(2))
        if not credentials:
            raise Unavailable(f"{binary} does not start")
        self._credentials = Path(credentials)
        lines = self._credentials.read_text().splitlines()
        self.secret = next(line.partition("=")[2].strip() for line in lines if "secret" in line.partition("=")[0])
        port = url.partition("endpoint=")[2].partition("&")[0].rpartition(":")[2]
        self.proxy = Proxy(int(port))
        self._url = url.replace(f":{port}", f":{self.proxy.port}")
        self._root = self._credentials.parent
        self._prefix = url.partition("://")[2].partition("?")[0]

    def settings(self) -> list[str]:
        return ["--store", self._url, "--store-credentials-file", str(self._credentials)]

    def files(self) -> list[str]:
        # The server shortens names, as it makes names of files of them, and keeps unfinished uploads beside the bucket.
        found = [path.replace("/~", "/attempt-") for path in _walk(self._root / self._prefix)]
        unfinished = [f"unfinished/{path.name}" for path in self._root.glob(".upload*")]
        return [path for path in found if _is_of_a_backup(path)] + unfinished

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def heal(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self.proxy.heal()
        self.disk.free()

    def close(self) -> None:
        self.heal()
        self.proxy.close()
        self._process.stdin.close()
        try:
            self._process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self.disk.unmount()


def _is_of_a_backup(path: str) -> bool:
    """Neither the store's id nor what a check of it left."""
    return not path.rpartition("/")[2].startswith((".cachevault-store", ".check-"))


def _walk(root: Path) -> list[str]:
    found = []
    for folder, _, names in os.walk(root):
        found += [str((Path(folder) / name).relative_to(root)) for name in names]
    return sorted(found)
