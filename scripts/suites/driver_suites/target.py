"""What a suite connects to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

KEY = "pgu_k1_suite"
"""The password of every role, and the API key of every tenant, that names no other."""


def without_libpq_variables() -> dict[str, str]:
    """The caller's environment without its PG variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


@dataclass(frozen=True)
class Login:
    """A role of the private PostgreSQL and, through pgusher, a tenant of the same name."""

    user: str
    database: str
    password: str = KEY
    superuser: bool = True
    password_encryption: str = "scram-sha-256"


@dataclass(frozen=True)
class Via:
    """Which way a suite goes: directly, or through pgusher in this mode."""

    mode: str
    pool_size: int | None = None

    @property
    def name(self) -> str:
        """As in the table: `direct`, `session-4`, `transaction-1`."""
        return self.mode if self.pool_size is None else f"{self.mode}-{self.pool_size}"


@dataclass(frozen=True)
class Target:
    """An address and a login; the same for every way."""

    via: Via
    port: int
    login: Login
    postgres_port: int
    """The server itself, for what a suite must prepare without pgusher."""

    @property
    def url(self) -> str:
        """A connection URL without parameters."""
        login = self.login
        return f"postgres://{login.user}:{login.password}@127.0.0.1:{self.port}/{login.database}"

    def environment(self, **more: str) -> dict[str, str]:
        """The caller's environment without its own PG variables, and with the target's."""
        return without_libpq_variables() | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self.login.user,
            "PGPASSWORD": self.login.password,
            "PGDATABASE": self.login.database,
            **more,
        }


@dataclass
class Outcome:
    """How each test went, and the last words of those that failed."""

    tests: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    unsteady: list[str] = field(default_factory=list)

    def add(self, test: str, result: str, words: str = "") -> None:
        """Remembers a test; a failure is not forgotten when its tear-down passes."""
        if self.tests.get(test) == "failed":
            return
        self.tests[test] = result
        if result == "failed":
            self.words[test] = words

    def settle(self, again: Outcome) -> None:
        """Takes what passed in a second run for passed; it is named as unsteady, with its words."""
        for test, result in again.tests.items():
            if result == "passed" and self.tests.get(test) == "failed":
                self.tests[test] = "passed"
                self.unsteady.append(test)

    def count(self, result: str) -> int:
        """How many tests ended so."""
        return sum(1 for one in self.tests.values() if one == result)

    def lost(self, direct: Outcome) -> list[str]:
        """The tests that passed directly and not here."""
        passed = (test for test, result in direct.tests.items() if result == "passed")
        return sorted(test for test in passed if self.tests.get(test) != "passed")
