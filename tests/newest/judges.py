"""The black-box judges beside the project, which bring the checks for OpenAI's SDKs, the AI SDK and Codex."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent.parent
CLIENTS_TIME, CODEX_TIME = 1200, 3600  # seconds
SERVER = f"'{sys.executable}' -m rproxy serve --config {{config}} --listen 127.0.0.1:{{port}}"
# The last line of each judge, and its lines about one client, "text clients/openai_py   32 passed, 0 failed".
COUNTS = re.compile(r"^(\d+) passed, (\d+) failed", re.M)
PART = re.compile(r"clients/(\w+)\s+(\d+) passed, (\d+) failed")


class Result(NamedTuple):
    """What came of some checks. ``notes``: a line about each failure."""

    passed: int = 0
    failed: int = 0
    notes: Tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed"

    def plus(self, other: Result) -> Result:
        return Result(self.passed + other.passed, self.failed + other.failed, self.notes + other.notes)


def find_judges() -> Optional[Path]:
    """The folder of the judges: $JUDGES, otherwise the one beside the project; None if they are not there."""
    named = os.environ.get("JUDGES")
    folder = Path(named) if named else ROOT.parent / "shared" / "tools"
    return folder.resolve() if (folder / "judge.py").is_file() else None


def judge_clients(judges: Path, environment: Path) -> Dict[str, Result]:
    """The checks of the clients in an environment, by the name of the judge's script for each."""
    argv = [sys.executable, str(judges / "judge.py"), "--parts", "clients", "--server", SERVER]
    output = _output([*argv, "--clients-env", str(environment)], CLIENTS_TIME)
    results: Dict[str, Result] = {}
    for script, passed, failed in PART.findall(output):
        result = Result(int(passed), int(failed))
        results[script] = results.get(script, Result()).plus(result)
    for line in _failures(output):
        for script, result in results.items():
            if f"clients/{script}:" in line or f"clients/{script} " in line:
                results[script] = result.plus(Result(notes=(line,)))
    return results


def judge_codex(judges: Path, codex: Path, only: str) -> Result:
    """The scenarios with the real Codex.

    :param only: a regular expression on their names
    """
    total = Result()
    for folder in sorted(judges.glob("codex_public*")):
        output = _output(
            [sys.executable, str(judges / "codex_e2e.py"), "--scenarios", str(folder), "--only", only]
            + ["--codex", str(codex), "--jobs", "2", "--server-extra", "heartbeat_interval: 1"]
            + ["--server", SERVER, "--max-seconds", str(CODEX_TIME)],
            CODEX_TIME,
        )
        counts = COUNTS.findall(output)
        if counts:
            total = total.plus(Result(*map(int, counts[-1]), tuple(_failures(output))))
        else:
            total = total.plus(Result(0, 1, (f"{folder.name} did not run: {output.strip()[-200:]}",)))
    return total


def _output(argv: Sequence[str], limit: float) -> str:
    """What a judge prints; it is shown on the way.

    :param limit: seconds until it is ended
    """
    lines: List[str] = []
    process = subprocess.Popen(
        argv,
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    timer = threading.Timer(limit, process.terminate)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            print("  " + line, end="", flush=True)
    finally:
        timer.cancel()
        process.terminate()
        process.wait()
    return "".join(lines)


def _failures(output: str) -> List[str]:
    return [line.strip() for line in output.splitlines() if line.strip().startswith("FAIL")]
