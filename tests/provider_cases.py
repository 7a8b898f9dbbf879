"""The cases of ``fixtures/providers`` (recorded answers and requests) and of
``fixtures/provider_cases.jsonl`` (our own: one rule each, or two that meet).

A case has ``body`` (bytes) and ``http_status``, ``headers`` of an answer, and what must come of it:
``expect`` (2xx), ``expect_http`` (other statuses), or ``expect_messages`` (requests).  ``python
tests/provider_cases.py DIR`` writes our own as files of the first form.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any, Dict

Json = Dict[str, Any]

FIXTURES = Path(__file__).parent / "fixtures"


def recorded() -> Dict[str, Json]:
    cases = {}
    for path in sorted((FIXTURES / "providers").glob("*.expect.json")):
        case = json.loads(path.read_text(encoding="utf-8"))
        cases[path.name[: -len(".expect.json")]] = dict(case, body=(path.parent / case["file"]).read_bytes())
    return cases


def our_own() -> Dict[str, Json]:
    """All of the JSON lines, requests included."""
    cases = {}
    for line in (FIXTURES / "provider_cases.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        if "base64" in case:
            case["body"] = base64.b64decode(case.pop("base64"))
        elif "body" in case:
            case["body"] = case["body"].encode()
        cases[case.pop("case")] = case
    return cases


def write(folder: Path) -> None:
    for name, case in our_own().items():
        body = case.pop("body", None)
        if body is not None:
            (folder / case["file"]).write_bytes(body)
        (folder / (name + (".json" if body is None else ".expect.json"))).write_text(
            json.dumps(case), encoding="utf-8"
        )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
