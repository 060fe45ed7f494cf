"""The suites that pytest runs: psycopg and asyncpg."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

from . import programs
from .suite import Suite
from .target import Login, Outcome, Target, without_libpq_variables

TEST_TIMEOUT_S = 20
SILENCE_S = 60


class PytestSuite(Suite):
    """A suite with a virtual environment of its own."""

    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """Python of the virtual environment."""
        return self.folders.work / self.name / "venv/bin/python"

    @property
    def _cache(self) -> Path:
        return self.folders.work / self.name / "cache"

    def prepare(self) -> None:
        mark = self.python.parent / "installed"
        wanted = "\n".join(self.packages)
        if mark.exists() and mark.read_text() == wanted:
            return
        programs.must([sys.executable, "-m", "venv", self.python.parent.parent])
        tools = ["pytest", "pytest-timeout", "pytest-reportlog"]
        programs.must([self.python, "-m", "pip", "install", "-q", *tools, *self.packages])
        mark.write_text(wanted)

    def run(self, target: Target) -> Outcome:
        return self.run_again(target, ["tests"])

    def pytest(self, folder: Path, environment: dict[str, str], *arguments: str, tests: list[str]) -> Outcome:
        """Runs tests in a folder; when one hangs for good, pytest is killed and goes on after it."""
        # Tests start pproxy and mypy by name.
        path = f"{self.python.parent}{os.pathsep}{environment['PATH']}"
        environment = environment | {"PATH": path}
        argv = [self.python, "-m", "pytest", "-q", "-p", "no:randomly", "-o", f"cache_dir={self._cache}",
                *self.arguments, *arguments]
        self._forget_the_run_before()
        listed = programs.run([*argv, "--collect-only", *tests], SILENCE_S, cwd=folder, env=environment)
        waiting = [line for line in listed.output.splitlines() if line.startswith("tests/") and "::" in line]
        outcome = Outcome()
        if not waiting:
            outcome.add("(pytest finds no tests)", "failed", listed.output[-500:])
        while waiting:
            chosen = self.folders.logs / "tests.txt"
            chosen.write_text("\n".join(waiting))
            ended = self._pytest_once([*argv, f"@{chosen}"], folder, environment, outcome)
            waiting = [test for test in waiting if test not in outcome.tests]
            if ended.status is not None:
                break
            if waiting:
                outcome.add(waiting.pop(0), "failed", f"hung: nothing happened for {SILENCE_S} s")
        return outcome

    def _forget_the_run_before(self) -> None:
        """psycopg's tests refuse even to be listed when those before were killed."""
        shutil.rmtree(self._cache, ignore_errors=True)

    def _pytest_once(
        self, argv: list[str | Path], folder: Path, environment: dict[str, str], outcome: Outcome
    ) -> programs.Ended:
        report = self.folders.logs / "report.jsonl"
        report.unlink(missing_ok=True)
        self._forget_the_run_before()
        argv = [*argv, f"--timeout={TEST_TIMEOUT_S}", f"--report-log={report}"]
        ended = programs.run(argv, SILENCE_S, self.log, report, cwd=folder, env=environment)
        for line in report.read_text().splitlines() if report.exists() else ():
            # The last line may be cut off.
            with contextlib.suppress(json.JSONDecodeError):
                self._read(json.loads(line), outcome)
        if ended.status not in (0, 1, None):
            outcome.add(f"(pytest ended with {ended.status})", "failed", ended.output[-500:])
        return ended

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

    def run_again(self, target: Target, tests: list[str]) -> Outcome:
        sources = self.checkout("psycopg") / "tests"
        # The tests and their tools without the packages next to them: the installed ones are tested.
        folder = self.folders.work / self.name / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sources, folder / "tests")
        shutil.copytree(sources.parent / "tools", folder / "tools")
        shutil.copy(sources.parent / "pyproject.toml", folder)
        login = target.login
        dsn = (f"host=127.0.0.1 port={target.port} user={login.user} password={login.password} "
               f"dbname={login.database}")
        # The libpq variables would change what the tests of connection strings expect.
        environment = without_libpq_variables() | {"PSYCOPG_IMPL": "binary"}
        return self.pytest(folder, environment, "--test-dsn", dsn, tests=tests)


class Asyncpg(PytestSuite):
    """asyncpg, whose tests take the server from PGHOST."""

    name = "asyncpg"
    # Some tests name the database postgres.
    login = Login("postgres", "postgres")
    about = "asyncpg"
    source = "the unpacked sdist of PyPI, named asyncpg-0.32.0"
    packages = ("asyncpg==0.32.0", "uvloop", "distro")
    arguments = ("--assert=plain", "--deselect", "tests/test__sourcecode.py")

    def run_again(self, target: Target, tests: list[str]) -> Outcome:
        sources = self.checkout("asyncpg-*", "asyncpg") / "tests"
        folder = self.folders.work / self.name / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sources, folder / "tests")
        return self.pytest(folder, target.environment(), tests=tests)
