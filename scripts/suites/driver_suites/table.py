"""Results: kept as JSON, compared with the direct run, printed."""

from __future__ import annotations

import json
from pathlib import Path

from .target import Outcome


def keep(folder: Path, suite: str, via: str, outcome: Outcome) -> None:
    """Writes a run's results to SUITE.VIA.json."""
    content = {"tests": outcome.tests, "words": outcome.words, "unsteady": outcome.unsteady}
    (folder / f"{suite}.{via}.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def kept(folder: Path, suite: str, via: str) -> Outcome | None:
    """The results of an earlier run."""
    file = folder / f"{suite}.{via}.json"
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    return Outcome(content["tests"], content["words"], content.get("unsteady", []))


def render(rows: list[tuple[str, str, Outcome, Outcome | None]]) -> str:
    """The table, and below it the tests that pass directly and fail through pgusher, with where."""
    lines = ["| suite | target | passed | failed | skipped | unsteady | pass directly, fail here |",
             "|---|---|---:|---:|---:|---:|---:|"]
    lost: dict[tuple[str, str, str], list[str]] = {}
    for suite, via, outcome, direct in rows:
        counts = " | ".join(str(outcome.count(result)) for result in ("passed", "failed", "skipped"))
        shown = ""
        if direct is not None and via != "direct":
            names = outcome.lost(direct)
            shown = str(len(names))
            for test in names:
                lost.setdefault((suite, test, _short(outcome, test)), []).append(via)
        for test in outcome.unsteady:
            words = f"(passed when run again) {_short(outcome, test)}"
            lost.setdefault((suite, test, words), []).append(via)
        lines.append(f"| {suite} | {via} | {counts} | {len(outcome.unsteady)} | {shown} |")
    for (suite, test, words), targets in sorted(lost.items()):
        lines.append(f"{suite}: {test} [{' '.join(targets)}]: {words}")
    return "\n".join(lines)


def _short(outcome: Outcome, test: str) -> str:
    words = " ".join(outcome.words.get(test, outcome.tests.get(test, "did not run")).split())
    return words if len(words) <= 200 else words[:199] + "…"
