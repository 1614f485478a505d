"""What the service was asked for and what it answered: against this its records are held."""

from dataclasses import dataclass, field

ENDED = ("succeeded", "failed", "expired", "deleted")


@dataclass
class Backup:
    id: str
    # What a server holds that loads it.
    digest: str
    # `open` until it has ended; then `good`, `failed` or `gone`.
    state: str = "open"
    # Whether somebody asked for its removal, and whether it was answered that the files are gone.
    deletion: str = ""
    # SHA-256 of the RDB that a server has loaded, which held the right data.
    proven: str = ""


@dataclass
class Restore:
    id: str
    target: int
    # What the target holds when it has failed, and when it has succeeded.
    before: str
    after: str
    state: str = "open"


@dataclass
class Ledger:
    backups: dict[str, Backup] = field(default_factory=dict)
    restores: dict[str, Restore] = field(default_factory=dict)
    # Restores of this round whose request had no answer, by target.
    unanswered: dict[int, str] = field(default_factory=dict)

    def good(self) -> list[Backup]:
        """In the order in which they were made."""
        return [backup for backup in self.backups.values() if backup.state == "good" and not backup.deletion]

    def forget_what_only_the_catalog_knew(self) -> None:
        self.backups = {backup.id: backup for backup in self.backups.values() if backup.state == "good"}
        self.restores = {}
