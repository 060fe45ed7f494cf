"""The suites that Node.js runs: node-postgres and postgres.js."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from . import programs
from .suite import Suite
from .target import Login, Outcome, Target

FILE_TIMEOUT_S = 60
SUITE_TIMEOUT_S = 900


class NodePostgres(Suite):
    """pg, pg-pool and pg-cursor in JavaScript; what npm publishes of the rest."""

    name = "node-postgres"
    about = "node-postgres: pg (integration tests), pg-pool, pg-cursor"
    source = "a checkout of brianc/node-postgres, named node-postgres"
    login = Login("postgres", "ci_db_test")
    more_logins = (Login("scram_test", "ci_db_test", "test4scram", superuser=False),)
    installed = ("pg-protocol@1", "pg-types@2.2.0", "pgpass@1.0.5", "async@2.6.4", "bluebird@3.7.2",
                 "co@4.6.0", "pg-copy-streams@0.3.0", "mocha@11", "expect.js@0.3.1", "lodash@4")
    own = ("pg", "pg-pool", "pg-cursor", "pg-connection-string", "pg-cloudflare")

    @property
    def _folder(self) -> Path:
        return self.folders.work / self.name

    def prepare(self) -> None:
        modules = self._folder / "node_modules"
        if not (modules / "mocha").exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "package.json").write_text("{}\n")
            programs.must(["npm", "install", "--silent", "--no-audit", "--no-fund", *self.installed],
                          cwd=self._folder)
        packages = self._folder / "packages"
        shutil.rmtree(packages, ignore_errors=True)
        for name in self.own:
            shutil.copytree(self.checkout("node-postgres") / "packages" / name, packages / name)
            link = modules / name
            if link.is_symlink():
                link.unlink()
            shutil.rmtree(link, ignore_errors=True)
            link.symlink_to(packages / name)
        # A file's other tests run too when one has failed.
        runner = packages / "pg/test/suite.js"
        failed = "process.stdout.write(`FAILED!\\n\\n${err.stack}\\n`)\n        process.exit(-1)"
        text = runner.read_text()
        if failed not in text:
            raise SystemExit("node-postgres: test/suite.js is another one than expected")
        goes_on = failed.replace("process.exit(-1)", "process.exitCode = 1; cb()")
        runner.write_text(text.replace(failed, goes_on))

    def run(self, target: Target) -> Outcome:
        outcome = Outcome()
        scram = self.more_logins[0]
        # A warning in the middle of a test's line would hide how the test went.
        environment = target.environment(
            NODE_NO_WARNINGS="1", PGTESTNOSSL="true", SCRAM_TEST_PGUSER=scram.user, SCRAM_TEST_PGPASSWORD=scram.password
        )
        package = self._folder / "packages/pg"
        for file in sorted((package / "test/integration").rglob("*-tests.js")):
            name = str(file.relative_to(package / "test/integration"))
            ended = programs.run(["node", file], FILE_TIMEOUT_S, self.log, cwd=package, env=environment)
            self._read(name, ended, outcome)
        for name in ("pg-pool", "pg-cursor"):
            self._mocha(name, environment, outcome)
        return outcome

    @staticmethod
    def _read(file: str, ended: programs.Ended, outcome: Outcome) -> None:
        """Tests inside of a file by their marks, and the file itself by its status."""
        parts = re.split(r"(?: ✔$|FAILED!$|\? - SKIPPED$)", ended.output, flags=re.M)
        marks = re.findall(r"(?: ✔$|FAILED!$|\? - SKIPPED$)", ended.output, flags=re.M)
        for before, mark, after in zip(parts, marks, parts[1:]):
            test = f"{file}::{before.rsplit(chr(10), 1)[-1].strip()}"
            result = "passed" if "✔" in mark else "skipped" if "SKIPPED" in mark else "failed"
            outcome.add(test, result, after.strip()[:400])
        if ended.status == 0:
            outcome.add(file, "passed")
        else:
            error = re.search(r"^.*(?:Error|error:).*$", ended.output, re.M)
            words = error.group(0) if error else f"{ended.status}: {ended.output[-300:]}"
            outcome.add(file, "failed", words)

    def _mocha(self, package: str, environment: dict[str, str], outcome: Outcome) -> None:
        report = self.folders.logs / f"{package}.json"
        report.unlink(missing_ok=True)
        argv = [self._folder / "node_modules/.bin/mocha", "--exit", "--timeout", "10000",
                "--reporter", "json", "--reporter-option", f"output={report}"]
        ended = programs.run(argv, SUITE_TIMEOUT_S, self.log, cwd=self._folder / "packages" / package,
                             env=environment)
        if not report.exists():
            outcome.add(f"{package}::(mocha)", "failed", ended.output[-300:])
            return
        content = json.loads(report.read_text())
        for result, key in (("passed", "passes"), ("failed", "failures"), ("skipped", "pending")):
            for test in content[key]:
                outcome.add(f"{package}::{test['fullTitle']}", result, test["err"].get("message", ""))


class PostgresJs(Suite):
    """postgres.js; its tests run under a runner of ours, since its own stops at the first failure."""

    name = "postgres.js"
    about = "postgres.js (ESM)"
    source = "a checkout of porsager/postgres at the tag v3.4.9, named postgres"
    login = Login("postgres_js_test", "postgres_js_test")
    more_logins = (
        Login("postgres_js_test_md5", "postgres_js_test", "postgres_js_test_md5", superuser=False,
              password_encryption="md5"),
        Login("postgres_js_test_scram", "postgres_js_test", "postgres_js_test_scram", superuser=False),
    )
    hba = ("host all postgres_js_test_md5 127.0.0.1/32 md5",)

    def prepare(self) -> None:
        folder = self.folders.work / self.name
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("src", "tests"):
            shutil.copytree(self.checkout("postgres") / part, folder / part)
        shutil.copy(self.checkout("postgres") / "package.json", folder)
        own = Path(__file__).parent
        shutil.copy(own / "postgresjs_runner.mjs", folder / "tests/test.js")
        shutil.copy(own / "postgresjs_bootstrap.mjs", folder / "tests/bootstrap.js")

    def run(self, target: Target) -> Outcome:
        outcome = Outcome()
        environment = target.environment()
        folder = self.folders.work / self.name
        argv = ["node", "tests/index.js"]
        ended = programs.run(argv, SUITE_TIMEOUT_S, self.log, cwd=folder, env=environment)
        for line in ended.output.splitlines():
            if line.startswith("@@ "):
                name, result, words = json.loads(line[3:])
                outcome.add(name, result, words)
        if ended.status not in (0, 1):
            outcome.add("(node)", "failed", f"{ended.status}: {ended.output[-300:]}")
        return outcome
