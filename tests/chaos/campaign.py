"""One seed: servers, a store and a service of their own, and the rounds of its plan."""

import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from common import REPOSITORY, Violation, wait_for
from faults import Faults
from invariants import Invariants
from ledger import Backup, Ledger, Restore
from plan import OFFLINE, SOURCES, TARGETS, Plan, Round, Work
from redis_server import Peer
from service import SWEEP_GRACE, NoAnswer, Refused, Service
from store import BucketStore, FolderStore, SmallDisk

OFFLINE_DEADLINE = 90.0
# Of the backups that are proven already, so many are proven again after a round.
PROVEN_AGAIN = 1
KEPT_BACKUPS = 12


class Campaign:
    """Runs a plan. What it needs is made when it is entered, and gone when it is left, but for what a violation
    keeps."""

    def __init__(self, plan: Plan, binary: Path, s3_server: Path, say: Callable[[str], None]):
        self._plan = plan
        self._say = say
        self._binary = binary
        self._s3_server = s3_server
        self.folder = Path(tempfile.mkdtemp(prefix=f"chaos-{plan.seed}-"))
        self.round = 0
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> "Campaign":
        try:
            self._set_up()
        except BaseException:
            self._tear_down(keep=False)
            raise
        return self

    def __exit__(self, kind, *_exc) -> None:
        self._tear_down(keep=kind is Violation)

    def _set_up(self) -> None:
        plan, folder = self._plan, self.folder
        # No key and no value may be in a log; random, as a log may hold whatever is likely.
        chance = random.Random(os.urandom(16))
        self._marker = f"key{chance.getrandbits(96):024x}"
        secrets = {"a key of the data": self._marker}
        self._disk = SmallDisk(folder / "data-disk", 64)
        self._undo.append(self._disk.unmount)
        if plan.store == "bucket":
            self._store: FolderStore | BucketStore = BucketStore(folder, self._s3_server)
            secrets["the key of the bucket"] = self._store.secret
        else:
            self._store = FolderStore(folder)
        self._undo.append(self._store.close)
        self._sources, self._targets = ([], [])
        for peers, name, count in ((self._sources, "source", SOURCES), (self._targets, "target", TARGETS)):
            for number in range(count):
                password = f"pw{chance.getrandbits(96):024x}"
                secrets[f"the password of {name}-{number}"] = password
                peers.append(Peer(f"{name}-{number}", plan.engine, folder, password))
                self._undo.append(peers[-1].close)
        options = [*self._store.settings(), "--drill-servers", str(REPOSITORY / ".engines" / plan.engine)]
        self.service = Service(self._binary, self._disk.folder / "data", folder / "service.log", options)
        self.service.start()
        self._undo.append(self._end_service)
        for peer in self._sources + self._targets:
            peer.fill(f"{plan.seed} {peer.name}", 50, 100, self._marker)
            self._adopt(peer)
        self._ledger = Ledger()
        everybody = (self._sources, self._targets)
        self._faults = Faults(self.service, self._disk, self._store, *everybody)
        self._invariants = Invariants(self.service, self._ledger, self._store, *everybody, secrets, folder)

    def _end_service(self) -> None:
        self.service.thaw()
        self.service.kill()

    def _tear_down(self, keep: bool) -> None:
        for undo in reversed(self._undo):
            if keep and undo == self._disk.unmount:
                # What lies on the small disks would be gone with them.
                shutil.copytree(self._disk.folder, self.folder / "kept-data", dirs_exist_ok=True)
            if keep and undo == self._store.close:
                self._store.heal()
                shutil.copytree(self._store.disk.folder, self.folder / "kept-store", dirs_exist_ok=True)
            undo()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _adopt(self, peer: Peer) -> None:
        wish = {"name": peer.name, "host": "127.0.0.1", "port": peer.proxy.port, "password": peer.server.password}
        peer.instance = self.service.call("POST", "/instances", wish)["id"]

    def run(self, end: float) -> None:
        """All rounds, or as many as begin before `end`; what comes last is done in any case."""
        for planned in self._plan.rounds:
            began = time.monotonic()
            if began > end:
                break
            self.round += 1
            self._do(planned)
            ended = self._count()
            self._say(f"  round {self.round}: {planned.describe()} -> {ended}, {time.monotonic() - began:.1f} s")
        self._finish()

    def _do(self, planned: Round) -> None:
        try:
            if planned.refill:
                for peer in self._sources:
                    peer.fill(f"{planned.refill} {peer.name}", planned.keys, planned.value_bytes, self._marker)
            for peer in self._sources + self._targets:
                peer.slow_down(planned.key_delay)
            if planned.work[0].kind in OFFLINE:
                self._do_offline(planned)
            else:
                self._do_online(planned)
            self._recover()
        except Refused as refused:
            raise Violation(f"refused, though nothing is wrong: {refused}") from refused

    # Work that the service does

    def _do_online(self, planned: Round) -> None:
        self._ledger.unanswered = {}
        wrong: list[BaseException] = []
        threads = [threading.Thread(target=self._ask, args=(work, wrong)) for work in planned.work]
        for thread in threads:
            thread.start()
        try:
            self._faults.run(planned.fault)
        finally:
            for thread in threads:
                thread.join()
        if wrong:
            raise wrong[0]

    def _ask(self, work: Work, wrong: list[BaseException]) -> None:
        try:
            getattr(self, f"_ask_{work.kind}")(work)
        except (NoAnswer, Refused):
            # Allowed while a fault lasts; what came of it is found in the lists.
            pass
        except BaseException as error:
            wrong.append(error)

    def _ask_backup(self, work: Work) -> str:
        source = self._sources[work.place]
        record = self.service.call("POST", f"/instances/{source.instance}/backups", {})
        self._ledger.backups.setdefault(record["id"], Backup(record["id"], source.expected))
        return record["id"]

    def _pick(self, work: Work) -> Backup | None:
        good = self._ledger.good()
        return good[int(work.pick * len(good))] if good else None

    def _ask_restore(self, work: Work) -> None:
        backup, target = self._pick(work), self._targets[work.place]
        if backup is None:
            return
        self._ledger.unanswered[work.place] = backup.id
        wish = {"backup_id": backup.id, **({"way": work.way} if work.way else {})}
        record = self.service.call("POST", f"/instances/{target.instance}/restores", wish)
        del self._ledger.unanswered[work.place]
        self._ledger.restores[record["id"]] = Restore(record["id"], work.place, target.expected, backup.digest)

    def _ask_delete(self, work: Work) -> None:
        backup = self._pick(work)
        if backup is None:
            return
        backup.deletion = "asked"
        self.service.call("DELETE", f"/backups/{backup.id}")
        backup.deletion = "answered"

    def _ask_cancel(self, work: Work) -> None:
        backup = self._ask_backup(work)
        self.service.call("POST", f"/backups/{backup}/cancel")

    def _ask_drill(self, work: Work) -> None:
        if backup := self._pick(work):
            self.service.call("POST", f"/backups/{backup.id}/drill")

    def _ask_download(self, work: Work) -> None:
        """A body that is complete is right, whatever happens meanwhile."""
        backup = self._pick(work)
        if backup and backup.proven:
            rdb = self.service.download(backup.id)
            if hashlib.sha256(rdb).hexdigest() != backup.proven:
                raise Violation(f"a download of {backup.id} gave {len(rdb)} other bytes than before")

    # Work that needs the service stopped

    def _do_offline(self, planned: Round) -> None:
        work, fault = planned.work[0], planned.fault
        if work.pick < 0.5:
            self.service.stop()
        else:
            self.service.kill()
        is_lost = work.kind == "rebuild" and work.pick < 0.75
        if is_lost:
            for file in self.service.data_dir.glob("catalog.sqlite*"):
                file.unlink()
        words = ("catalog", "rebuild") if work.kind == "rebuild" else ("key", "rotate")
        if fault.kinds != ("none",):
            self._break_offline(words, planned)
        # A rotation that was broken off has happened or not; both are right.
        if work.kind == "rebuild" or fault.kinds == ("none",):
            self._end_offline(self.service.offline(*words), words)
        self.service.start()
        if is_lost:
            self._ledger.forget_what_only_the_catalog_knew()
            self._adopt_again()
        if work.kind == "rotate":
            self._invariants.wait_rewrapped()

    def _break_offline(self, words: tuple[str, str], planned: Round) -> None:
        """Runs a command under a fault, or kills it; how it ends is its own business."""
        fault = planned.fault
        if "data-disk" in fault.kinds:
            self._disk.fill()
        if "store-disk" in fault.kinds:
            self._store.disk.fill()
        process = self.service.offline(*words)
        try:
            if "kill" in fault.kinds:
                wait_for(fault.after / 8, lambda: process.poll() is not None)
                process.kill()
            process.communicate(timeout=OFFLINE_DEADLINE)
        except subprocess.TimeoutExpired:
            raise Violation(f"`{' '.join(words)}` does not end in {OFFLINE_DEADLINE:.0f} s") from None
        finally:
            process.kill()
            self._disk.free()
            self._store.heal()

    def _end_offline(self, process: subprocess.Popen, words: tuple[str, str]) -> None:
        try:
            told, _ = process.communicate(timeout=OFFLINE_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Violation(f"`{' '.join(words)}` does not end in {OFFLINE_DEADLINE:.0f} s") from None
        if process.returncode:
            raise Violation(f"`{' '.join(words)}` ended with {process.returncode}: {told}")

    def _adopt_again(self) -> None:
        """A rebuilt catalog has instances without passwords."""
        for instance in self.service.listed("/instances"):
            self.service.call("DELETE", f"/instances/{instance['id']}?backups=keep")
        for peer in self._sources + self._targets:
            self._adopt(peer)

    # After a round

    def _recover(self) -> None:
        self.service.wait_ready()
        self._invariants.settle()
        self._back_up_again()
        fresh = [backup for backup in self._ledger.good() if not backup.proven]
        proven = [backup for backup in self._ledger.good() if backup.proven]
        chooser = random.Random(f"{self._plan.seed} {self.round}")
        self._invariants.prove(fresh + chooser.sample(proven, min(PROVEN_AGAIN, len(proven))))
        self._invariants.everything_else()
        self._invariants.strays()
        self._thin_out()

    def _back_up_again(self) -> None:
        """The service works on, without a restart."""
        source = self._sources[self.round % SOURCES]
        record = self.service.call("POST", f"/instances/{source.instance}/backups", {})
        self._ledger.backups[record["id"]] = Backup(record["id"], source.expected)
        self._invariants.settle()
        if self._ledger.backups[record["id"]].state != "good":
            told = self.service.call("GET", f"/backups/{record['id']}")
            raise Violation(f"a backup after the fault was healed failed: {told['failure']}")

    def _thin_out(self) -> None:
        """So many are kept that the store's disk has room; the oldest go first."""
        for backup in self._ledger.good()[:-KEPT_BACKUPS]:
            backup.deletion = "asked"
            self.service.call("DELETE", f"/backups/{backup.id}")
            backup.deletion = "answered"
        self._invariants.settle()

    def _finish(self) -> None:
        """All that is left is proven once more, and the store holds nothing else."""
        if self._invariants.strays():
            wait_for(SWEEP_GRACE + 1)
        self.service.stop()
        self.service.start()
        self._invariants.settle()
        self._invariants.assert_swept()
        try:
            self._invariants.prove(self._ledger.good())
        except Refused as refused:
            raise Violation(f"refused, though nothing is wrong: {refused}") from refused
        self._invariants.everything_else()
        self.service.stop()

    def _count(self) -> str:
        states = [backup.state for backup in self._ledger.backups.values()]
        restores = [restore.state for restore in self._ledger.restores.values()]
        return (f"backups {states.count('good')} good, {states.count('failed')} failed, {states.count('gone')} gone; "
                f"restores {restores.count('succeeded')} good, {restores.count('failed')} failed")
