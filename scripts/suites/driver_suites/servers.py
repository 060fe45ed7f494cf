"""The private PostgreSQL and the pgusher before it; both end with the `with` block."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .target import Login, Via

START_S = 30


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _await(port: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args[0]} does not listen:\n{log.read_text()}")
        time.sleep(0.05)


@contextmanager
def _running(argv: list[str], port: int, log: Path, stop, **options) -> Iterator[None]:
    if _answers(port):
        raise SystemExit(f"port {port} is taken")
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options
        )
    try:
        _await(port, process, log)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Postgres:
    """Clusters of one installation of PostgreSQL."""

    SETTINGS = (
        "fsync=off",
        "wal_level=logical",
        "max_connections=200",
        "max_prepared_transactions=20",
        "password_encryption=scram-sha-256",
        "log_min_messages=fatal",
    )

    def __init__(self, bin_dir: Path, logs: Path):
        self._bin = bin_dir
        self._logs = logs
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None

    def _as_owner(self) -> dict:
        if self._user is None:
            return {}
        account = pwd.getpwnam(self._user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    @contextmanager
    def cluster(self, port: int, logins: list[Login], hba: list[str]) -> Iterator[None]:
        """A new cluster with these roles and databases, on this port."""
        root = Path(tempfile.mkdtemp(prefix="pgusher-suite-"))
        data = root / "data"
        try:
            if self._user:
                shutil.chown(root, self._user)
            subprocess.run(
                [self._bin / "initdb", "-U", "admin", "-A", "trust", "-N", "-E", "UTF8", "-D", data],
                check=True, stdout=subprocess.DEVNULL, cwd=root, **self._as_owner(),
            )
            lines = [*hba, "host all admin 127.0.0.1/32 trust",
                     "host all all 127.0.0.1/32 scram-sha-256",
                     "host replication all 127.0.0.1/32 scram-sha-256"]
            (data / "pg_hba.conf").write_text("\n".join(lines) + "\n")
            argv = [str(self._bin / "postgres"), "-D", str(data), "-p", str(port), "-k", str(root)]
            for setting in self.SETTINGS:
                argv += ["-c", setting]
            log = self._logs / "postgres.log"
            log.write_text("")
            # 2: SIGINT, the fast shutdown.
            with _running(argv, port, log, 2, cwd=root, **self._as_owner()):
                self._await_ready(port)
                self._create(port, logins)
                yield
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _await_ready(self, port: int) -> None:
        """It listens before it lets anyone in."""
        argv = [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        deadline = time.monotonic() + START_S
        while subprocess.run(argv, check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.1)

    def _create(self, port: int, logins: list[Login]) -> None:
        for login in logins:
            rights = "SUPERUSER" if login.superuser else ""
            self.sql(port, "postgres", f"SET password_encryption='{login.password_encryption}'; "
                     f"CREATE ROLE \"{login.user}\" LOGIN {rights} PASSWORD '{login.password}'")
        databases = {login.database: login.user for login in reversed(logins)}
        for name, owner in databases.items():
            if name != "postgres":
                self.sql(port, "postgres", f'CREATE DATABASE "{name}" OWNER "{owner}"')

    def sql(self, port: int, database: str, text: str) -> None:
        """Runs a script as the superuser of the cluster."""
        subprocess.run(
            [self._bin / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
             "-p", str(port), "-U", "admin", "-d", database],
            input=text, text=True, check=True, stdout=subprocess.DEVNULL,
        )


class Pgusher:
    """The proxy under test."""

    def __init__(self, program: Path, logs: Path):
        self._program = program
        self._logs = logs

    def _verifier(self, key: str) -> str:
        run = subprocess.run(
            [self._program, "key", "verifier"], input=key, text=True, check=True, capture_output=True
        )
        return run.stdout.strip()

    def _config(self, port: int, upstream: int, via: Via, logins: list[Login]) -> str:
        parts = [
            f'[proxy]\nlisten = "127.0.0.1:{port}"\nauth_failures_per_minute = 100000\n',
            f'[[clusters]]\nname = "main"\nprimary = "postgres://127.0.0.1:{upstream}"\n',
        ]
        for login in logins:
            parts.append(
                f'[[tenants]]\nid = "{login.user}"\ncluster = "main"\ntier = "database"\n'
                f'database = "{login.database}"\nrole = "{login.user}"\npassword = "{login.password}"\n'
                f'pool_mode = "{via.mode}"\npool_size = {via.pool_size}\n'
                f'keys = [{{ verifier = "{self._verifier(login.password)}" }}]\n'
            )
        return "\n".join(parts)

    @contextmanager
    def serving(self, port: int, upstream: int, via: Via, logins: list[Login]) -> Iterator[None]:
        """Serves these tenants on this port."""
        config = self._logs / "proxy.toml"
        config.write_text(self._config(port, upstream, via, logins))
        config.chmod(0o600)
        log = self._logs / "pgusher.log"
        log.write_text("")
        argv = [str(self._program), "serve", "--config", str(config)]
        # 9: clients that a suite has left behind are not waited for.
        with _running(argv, port, log, 9):
            yield
