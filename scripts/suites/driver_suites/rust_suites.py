"""The suites that cargo builds: tokio-postgres; and sqlx, whose test programs are given."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from . import programs
from .suite import Suite
from .target import KEY, Login, Outcome, Target, without_libpq_variables

ALL_TIMEOUT_S = 300
TEST_TIMEOUT_S = 30
THREADS = 4

_NAME = re.compile(r"^(\S+): test$", re.M)
_RESULT = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. (?:.*?)(ok|FAILED|ignored)(?:,.*)?$", re.M)
_WORDS = re.compile(r"^---- (\S+) stdout ----\n(.*?)(?=^---- |\nfailures:|\Z)", re.M | re.S)
_PANIC = re.compile(r" panicked at ([^:]+:\d+):\d+:\n(.*?)(?=\nnote: run with|\Z)", re.S)
_ANSWER = re.compile(r'code: (?:SqlState\()?(\w+).*?message: "((?:[^"\\]|\\.)*)"', re.S)
_RESULTS = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}


def _shortened(words: str) -> str:
    """Where a test panicked, and PostgreSQL's answer when that is why."""
    panic = _PANIC.search(words)
    if panic is None:
        return words[-400:]
    answer = _ANSWER.search(panic[2])
    return f"{panic[1]}: {answer[1]} {answer[2]}" if answer else f"{panic[1]}: {panic[2][:300]}"


def run_libtest(
    program: Path, suite: Suite, environment: dict[str, str], cwd: Path, only: list[str] | None = None
) -> Outcome:
    """Runs a test program: all tests at once, then those that a hang left without a result.

    With `only`, these tests, one at a time.
    """
    outcome = Outcome()
    environment = environment | {"RUST_BACKTRACE": "0"}

    def run(timeout_s: int, *arguments: str) -> programs.Ended:
        argv = [program, *arguments]
        ended = programs.run(argv, timeout_s, suite.log, cwd=cwd, env=environment)
        words = dict(_WORDS.findall(ended.output))
        for name, result in _RESULT.findall(ended.output):
            outcome.add(name, _RESULTS[result], _shortened(words.get(name, "")))
        return ended

    if only is None:
        listed = programs.run([program, "--list"], TEST_TIMEOUT_S, cwd=cwd, env=environment)
        run(ALL_TIMEOUT_S, f"--test-threads={THREADS}")
        only = [name for name in _NAME.findall(listed.output) if name not in outcome.tests]
    for name in only:
        ended = run(TEST_TIMEOUT_S, "--exact", name)
        if name not in outcome.tests:
            why = f"no result after {TEST_TIMEOUT_S} s" if ended.status is None else f"ended: {ended.status}"
            outcome.add(name, "failed", why)
    return outcome


class TokioPostgres(Suite):
    """tokio-postgres, whose crate has its tests."""

    name = "tokio-postgres"
    about = "tokio-postgres 0.7 with all its type features, from crates.io"
    source = "crates.io"
    version = "0.7.18"
    login = Login("postgres", "postgres")
    more_logins = (
        Login("pass_user", "postgres", "password", superuser=False),
        Login("md5_user", "postgres", "password", superuser=False, password_encryption="md5"),
        Login("scram_user", "postgres", "password", superuser=False),
    )
    hba = (
        "host all pass_user 127.0.0.1/32 password",
        "host all md5_user 127.0.0.1/32 md5",
    )
    # The tests name theirs, 5433, which a server of the machine may have.
    port = 25433

    @property
    def _folder(self) -> Path:
        return self.folders.work / self.name

    def setup_sql(self) -> str:
        return "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree;"

    def prepare(self) -> None:
        if (self._folder / "program").exists():
            return
        sources = self._folder / "crate"
        shutil.rmtree(sources, ignore_errors=True)
        shutil.copytree(self._published(), sources)
        # The tests trust a user without a password on their port.
        for file in (sources / "tests").rglob("*.rs"):
            text = file.read_text().replace("user=postgres", f"user=postgres password={KEY}")
            file.write_text(text.replace("5433", str(self.port)))
        manifest = (sources / "Cargo.toml").read_text()
        features = re.findall(r"^((?:with-|array-impls)[\w-]*) =", manifest, re.M)
        argv = ["nice", "cargo", "test", "--test", "test", "--no-run", "--message-format=json",
                "--features", ",".join(features)]
        built = subprocess.run(argv, cwd=sources, check=True, stdout=subprocess.PIPE, text=True)
        made = [json.loads(line).get("executable") for line in built.stdout.splitlines()]
        (self._folder / "program").symlink_to(next(path for path in made if path))

    def _published(self) -> Path:
        """The crate as cargo unpacks it."""
        asking = self._folder / "asking"
        (asking / "src").mkdir(parents=True, exist_ok=True)
        (asking / "src/lib.rs").touch()
        (asking / "Cargo.toml").write_text(
            '[package]\nname = "asking"\nversion = "0.0.0"\nedition = "2021"\n'
            f'[dependencies]\ntokio-postgres = "={self.version}"\n[workspace]\n'
        )
        said = subprocess.run(["cargo", "metadata", "--format-version=1"], cwd=asking, check=True,
                              stdout=subprocess.PIPE, text=True)
        packages = json.loads(said.stdout)["packages"]
        return Path(next(one["manifest_path"] for one in packages if one["name"] == self.name)).parent

    def run(self, target: Target) -> Outcome:
        return self._run(None)

    def run_again(self, target: Target, tests: list[str]) -> Outcome:
        return self._run(tests)

    def _run(self, only: list[str] | None) -> Outcome:
        return run_libtest(
            self._folder / "program", self, without_libpq_variables(), self._folder / "crate", only
        )


class Sqlx(Suite):
    """sqlx: test programs that were built before, since its macros need a database to build."""

    name = "sqlx"
    about = "sqlx (PostgreSQL)"
    source = ("a folder named sqlx with tests/postgres/ of sqlx, and in programs/ the test programs "
              "postgres* that cargo built from it")

    def prepare(self) -> None:
        if not self._programs():
            raise SystemExit(f"sqlx: no programs: {self.source}")

    def _programs(self) -> list[Path]:
        return sorted((self.checkout("sqlx") / "programs").glob("postgres*"))

    def setup_sql(self) -> str:
        return (self.checkout("sqlx") / "tests/postgres/setup.sql").read_text()

    def run(self, target: Target) -> Outcome:
        return self._run(target, None)

    def run_again(self, target: Target, tests: list[str]) -> Outcome:
        return self._run(target, tests)

    def _run(self, target: Target, tests: list[str] | None) -> Outcome:
        outcome = Outcome()
        environment = without_libpq_variables() | {"DATABASE_URL": target.url}
        for program in self._programs():
            prefix = f"{program.name}::"
            only = None
            if tests is not None:
                only = [test.removeprefix(prefix) for test in tests if test.startswith(prefix)]
            part = run_libtest(program, self, environment, self.checkout("sqlx"), only)
            for test, result in part.tests.items():
                outcome.add(prefix + test, result, part.words.get(test, ""))
        return outcome
