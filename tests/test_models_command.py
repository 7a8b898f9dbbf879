"""``rproxy models``: the table, the JSON, and what is missing."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Dict

from forkserver import rproxy_command
from scripted import ROOT

CONFIG = """\
models:
  - model: gpt-5.5
    provider: {base_url: "https://api.deepseek.com", api_key: $DEEP_KEY}
    downstream_model: deepseek-v4-pro
    price: {input: 1, output: 2.5}
    context_window: 64000
    modalities: [text, image]
  - model: "*"
    provider:
      - {base_url: "http://127.0.0.1:9/v1", api_keys: [key-one, key-two], name: near}
      - {base_url: "https://api.groq.com/openai/v1"}
"""
KEYS = [
    "model", "downstream_model", "provider", "profile", "context_window", "efforts", "modalities", "price",
    "state",
]  # fmt: skip


def rproxy(tmp_path: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ: Dict[str, str] = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
    return subprocess.run(
        rproxy_command("models", *argv),
        cwd=str(ROOT),
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_json_and_table(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    done = rproxy(tmp_path, "--json", "-c", str(path), DEEP_KEY="sk-a-real-key-0123456789")
    assert done.returncode == 0 and done.stderr == "" and "real-key" not in done.stdout
    first, second, third = json.loads(done.stdout)
    assert [list(entry) for entry in (first, second, third)] == [KEYS] * 3
    assert first["model"] == "gpt-5.5" and first["downstream_model"] == "deepseek-v4-pro"
    assert first["provider"] == first["profile"] == "deepseek" and first["context_window"] == 64000
    assert first["modalities"] == ["text", "image"] and "high" in first["efforts"]
    assert first["price"] == {"input": 1.0, "output": 2.5, "cached": None, "currency": "USD"}
    assert (second["provider"], second["state"], second["price"]) == ("near", "ok", None)
    assert (third["provider"], third["state"], third["downstream_model"]) == ("groq", "no key", None)
    done = rproxy(tmp_path, "-c", str(path), DEEP_KEY="sk-a-real-key-0123456789")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4


def test_a_missing_key_is_a_state_and_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    for variables in ({}, {"DEEP_KEY": ""}):
        done = rproxy(tmp_path, "--json", "-c", str(path), **variables)
        assert done.returncode == 0 and json.loads(done.stdout)[0]["state"] == "missing key"
    done = rproxy(tmp_path, "-c", str(path))
    assert (
        "missing key" in done.stdout and done.stderr == "rproxy: $DEEP_KEY is not set: export DEEP_KEY=...\n"
    )


def test_without_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("models: [{model: a, provider: {base_url: $NO_URL}}]")
    for argv in (["-c", str(path)], ["-c", str(tmp_path / "none.yaml")]):
        done = rproxy(tmp_path, *argv)
        assert done.returncode == 78 and done.stdout == "" and "rproxy-not-set" not in done.stderr
    assert "NO_URL is not set" in rproxy(tmp_path, "-c", str(path)).stderr


def test_keys_of_the_environment(tmp_path: Path) -> None:
    done = rproxy(tmp_path, "--json", GROQ_API_KEY="gsk_0123456789abcdef")
    assert {entry["provider"] for entry in json.loads(done.stdout)} == {"groq"}
