"""``rproxy convert`` as a process with pipes, and the examples of docs/library.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

from forkserver import rproxy_command
from grammar import check_stream, parse_sse
from scripted import ROOT

DELTAS = [{"content": "Gr"}, {"content": "üße"}, {"content": ", 4 ☃"}]
STREAM = "".join(f"data: {json.dumps({'model': 'tell-me', 'choices': [{'delta': d}]})}\n\n" for d in DELTAS)
END = 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


def convert(*argv: str, data: Any) -> subprocess.CompletedProcess[bytes]:
    given = data.encode() if isinstance(data, str) else json.dumps(data).encode()
    command = rproxy_command("convert", *argv)
    return subprocess.run(command, cwd=str(ROOT), input=given, capture_output=True, timeout=60)


def lines(done: subprocess.CompletedProcess[bytes]) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


# ---- Requests


def test_a_request() -> None:
    request = {"model": "deepseek-v4-pro", "input": "Grüße", "stream": True, "metadata": {"a": "b"}}
    done = convert("request", data=request)
    (chat,) = lines(done)
    assert done.returncode == 0 and chat["messages"] == [{"role": "user", "content": "Grüße"}]
    assert chat["model"] == "deepseek-v4-pro" and chat["stream"] is True
    assert done.stderr == b"rproxy: warning: metadata left out: the provider does not know it\n"
    more = {
        "reasoning": {"effort": "high"},
        "tools": [{"type": "web_search"}],
        "previous_response_id": "resp_1",
    }
    done = convert("request", "--profile", "kimi", "--model", "kimi-k3", data={**request, **more})
    (chat,) = lines(done)
    assert chat["model"] == "kimi-k3" and b"web_search dropped" in done.stderr
    assert b"previous_response_id: the earlier turns are not known here" in done.stderr


def test_any_locale() -> None:
    command = [sys.executable, "-m", "rproxy", "convert", "request"]
    environ = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    given = json.dumps({"model": "m", "input": "Grüße ☃"}).encode()
    done = subprocess.run(command, cwd=str(ROOT), input=given, capture_output=True, timeout=60, env=environ)
    assert "Grüße ☃".encode() in done.stdout and done.stderr == b""


def test_requests_that_cannot_be_converted() -> None:
    odd = ("", "no", "[]", "[" * 100_000, '{"model": "m"}', '{"input": "x"}', {"model": "m", "input": 1})
    for data in odd:
        done = convert("request", data=data)
        assert done.returncode == 1 and done.stdout == b"" and done.stderr.startswith(b"rproxy: ")
        assert b"Traceback" not in done.stderr
    assert convert("request", "--profile", "nobody", data="{}").returncode == 2
    assert convert("dance", data="{}").returncode == 2


# ---- Answers


def test_a_response() -> None:
    message = {"role": "assistant", "content": "Grüße", "reasoning_content": "Hm."}
    answer = {"model": "tell-me", "choices": [{"message": message, "finish_reason": "stop"}]}
    for data in (answer, json.dumps(answer, indent=2), STREAM + END):
        done = convert("response", data=data)
        (response,) = lines(done)
        assert done.returncode == 0 and done.stderr == b"" and response["model"] == "tell-me"
        assert response["status"] == "completed"
        assert response["output"][-1]["content"][0]["text"].startswith("Grüße")
    done = convert("response", "--model", "mine", data=answer)
    assert lines(done)[0]["model"] == "mine"


def test_a_stream() -> None:
    done = convert("stream", data=STREAM + END)
    assert done.returncode == 0 and done.stdout.endswith(b"data: [DONE]\n\n")
    events = parse_sse(done.stdout)
    check_stream(events)
    done = convert("stream", "--json-lines", data=STREAM + END)
    assert [event["type"] for event in lines(done)] == [event["type"] for event in events]
    assert lines(done)[-1]["response"]["output"][0]["content"][0]["text"] == "Grüße, 4 ☃"


def test_a_stream_leaves_as_it_comes() -> None:
    command = [sys.executable, "-m", "rproxy", "convert", "stream", "--json-lines"]
    with subprocess.Popen(command, cwd=str(ROOT), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(STREAM.encode())
        process.stdin.flush()
        while json.loads(process.stdout.readline()).get("delta") != ", 4 ☃":
            pass
        process.stdin.write(END.encode())
        process.stdin.close()
        assert json.loads(process.stdout.read().splitlines()[-1])["type"] == "response.completed"


def test_answers_that_fail() -> None:
    error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    failures: List[Tuple[Any, str]] = [(error, "rate_limit_exceeded")]
    failures += [(data, "server_error") for data in (STREAM, "", r'{"model": "\x"}', "[" * 100_000)]
    for data, code in failures:
        done = convert("stream", "--json-lines", data=data)
        last = lines(done)[-1]
        assert (
            done.returncode == 1 and last["type"] == "response.failed" and done.stderr.startswith(b"rproxy: ")
        )
        assert last["response"]["error"]["code"] == code
        done = convert("response", data=data)
        assert done.returncode == 1 and lines(done)[0]["status"] == "failed"


def test_the_request_of_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(
        json.dumps({"model": "gpt-5.5", "input": "x", "tools": [{"type": "custom", "name": "run"}]})
    )
    call = {"id": "call_1", "type": "function", "function": {"name": "run", "arguments": '{"input": "ls"}'}}
    answer = {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    done = convert("response", "--request", str(path), data=answer)
    (response,) = lines(done)
    assert response["model"] == "gpt-5.5" and response["tools"]
    assert (response["output"][0]["type"], response["output"][0]["input"]) == ("custom_tool_call", "ls")
    assert convert("response", "--request", str(tmp_path / "none"), data=answer).returncode == 1


def test_a_large_answer() -> None:
    answer = {"choices": [{"message": {"content": "x" * 400_000}, "finish_reason": "stop"}]}
    done = convert("response", data=answer)
    assert len(lines(done)[0]["output"][0]["content"][0]["text"]) == 400_000


def test_the_examples_of_the_library_work() -> None:
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    code = "\n".join(blocks)
    assert len(blocks) == 3 and code.count("assert ") >= 8
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=str(ROOT), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
