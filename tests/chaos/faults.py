"""What goes wrong, and how it is put right again."""

from common import wait_for
from plan import Fault
from redis_server import Peer, RedisError
from service import Service
from store import BucketStore, FolderStore, SmallDisk


class Faults:
    """Does one fault at a time to what a campaign runs."""

    def __init__(self, service: Service, disk: SmallDisk, store: FolderStore | BucketStore, sources: list[Peer],
                 targets: list[Peer]):
        self._service = service
        self._disk = disk
        self._store = store
        self._sources = sources
        self._targets = targets

    def run(self, fault: Fault) -> None:
        """Waits for its moment, does it, and has it healed when this returns."""
        wait_for(fault.after)
        try:
            for kind in fault.kinds:
                self._begin(kind, fault)
            if fault.kill_too:
                wait_for(fault.seconds / 2)
                self._service.thaw()
                self._service.kill()
                # It may not come up before the fault is over; whoever supervises it tries again.
                self._service.spawn()
            wait_for(0 if fault.kinds == ("none",) else fault.seconds)
        finally:
            self._heal(fault)

    def _begin(self, kind: str, fault: Fault) -> None:
        whose, _, what = kind.partition("-")
        if whose in ("source", "target"):
            peers = self._sources if whose == "source" else self._targets
            self._begin_with(peers[fault.place], what, fault)
        elif whose == "store" and what != "disk":
            self._begin_with(self._store, what, fault)
        elif whose == "kill":
            self._service.kill()
            self._service.spawn()
            if what == "twice":
                wait_for(fault.seconds / 3)
                self._service.kill()
                self._service.spawn()
        elif whose == "stop":
            self._service.stop()
            self._service.spawn()
        elif whose == "freeze":
            self._service.freeze()
        if kind in ("data-disk", "both-disks"):
            self._disk.fill()
        if kind in ("store-disk", "both-disks"):
            self._store.disk.fill()

    def _begin_with(self, one: Peer | BucketStore, what: str, fault: Fault) -> None:
        if what == "down":
            one.proxy.down()
        elif what == "cut":
            one.proxy.cut(fault.amount)
        elif what == "stall":
            one.proxy.stall()
        elif what == "kill":
            one.server.kill()
        elif what == "busy":
            try:
                one.server("BGSAVE")
            except (RedisError, OSError):
                # The same fault may have killed it before.
                pass
        elif isinstance(one, Peer):
            one.server.freeze()
        else:
            one.freeze()

    def _heal(self, fault: Fault) -> None:
        self._disk.free()
        self._store.heal()
        for peer in self._sources + self._targets:
            peer.proxy.heal()
            peer.server.thaw()
        if "source-kill" in fault.kinds:
            self._sources[fault.place].server.start()
        self._service.thaw()
        # It may have found no room, or no store that lets it in, while it started.
        if not self._service.is_running():
            self._service.spawn()
