"""Programs that suites are run with."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


REPORT_POLL_S = 2


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    status: int | None
    """None: it was killed, its time was over."""
    output: str


def run(
    argv: list[str | Path], timeout_s: int, log: Path | None = None, report: Path | None = None, **options
) -> Ended:
    """Runs a program in a process group of its own, which is killed when its time is over.

    With a report, a file that the program adds to, that is when nothing was added for so long.
    """
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True, **options,
    )
    started = time.time()
    while True:
        try:
            output, _ = process.communicate(timeout=timeout_s if report is None else REPORT_POLL_S)
            status: int | None = process.returncode
            break
        except subprocess.TimeoutExpired:
            if report is not None and time.time() - max(started, _changed(report)) < timeout_s:
                continue
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = None
            break
    if log is not None:
        with log.open("a") as out:
            out.write(f"$ {' '.join(map(str, argv))}\n{output}\n=> {status}\n")
    return Ended(status, output)


def _changed(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else 0.0


def must(argv: list[str | Path], **options) -> None:
    """Runs a program that has to succeed; its output is the caller's stderr."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=2, **options)
