"""Run the real service under seeded faults and check all invariants.

A seed selects a campaign: the server version, the store (folder or bucket) and a list of rounds. Each round runs
jobs (backup, restore, delete, cancel, drill, download, catalog rebuild, key rotation) under one fault: SIGKILL,
SIGTERM, SIGSTOP, a full disk, or a store, source or target that is down, stalls or cuts connections. After each round
the run checks all invariants. A violation prints the command that repeats it, keeps the folder and exits with 1. The
seed selects faults and delays; the machine's speed still decides what a fault meets, so a repetition may need
several runs.

CACHEVAULT_BIN names the binary of the service, S3_SERVER the S3 server of the testkit. The run builds the missing
ones. It mounts small file systems and therefore needs root.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import plan
from campaign import Campaign
from common import REPOSITORY, Unavailable, Violation

SEEDS = Path(__file__).with_name("seeds")
ROUNDS = 12


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="first seed; later campaigns count up from it [default: by the clock]")
    parser.add_argument("--minutes", type=float, help="start rounds for this time [default: one campaign]")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds per campaign [default: {ROUNDS}]")
    parser.add_argument("--kept", action="store_true", help="run the kept seeds first")
    parser.add_argument("--plan", action="store_true", help="print the campaign of the seed and exit")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    # Leaving by a signal takes everything down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        engines = _engines()
        if options.plan:
            _print_plan(plan.make(seed, options.rounds, engines))
            return 0
        return _run(seed, options, engines)
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(seed: int, options: argparse.Namespace, engines: list[str]) -> int:
    binary, s3_server = _binaries()
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    seeds = _kept() if options.kept else []
    done = rounds = 0
    while True:
        this = seeds[done] if done < len(seeds) else seed + done - len(seeds)
        made = plan.make(this, options.rounds, engines)
        _say(f"seed {this}: {made.engine}, {made.store}")
        try:
            with Campaign(made, binary, s3_server, _say) as campaign:
                campaign.run(end)
                rounds += campaign.round
        except Violation as violation:
            _say(f"VIOLATION in round {campaign.round} of seed {this}: {violation}\n"
                 f"repeat: scripts/chaos --seed {this} --rounds {options.rounds}\n"
                 f"kept:   {campaign.folder}")
            return 1
        done += 1
        if time.monotonic() > end or (options.minutes is None and done > len(seeds)):
            _say(f"{done} campaigns, {rounds} rounds, no violation")
            return 0


def _print_plan(made: plan.Plan) -> None:
    print(f"seed {made.seed}: {made.engine}, {made.store}")
    for number, planned in enumerate(made.rounds, start=1):
        print(f"  round {number}: {planned.describe()}")


def _kept() -> list[int]:
    """Lines of a seed and what it once found."""
    lines = (line.partition("#")[0].split() for line in SEEDS.read_text(encoding="utf-8").splitlines())
    return [int(words[0]) for words in lines if words]


def _engines() -> list[str]:
    found = [name for name in plan.ENGINES if (REPOSITORY / ".engines" / name).exists()]
    if not found:
        raise Unavailable("there are no servers: run scripts/install-engines")
    return found


def _binaries() -> tuple[Path, Path]:
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "debug"
    return (_binary("CACHEVAULT_BIN", target / "cachevault", ["-p", "cachevault"]),
            _binary("S3_SERVER", target / "examples/s3_server", ["-p", "cachevault-testkit", "--example", "s3_server"]))


def _binary(variable: str, built: Path, words: list[str]) -> Path:
    if named := os.environ.get(variable):
        if not os.access(named, os.X_OK):
            raise Unavailable(f"{variable} does not name a program: {named}")
        return Path(named).resolve()
    if subprocess.run(["cargo", "build", "--locked", "--quiet", *words], cwd=REPOSITORY).returncode:
        raise Unavailable(f"cargo does not build {built}")
    return built


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
