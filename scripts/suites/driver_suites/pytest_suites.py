"""The suites that pytest runs: psycopg and asyncpg."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from . import programs
from .suite import Suite
from .target import Login, Outcome, Target

TEST_TIMEOUT_S = 20
SUITE_TIMEOUT_S = 3600


class PytestSuite(Suite):
    """A suite with a virtual environment of its own."""

    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """Python of the virtual environment."""
        return self.folders.work / self.name / "venv/bin/python"

    def prepare(self) -> None:
        mark = self.python.parent / "installed"
        wanted = "\n".join(self.packages)
        if mark.exists() and mark.read_text() == wanted:
            return
        programs.must([sys.executable, "-m", "venv", self.python.parent.parent])
        tools = ["pytest", "pytest-timeout", "pytest-reportlog"]
        programs.must([self.python, "-m", "pip", "install", "-q", *tools, *self.packages])
        mark.write_text(wanted)

    def pytest(self, folder: Path, environment: dict[str, str], *arguments: str) -> Outcome:
        """Runs the tests in a folder."""
        report = self.folders.logs / "report.jsonl"
        report.unlink(missing_ok=True)
        argv = [self.python, "-m", "pytest", "-q", "-p", "no:randomly",
                f"--timeout={TEST_TIMEOUT_S}", f"--report-log={report}", *self.arguments, *arguments]
        # Tests start pproxy and mypy by name.
        path = f"{self.python.parent}{os.pathsep}{environment['PATH']}"
        ended = programs.run(argv, SUITE_TIMEOUT_S, self.log, cwd=folder,
                             env=environment | {"PATH": path})
        outcome = Outcome()
        for line in report.read_text().splitlines() if report.exists() else ():
            self._read(json.loads(line), outcome)
        if ended.status not in (0, 1):
            outcome.add(f"(pytest ended with {ended.status})", "failed", ended.output[-500:])
        return outcome

    @staticmethod
    def _read(entry: dict, outcome: Outcome) -> None:
        kind, result = entry.get("$report_type"), entry.get("outcome")
        if kind == "CollectReport" and result == "failed":
            outcome.add(entry["nodeid"], "failed", "cannot be collected")
        if kind != "TestReport" or (entry["when"] != "call" and result == "passed"):
            return
        longrepr = entry.get("longrepr")
        words = longrepr
        if isinstance(longrepr, dict):
            words = longrepr.get("reprcrash", {}).get("message", "")
        outcome.add(entry["nodeid"], result, str(words or ""))


class Psycopg(PytestSuite):
    """psycopg 3, with its C implementation."""

    name = "psycopg"
    about = "psycopg 3 (C implementation), with psycopg_pool"
    source = "a checkout of psycopg/psycopg at the tag 3.3.4, named psycopg"
    packages = ("psycopg[binary]==3.3.4", "psycopg-pool==3.3.1", "anyio", "pproxy", "dnspython",
                "gevent", "numpy", "shapely", "mypy")
    # The driver's types and its memory are not pgusher's, and the leak tests take most of the time.
    arguments = ("--ignore=tests/test_typing.py", "--ignore=tests/crdb", "-k", "not leak")

    def run(self, target: Target) -> Outcome:
        tests = self.checkout("psycopg") / "tests"
        # The tests without the packages next to them, so that the installed ones are tested.
        folder = self.folders.work / self.name / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tests, folder / "tests")
        shutil.copy(tests.parent / "pyproject.toml", folder)
        login = target.login
        dsn = (f"host=127.0.0.1 port={target.port} user={login.user} password={login.password} "
               f"dbname={login.database}")
        # The libpq variables would change what the tests of connection strings expect.
        environment = {name: value for name, value in target.environment().items()
                       if not name.startswith("PG")}
        return self.pytest(folder, environment | {"PSYCOPG_IMPL": "binary"}, "--test-dsn", dsn, "tests")


class Asyncpg(PytestSuite):
    """asyncpg, whose tests take the server from PGHOST."""

    name = "asyncpg"
    # Some tests name the database postgres.
    login = Login("postgres", "postgres")
    about = "asyncpg"
    source = "the unpacked sdist of PyPI, named asyncpg-0.32.0"
    packages = ("asyncpg==0.32.0", "uvloop", "distro")
    arguments = ("--assert=plain", "--deselect", "tests/test__sourcecode.py")

    def run(self, target: Target) -> Outcome:
        tests = self.checkout("asyncpg-*", "asyncpg") / "tests"
        folder = self.folders.work / self.name / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tests, folder / "tests")
        return self.pytest(folder, target.environment(), "tests")
