"""What every suite has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from .target import Login, Outcome, Target


@dataclass(frozen=True)
class Folders:
    """Where things are, all outside the repository."""

    checkouts: Path
    work: Path
    logs: Path


class Suite(ABC):
    """A driver's tests."""

    name: str
    about: str
    source: str
    """Where its checkout is to be had, and its folder's name."""
    login = Login("suite", "suite")
    more_logins: tuple[Login, ...] = ()
    hba: tuple[str, ...] = ()
    port: int | None = None
    """A port that the tests name; else any that is free."""

    def __init__(self, folders: Folders):
        self.folders = folders

    @property
    def logins(self) -> list[Login]:
        """All roles and tenants."""
        return [self.login, *self.more_logins]

    @property
    def log(self) -> Path:
        """What the tests print."""
        return self.folders.logs / "output.log"

    def checkout(self, *names: str) -> Path:
        """The folder of the suite's sources."""
        for name in names:
            found = sorted(self.folders.checkouts.glob(name))
            if found:
                return found[-1]
        raise SystemExit(f"{self.name}: no {names[0]} in {self.folders.checkouts}: {self.source}")

    @abstractmethod
    def prepare(self) -> None:
        """Installs and builds what the tests need, unless it is there."""

    def setup_sql(self) -> str:
        """A script that a superuser runs in the database before the tests."""
        return ""

    @abstractmethod
    def run(self, target: Target) -> Outcome:
        """Runs the tests."""

    def run_again(self, target: Target, tests: list[str]) -> Outcome:
        """Runs some of them once more, where a suite's tests can be chosen."""
        del target, tests
        return Outcome()
