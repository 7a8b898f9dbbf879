"""The proxies that are compared: how each is started, and how it is talked to.

A peer is installed by name, each in a venv of its own outside of the project, the first time it is needed.
One that cannot be installed or started is left out, with a line that says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from lab import HERE, Process, Provider, free_port

Json = Dict[str, Any]
Start = Tuple[List[str], Dict[str, str]]  # argv, environment
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rproxy-bench"
PROJECT = HERE.parent.parent


class Place(NamedTuple):
    """What a command line is made of. ``folder`` takes its files."""

    port: int
    provider: Provider
    folder: Path

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


class Variant(NamedTuple):
    name: str
    server: str  # variants of the same server share a process
    form: str  # of the load client
    path: str
    start: Callable[[Place], Start]
    package: str = ""  # what pip installs
    leaks: bool = False  # streams to the provider outlive the client's


def nginx(place: Place) -> Start:
    text = (
        (HERE / "nginx.conf")
        .read_text()
        .replace("@PORT@", str(place.port))
        .replace("@PROVIDER@", str(place.provider.port))
    )
    return [
        "nginx",
        "-c",
        place.file("nginx.conf", text.replace("@DIR@", str(place.folder))),
        "-p",
        str(place.folder),
    ], {}


def rival(kind: str) -> Callable[[Place], Start]:
    def start(place: Place) -> Start:
        ca = [str(place.provider.ca)] if place.provider.ca else []
        return [sys.executable, str(HERE / "rivals.py"), kind, str(place.port), place.provider.url, *ca], {}

    return start


def rproxy(place: Place) -> Start:
    ca = f", ca_file: {place.provider.ca}" if place.provider.ca else ""
    config = place.file(
        "rproxy.yaml",
        f"models:\n  - "
        f"{{model: '*', provider: {{base_url: '{place.provider.url}', "
        f"api_key: bench, profile: generic{ca}}}}}\n",
    )
    argv = [
        sys.executable,
        "-m",
        "rproxy",
        "serve",
        "--config",
        config,
        "--listen",
        f"127.0.0.1:{place.port}",
    ]
    return argv, {"PYTHONPATH": str(PROJECT), "RPROXY_PURE": "1"}


def rproxy_fast(place: Place) -> Start:
    argv, env = rproxy(place)
    return argv, {**env, "RPROXY_PURE": "0"}


def home(package: str) -> Path:
    """The venv of a peer."""
    return CACHE / package.partition("[")[0]


def program(package: str, name: str) -> str:
    return str(home(package) / "bin" / name)


def codex_relay(place: Place) -> Start:
    return [
        program("codex-relay", "codex-relay"),
        "--port",
        str(place.port),
        "--upstream",
        place.provider.url,
        "--api-key",
        "x",
    ], {}


def codex_bridge(place: Place) -> Start:
    return [
        program("codex-bridge-python", "codex-bridge-python"),
        "--upstream",
        place.provider.url,
        "--api-key",
        "x",
        "--port",
        str(place.port),
    ], {}


def codex_proxy(place: Place) -> Start:
    text = (
        f'[server]\nhost = "127.0.0.1"\nport = {place.port}\n[provider]\nbase_url = '
        f'"{place.provider.url}"\napi_key = "x"\nmodels = ["bench-n1"]\n'
        "[circuit_breaker]\nfailure_threshold = 100000\n"
    )
    return [program("codex-proxy", "codex-proxy"), "--config", place.file("codex-proxy.toml", text)], {
        "HOME": str(place.folder)
    }


def open_responses_server(place: Place) -> Start:
    return [program("open-responses-server", "otc"), "start"], {
        "OPENAI_BASE_URL_INTERNAL": place.provider.url[:-3],
        "OPENAI_BASE_URL": f"http://127.0.0.1:{place.port}",
        "OPENAI_API_KEY": "x",
        "API_ADAPTER_HOST": "127.0.0.1",
        "API_ADAPTER_PORT": str(place.port),
        "MCP_SERVERS_CONFIG_PATH": str(place.folder / "none.json"),
    }


def litellm(place: Place) -> Start:
    text = (
        f"model_list:\n  - model_name: '*'\n    litellm_params: "
        f"{{model: 'deepseek/*', api_base: '{place.provider.url}', api_key: x}}\n"
        "router_settings: {disable_cooldowns: true, num_retries: 0}\n"
    )
    env = {
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    return [
        program("litellm[proxy]", "litellm"),
        "--config",
        place.file("litellm.yaml", text),
        "--host",
        "127.0.0.1",
        "--port",
        str(place.port),
        "--telemetry",
        "False",
    ], env


DIRECT = Variant("no proxy", "", "chat", "/v1/chat/completions", lambda place: ([], {}))
OURS = [
    Variant("rproxy, SSE", "rproxy", "sse", "/v1/responses", rproxy),
    Variant("rproxy, WebSocket", "rproxy", "ws", "/v1/responses", rproxy),
    Variant("rproxy, JSON", "rproxy", "json", "/v1/responses", rproxy),
    Variant("rproxy [fast], SSE", "rproxy-fast", "sse", "/v1/responses", rproxy_fast),
    Variant("rproxy [fast], WebSocket", "rproxy-fast", "ws", "/v1/responses", rproxy_fast),
]
RIVALS = [
    Variant("nginx proxy_pass (bytes)", "nginx", "chat", "/v1/chat/completions", nginx),
    Variant("Tornado relay (bytes)", "relay", "chat", "/v1/chat/completions", rival("relay"), leaks=True),
    Variant("naive Tornado translator", "naive", "sse", "/v1/responses", rival("naive"), leaks=True),
]
PEERS = [
    Variant("codex-relay (Rust)", "codex-relay", "sse", "/v1/responses", codex_relay, "codex-relay"),
    Variant(
        "codex-bridge-python",
        "codex-bridge-python",
        "sse",
        "/v1/responses",
        codex_bridge,
        "codex-bridge-python",
    ),
    Variant("codex-proxy", "codex-proxy", "sse", "/responses", codex_proxy, "codex-proxy"),
    Variant(
        "open-responses-server",
        "open-responses-server",
        "sse",
        "/responses",
        open_responses_server,
        "open-responses-server",
    ),
]
LITELLM = Variant("litellm", "litellm", "sse", "/v1/responses", litellm, "litellm[proxy]")


def obstacle(variant: Variant) -> Optional[str]:
    """Make sure that it can be started. :returns: why not, or None"""
    if variant.server == "nginx":
        return None if shutil.which("nginx") else "nginx is not installed"
    if variant.server == "rproxy-fast" and not (find_spec("orjson") and find_spec("uvloop")):
        return "orjson and uvloop are not installed (pip install '.[fast]')"
    if not variant.package:
        return None
    folder = home(variant.package)
    if (folder / "installed").exists():
        return None
    print(f"installing {variant.package}, once", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    try:
        done = subprocess.run(
            [
                str(folder / "bin" / "pip"),
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary",
                ":all:",
                variant.package,
            ],
            capture_output=True,
            text=True,
            timeout=900,
        )
    except subprocess.TimeoutExpired:
        return "installing it took too long"
    if done.returncode:
        return "pip cannot install it: " + done.stderr.strip().splitlines()[-1][:200]
    (folder / "installed").touch()
    return None


def launch(variant: Variant, provider: Provider, folder: Path) -> Process:
    """Start the server of the variant. :raises RuntimeError: it does not come up"""
    files = folder / (f"{variant.server}-{provider.port}")
    files.mkdir(exist_ok=True)
    port = free_port()
    argv, env = variant.start(Place(port, provider, files))
    return Process(argv, port, files / "stderr.txt", env)
