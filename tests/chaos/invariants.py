"""What must be true after every round, whatever went wrong in it."""

import hashlib
import re
from pathlib import Path

from common import Violation, wait_until
from ledger import ENDED, Backup, Ledger, Restore
from redis_server import DELAYS, Peer, RedisServer
from service import SETTLE_DEADLINE, NoAnswer, Refused, Service
from store import BucketStore, FolderStore

# Resident memory at its highest. Four captures into a bucket may hold 38 MiB each, beside what the service is.
MEMORY_MAX_MIB = 400
FILES_MAX = 256
PATH_PARTS = 5
FILE_OF_A_BACKUP = re.compile(r"manifest\.json|data-key-[0-9a-f]+\.json|(shard-\d+\.rdb|s\d+(\.rdb)?)(\.zst|\.z)?")


class Invariants:
    """Looks at service, store and servers of one campaign."""

    def __init__(self, service: Service, ledger: Ledger, store: FolderStore | BucketStore, sources: list[Peer],
                 targets: list[Peer], secrets: dict[str, str], folder: Path):
        self._service = service
        self._ledger = ledger
        self._store = store
        self._sources = sources
        self._targets = targets
        self._secrets = secrets
        self._folder = folder
        self._log_read = 0
        self._loads = 0
        self._settings = {peer.name: _lasting(peer) for peer in sources + targets}

    # Records

    def settle(self) -> None:
        """Waits until no record is open, which the limits of jobs promise, and notes how each ended."""
        wait_until("every record has ended", SETTLE_DEADLINE, self._all_ended)
        for backup in list(self._ledger.backups.values()):
            self._judge_backup(backup)
        for restore in list(self._ledger.restores.values()):
            self._judge_restore(restore)

    def _all_ended(self) -> bool | None:
        try:
            for peer in self._sources + self._targets:
                for record in self._service.listed(f"/instances/{peer.instance}/backups"):
                    self._note_backup(peer, record)
                    if record["state"] not in ENDED or record["drilling"]:
                        return None
            for number, peer in enumerate(self._targets):
                for record in self._service.listed(f"/instances/{peer.instance}/restores"):
                    self._note_restore(number, record)
                    if record["state"] not in ENDED:
                        return None
            instances = self._service.listed("/instances")
        except NoAnswer as error:
            raise Violation(f"the service, which was ready, went away: {error}") from None
        return True if all(instance["operation"] is None for instance in instances) else None

    def _note_backup(self, peer: Peer, record: dict) -> None:
        """A backup whose request had no answer, and one before a restore, holds what its server held."""
        if record["id"] not in self._ledger.backups:
            self._ledger.backups[record["id"]] = Backup(record["id"], peer.expected)

    def _note_restore(self, target: int, record: dict) -> None:
        if record["id"] in self._ledger.restores:
            return
        if target not in self._ledger.unanswered:
            raise Violation(f"nobody asked for this restore: {record}")
        backup = self._ledger.backups[self._ledger.unanswered.pop(target)]
        before = self._targets[target].expected
        self._ledger.restores[record["id"]] = Restore(record["id"], target, before, backup.digest)

    def _judge_backup(self, backup: Backup) -> None:
        record = self._find(f"/backups/{backup.id}")
        state = record["state"]
        if backup.deletion and state != "failed":
            # One that is on its way out is neither restorable nor deleted.
            record = wait_until(f"the removal of {backup.id} has ended", SETTLE_DEADLINE, lambda: self._removed(backup))
            state = record["state"]
        told = f"backup {backup.id} is `{state}`: {record}"
        if state == "succeeded":
            if backup.deletion == "answered" or backup.state not in ("open", "good"):
                raise Violation(f"{told}, but was {backup.state} and its deletion {backup.deletion or 'not wanted'}")
            if not record["restorable"] or record["damage"] or record["store_error"]:
                raise Violation(f"{told}, but cannot be restored")
            backup.state, backup.deletion = "good", ""
        elif state == "failed":
            if backup.state not in ("open", "failed") or not (record["failure"] or {}).get("reason"):
                raise Violation(f"{told}, but was {backup.state}, or no reason is told")
            backup.state = "failed"
        elif state == "deleted":
            if not backup.deletion:
                raise Violation(f"{told}, which nobody asked for")
            backup.state = "gone"
        else:
            raise Violation(told)

    def _removed(self, backup: Backup) -> dict | None:
        record = self._find(f"/backups/{backup.id}")
        return record if record["state"] == "deleted" or record["restorable"] else None

    def _judge_restore(self, restore: Restore) -> None:
        record = self._find(f"/restores/{restore.id}")
        if restore.state != "open":
            if record["state"] != restore.state:
                raise Violation(f"restore {restore.id} was {restore.state} and is {record['state']} now")
            return
        restore.state = record["state"]
        peer = self._targets[restore.target]
        holds = (restore.state, record["target_data"])
        if holds == ("succeeded", "new"):
            peer.expected = restore.after
        elif holds not in (("failed", "old"), ("failed", "untouched")):
            raise Violation(f"restore {restore.id} is {holds}: {record}; the target has {peer.server.digest()}, "
                            f"had {restore.before}, and was to get {restore.after}")
        if peer.server.digest() != peer.expected:
            raise Violation(f"restore {restore.id} is {holds}, but {peer.name} has {peer.server.digest()} and not "
                            f"{peer.expected}: {record}")

    def _find(self, path: str) -> dict:
        try:
            return self._service.call("GET", path)
        except Refused as refused:
            raise Violation(f"the record {path} is lost: {refused}") from None

    # What is stored

    def prove(self, wanted: list[Backup]) -> None:
        """Each is read again by the service, and downloaded and loaded by a server."""
        for backup in wanted:
            self._service.call("POST", f"/backups/{backup.id}/check")
        for backup in wanted:
            self._load(backup)
        for backup in wanted:
            record = wait_until(f"{backup.id} is checked", SETTLE_DEADLINE, lambda backup=backup: self._checked(backup))
            if record["damage"]:
                raise Violation(f"backup {backup.id} is damaged: {record['damage']}")

    def _checked(self, backup: Backup) -> dict | None:
        record = self._find(f"/backups/{backup.id}")
        return record if record["check_requested_at"] is None else None

    def _load(self, backup: Backup) -> None:
        rdb = self._service.download(backup.id)
        self._loads += 1
        server = RedisServer(self._sources[0].server.engine, self._folder / f"loaded-{self._loads}", "", rdb)
        try:
            if server.digest() != backup.digest:
                raise Violation(f"backup {backup.id} loads as {server.digest()} and not {backup.digest}")
        finally:
            server.stop()
        backup.proven = hashlib.sha256(rdb).hexdigest()

    def strays(self) -> list[str]:
        """Files of the store that no backup is made of."""
        good = {backup.id for backup in self._ledger.backups.values() if backup.state == "good"}
        attempts: dict[str, set[str]] = {}
        strays = []
        for path in self._store.files():
            parts = path.split("/")
            if len(parts) == 1:
                # The store's own.
                continue
            if len(parts) != PATH_PARTS or parts[2] not in good or not FILE_OF_A_BACKUP.fullmatch(parts[4]):
                strays.append(path)
                continue
            attempts.setdefault(parts[2], set()).add(parts[3])
        strays += [f"{backup}: {names}" for backup, names in attempts.items() if len(names) > 1]
        missing = good - attempts.keys()
        if missing:
            raise Violation(f"backups without files: {missing}")
        return strays

    def assert_swept(self) -> None:
        """After a start, which sweeps, nothing is left that is old enough."""
        try:
            wait_until("the store is swept", 60, lambda: None if self.strays() else True)
        except Violation:
            raise Violation(f"nobody owns these, and they were not swept: {self.strays()}") from None
        data = self._service.data_dir
        left = [path for name in ("spool", "drills") for path in (data / name).rglob("*") if path.is_file()]
        if left:
            raise Violation(f"left in the data folder: {left}")

    def wait_rewrapped(self) -> None:
        """All keys of backups are sealed with one master key again."""
        def keys() -> set[str]:
            names = (path.rpartition("/")[2] for path in self._store.files())
            return {name for name in names if name.startswith("data-key-")}
        wait_until("all keys of backups are sealed anew", 60, lambda: True if len(keys()) < 2 else None)

    # Everything else

    def everything_else(self) -> None:
        """Servers, logs and the process."""
        for peer in self._sources + self._targets:
            peer.assert_left_alone()
            if peer.server.digest() != peer.expected:
                raise Violation(f"{peer.name} has {peer.server.digest()} and not {peer.expected}")
            changed = dict(_lasting(peer).items() ^ self._settings[peer.name].items())
            if changed:
                raise Violation(f"settings of {peer.name} are not as they were: {changed}")
        self._assert_no_secrets()
        self._assert_small()

    def _assert_no_secrets(self) -> None:
        with self._service.log.open("rb") as file:
            file.seek(self._log_read)
            said = file.read()
        self._log_read += len(said)
        catalog = b"".join(path.read_bytes() for path in self._service.data_dir.glob("catalog.sqlite*"))
        for what, secret in {**self._secrets, **self._keys()}.items():
            for place, text in (("log", said), ("catalog", catalog)):
                if secret.encode() in text:
                    raise Violation(f"{what} is in the {place}")
        if b"panicked at" in said:
            line = next(line for line in said.splitlines() if b"panicked at" in line)
            raise Violation(f"a panic: {line.decode(errors='replace')}")

    def _keys(self) -> dict[str, str]:
        masters = (self._service.data_dir / "master.key").read_text().split()
        keys = {f"master key {number}": key for number, key in enumerate(masters)}
        return {**keys, "the secret key of the project": self._service.credentials()["secret_key"]}

    def _assert_small(self) -> None:
        status = Path(f"/proc/{self._service.pid}/status").read_text()
        highest = int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1]) >> 10
        if highest > MEMORY_MAX_MIB:
            raise Violation(f"the service took {highest} MiB")
        files = len(list(Path(f"/proc/{self._service.pid}/fd").iterdir()))
        if files > FILES_MAX:
            raise Violation(f"the service has {files} files open")


def _lasting(peer: Peer) -> dict[bytes, bytes]:
    """Settings that only a restore could have changed."""
    return {name: value for name, value in peer.server.settings().items() if name.decode() not in DELAYS}
