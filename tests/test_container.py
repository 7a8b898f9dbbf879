"""``etc/Dockerfile`` and ``etc/compose.yaml``, as far as that is possible without Docker."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import yaml
from running_server import running_server
from scripted import ROOT

from rproxy.config.load import parse_config


def steps() -> List[Tuple[str, str]]:
    """The instructions of the Dockerfile and their arguments."""
    text = (ROOT / "etc" / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    lines = re.sub(r"\\\n *", "", "\n".join(lines)).splitlines()
    return [(line.split()[0], line.split(None, 1)[1]) for line in lines]


def compose() -> Dict[str, Any]:
    found: Dict[str, Any] = yaml.safe_load((ROOT / "etc" / "compose.yaml").read_text(encoding="utf-8"))
    return found


def test_what_is_copied_is_there_and_is_enough_to_install(tmp_path: Path) -> None:
    copied = [words.split()[:-1] for name, words in steps() if name == "COPY" and "--from" not in words]
    names = [name for group in copied for name in group]
    assert all((ROOT / name).exists() for name in names)
    installed = next(words for name, words in steps() if name == "RUN" and "pip install" in words)
    extras = re.findall(r"\.\[([\w,]+)\]", installed)[0].split(",")
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{extra}": [' in setup for extra in extras)
    for name in names:
        (tmp_path / name).symlink_to(ROOT / name)
    built = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0 and list(tmp_path.glob("out/*.whl")), built.stderr[-500:]


def test_it_does_not_run_as_root() -> None:
    order = [name for name, _ in steps()]
    assert dict(steps())["USER"] == "rproxy" and order.index("USER") < order.index("ENTRYPOINT")
    assert json.loads(dict(steps())["ENTRYPOINT"]) == ["rproxy"]


async def test_the_health_check_sees_a_server_that_lives_and_one_that_is_gone() -> None:
    words = dict(steps())["HEALTHCHECK"]
    command = json.loads(words.partition("CMD ")[2])
    assert shlex.split(words)[0].startswith("--interval=") and command[:2] == ["python", "-c"]
    async with running_server() as e:
        code = command[2].replace("3000", str(e.port))
        assert await _status(code) == 0
    assert await _status(code) != 0


async def _status(code: str) -> int:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=subprocess.DEVNULL)
    return await asyncio.wait_for(process.wait(), 20)


def test_the_configuration_of_compose_loads() -> None:
    text = compose()["configs"]["rproxy"]["content"]
    assert not re.search(r"(?<!\$)\$(?!\$)", text)  # compose would replace it
    environ = dict.fromkeys(compose()["services"]["rproxy"]["environment"], "k" * 20)
    config = parse_config(text.replace("$$", "$").encode(), "config.yaml", environ)
    assert config.server.auth.enabled and not config.warnings
    assert config.store.url == "redis://redis:6379/0" and "redis" in compose()["services"]
    assert {f"{address}" for address in config.server.listen_addr} == {"0.0.0.0:3000"}


def test_compose_builds_the_dockerfile_and_gives_it_the_time_to_stop() -> None:
    service = compose()["services"]["rproxy"]
    assert (ROOT / "etc" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    config = parse_config(
        compose()["configs"]["rproxy"]["content"].replace("$$", "$").encode(),
        "config.yaml",
        {"RPROXY_KEY": "k" * 20, "DEEPSEEK_API_KEY": "k"},
    )
    needed = config.server.drain_delay + config.server.drain_timeout
    assert float(service["stop_grace_period"].rstrip("s")) > needed
