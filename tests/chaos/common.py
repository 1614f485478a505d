"""What all parts of a chaos run need: waiting with a deadline, ports, what a violation is."""

import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[2]
POLL = 0.02

T = TypeVar("T")


class Violation(Exception):
    """An invariant of the product does not hold."""


class Unavailable(Exception):
    """Something that the run needs is not there; the text says what to do."""


def wait_until(what: str, seconds: float, look: Callable[[], T | None]) -> T:
    """Looks until there is something, for so long; a violation when there is not."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > end:
            raise Violation(f"not within {seconds:.0f} s: {what}")
        time.sleep(POLL)


def wait_for(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """The time that a fault lasts, or less where what it is about has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        time.sleep(min(POLL, max(0.0, end - time.monotonic())))


def free_port() -> int:
    """A port below those that the system gives to clients, so that it is free again after a restart."""
    chooser = random.Random(os.urandom(8))
    for _ in range(200):
        port = chooser.randrange(10_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return port
            except OSError:
                continue
    raise Unavailable("no port between 10000 and 30000 is free")
