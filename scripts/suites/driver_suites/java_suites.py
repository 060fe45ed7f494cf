"""The suite of pgjdbc, compiled before: its build needs Maven Central."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from . import programs
from .suite import Suite
from .target import Login, Outcome, Target, without_libpq_variables

CLASS_TIMEOUT_S = 120


class Pgjdbc(Suite):
    """pgjdbc: a class at a time, so that one that hangs takes no other with it."""

    name = "pgjdbc"
    about = "pgjdbc (classes *Test but those of SSL, GSS, OSGi)"
    source = ("a checkout of pgjdbc/pgjdbc, named pgjdbc, its test classes compiled into "
              "pgjdbc/test-classes, and in pgjdbc/lib the driver's jar, those it needs, and JUnit's")
    # Some tests are about what an unprivileged role sees.
    login = Login("test", "test", "test", superuser=False)
    more_logins = (Login("postgres", "test"),)

    def prepare(self) -> None:
        if not (self.checkout("pgjdbc") / "test-classes").is_dir():
            raise SystemExit(f"pgjdbc: no classes: {self.source}")

    def setup_sql(self) -> str:
        return "CREATE EXTENSION hstore; CREATE EXTENSION sslinfo;"

    def _classes(self) -> list[str]:
        root = self.checkout("pgjdbc") / "test-classes"
        files = sorted(root.rglob("*Test.class")) + sorted(root.rglob("*Tests.class"))
        names = [str(file.relative_to(root)).removesuffix(".class").replace("/", ".") for file in files]
        return [name for name in names if not re.search(r"\.ssl\.|\.sspi\.|\.osgi\.|\$", name)]

    def run(self, target: Target) -> Outcome:
        checkout = self.checkout("pgjdbc")
        jars = sorted((checkout / "lib").glob("*.jar"))
        resources = checkout / "pgjdbc/src/test/resources"
        path = os.pathsep.join(map(str, [checkout / "test-classes", resources, *jars]))
        privileged = self.more_logins[0]
        properties = {
            "server": "localhost", "port": target.port, "database": target.login.database,
            "username": target.login.user, "password": target.login.password,
            "privilegedUser": privileged.user, "privilegedPassword": privileged.password,
            "build.properties.relative.path": checkout, "junit.jupiter.execution.timeout.default": "60s",
        }
        given = [f"-D{name}={value}" for name, value in properties.items()]
        reports = self.folders.logs / "reports"
        environment = without_libpq_variables()
        outcome = Outcome()
        for name in self._classes():
            argv = ["java", "-XX:TieredStopAtLevel=1", *given, "-cp", path,
                    "org.junit.platform.console.ConsoleLauncher", "--disable-banner", "--details=none",
                    "--include-classname=.*", f"--select-class={name}", f"--reports-dir={reports / name}"]
            ended = programs.run(argv, CLASS_TIMEOUT_S, self.log, cwd=checkout / "pgjdbc",
                                 env=environment)
            self._read(name, reports / name, ended, outcome)
        return outcome

    @staticmethod
    def _read(name: str, reports: Path, ended: programs.Ended, outcome: Outcome) -> None:
        for file in sorted(reports.glob("*.xml")):
            for case in ElementTree.parse(file).iter("testcase"):
                problem = next((one for one in case if one.tag in ("failure", "error")), None)
                result = "failed" if problem is not None else "passed"
                if case.find("skipped") is not None:
                    result = "skipped"
                words = ""
                if problem is not None:
                    words = problem.get("message") or (problem.text or "")[:300]
                outcome.add(f"{case.get('classname')}::{case.get('name')}", result, words)
        if ended.status not in (0, 1):
            outcome.add(f"{name}::(java)", "failed", f"ended with {ended.status}: {ended.output[-300:]}")
