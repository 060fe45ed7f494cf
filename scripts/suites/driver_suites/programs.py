"""Programs that suites are run with."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    status: int | None
    """None: it was killed, its time was over."""
    output: str


def run(argv: list[str | Path], timeout_s: int, log: Path | None = None, **options) -> Ended:
    """Runs a program in a process group of its own, which is killed when its time is over."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True, **options,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
        status: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = None
    if log is not None:
        with log.open("a") as out:
            out.write(f"$ {' '.join(map(str, argv))}\n{output}\n=> {status}\n")
    return Ended(status, output)


def must(argv: list[str | Path], **options) -> None:
    """Runs a program that has to succeed; its output is the caller's stderr."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=2, **options)
