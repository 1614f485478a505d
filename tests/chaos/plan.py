"""What a run does, decided by its seed alone before anything begins."""

import random
from dataclasses import dataclass

ENGINES = ("redis-7.0", "redis-8.2", "redis-8.6", "valkey-9.1", "redis-6.2", "redis-5.0", "valkey-8.0")
SOURCES = 2
TARGETS = 2

# Each with its weight. Faults of the store's server exist only where there is one.
FAULTS = {
    "none": 1, "kill": 5, "kill-twice": 2, "stop": 3, "freeze": 2,
    "data-disk": 4, "store-disk": 4, "both-disks": 2,
    "source-cut": 3, "source-down": 2, "source-stall": 2, "source-freeze": 2, "source-kill": 3, "source-busy": 2,
    "target-cut": 3, "target-down": 2, "target-stall": 2, "target-freeze": 2,
}
BUCKET_FAULTS = {"store-down": 4, "store-cut": 4, "store-stall": 3, "store-freeze": 3}
WORK = {"backup": 6, "restore": 6, "delete": 3, "cancel": 1, "drill": 2, "download": 2, "rebuild": 1, "rotate": 1}
# They need the service stopped, so they are the only work of their round.
OFFLINE = ("rebuild", "rotate")
OFFLINE_FAULTS = {"none": 2, "kill": 5, "data-disk": 2, "store-disk": 1}
# For how long a worker has a job without saying so again: who sleeps longer has lost it.
LEASE_SECONDS = 30.0
WAYS = (None, None, "replica", "keys")


@dataclass(frozen=True)
class Work:
    """One thing to do. `pick` chooses among what there is when it begins."""

    kind: str
    place: int
    pick: float
    way: str | None


@dataclass(frozen=True)
class Fault:
    """What goes wrong at once, how long after the work began, for how long, and a number that some faults need."""

    kinds: tuple[str, ...]
    after: float
    seconds: float
    place: int
    amount: int
    # The service is killed as well while it lasts.
    kill_too: bool


@dataclass(frozen=True)
class Round:
    work: tuple[Work, ...]
    fault: Fault
    # How the data of the sources is made anew, and how much of it; empty where it stays.
    refill: str
    keys: int
    value_bytes: int
    # Slows snapshots and loading down, so that faults meet them.
    key_delay: int

    def describe(self) -> str:
        done = "+".join(work.kind for work in self.work)
        fault = self.fault
        kill = ", and killed" if fault.kill_too else ""
        kinds = "+".join(fault.kinds)
        return f"{done} | {kinds} at {fault.after:.2f} s for {fault.seconds:.1f} s{kill}"


@dataclass(frozen=True)
class Plan:
    seed: int
    store: str
    engine: str
    rounds: tuple[Round, ...]


def make(seed: int, rounds: int, engines: list[str]) -> Plan:
    rng = random.Random(f"cachevault chaos {seed}")
    store = rng.choice(("folder", "bucket"))
    engine = rng.choice(engines)
    return Plan(seed, store, engine, tuple(_round(rng, number, store) for number in range(rounds)))


def _round(rng: random.Random, number: int, store: str) -> Round:
    first = _weighted(rng, WORK)
    if first in OFFLINE and number > 0:
        chosen = [first]
        faults = OFFLINE_FAULTS
    else:
        online = {kind: weight for kind, weight in WORK.items() if kind not in OFFLINE}
        # The first has to make what the others restore and delete.
        chosen = ["backup"] + [_weighted(rng, online) for _ in range(rng.randrange(3))]
        faults = {**FAULTS, **(BUCKET_FAULTS if store == "bucket" else {})}
    kind = _weighted(rng, faults)
    if kind.startswith("target-") and "restore" not in chosen:
        # The fault is to meet something.
        chosen.append("restore")
    work = _one_restore_per_target(tuple(_work(rng, kind) for kind in chosen))
    # Now and then a second thing goes wrong at the same time.
    second = _weighted(rng, {name: weight for name, weight in faults.items() if "-" in name and name != "kill-twice"})
    is_alone = rng.random() > 0.2 or kind in (second, "none")
    kinds = (kind,) if is_alone else (kind, second)
    seconds = rng.choice((0.3, 1.0, rng.uniform(1, 4), rng.uniform(4, 9)))
    fault = Fault(
        kinds=kinds, after=rng.choice((0.0, 0.1, rng.uniform(0, 1), rng.uniform(0, 3))),
        seconds=LEASE_SECONDS + 4 if kind == "freeze" and rng.random() < 0.2 else seconds, place=rng.randrange(2),
        amount=rng.choice((1 << 10, 100 << 10, 1 << 20, 3 << 20)), kill_too=rng.random() < 0.15,
    )
    large = rng.random() < 0.3
    return Round(
        work=work, fault=fault, refill=f"{rng.getrandbits(32):08x}" if rng.random() < 0.7 or number == 0 else "",
        keys=rng.randrange(200, 500), value_bytes=30_000 if large else 500, key_delay=rng.choice((0, 1000, 5000)),
    )


def _work(rng: random.Random, kind: str) -> Work:
    return Work(kind, rng.randrange(2), rng.random(), rng.choice(WAYS))


def _one_restore_per_target(works: tuple[Work, ...]) -> tuple[Work, ...]:
    """With two of them nobody could tell what the target has to hold."""
    restores = {work.place: work for work in works if work.kind == "restore"}
    return tuple(work for work in works if work.kind != "restore" or restores[work.place] is work)


def _weighted(rng: random.Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
