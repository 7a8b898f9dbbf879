"""The proxies that are compared: how each is started, and how it is talked to.

A peer is installed by name, each in a venv of its own outside of the project, the first time it is needed.
One that cannot be installed or started is left out, with a line that says so.
"""

from __future__ import annotations

import json
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
EARLIER = "earlier"  # the server of another commit


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
    about: str  # what the row stands for
    packages: Tuple[str, ...] = ()  # what pip installs into a venv of its own
    programs: Tuple[str, ...] = ()  # what must be installed
    leaks: bool = False  # streams to the provider outlive the client's
    like: str = ""  # takes part in the scenarios of this server, not its own


def nginx(place: Place) -> Start:
    return balancer(place, [place.provider.port]), {}


def balancer(place: Place, ports: List[int]) -> List[str]:
    """Nginx in front of these ports."""
    text = (HERE / "nginx.conf").read_text()
    servers = " ".join(f"server 127.0.0.1:{port};" for port in ports)
    for mark, value in (("PORT", str(place.port)), ("SERVERS", servers), ("DIR", str(place.folder))):
        text = text.replace(f"@{mark}@", value)
    return ["nginx", "-c", place.file("nginx.conf", text), "-p", str(place.folder)]


def rival(kind: str) -> Callable[[Place], Start]:
    def start(place: Place) -> Start:
        ca = [str(place.provider.ca)] if place.provider.ca else []
        return [sys.executable, str(HERE / "rivals.py"), kind, str(place.port), place.provider.url, *ca], {}

    return start


def rproxy(place: Place, python: str = sys.executable, store: str = "", project: Path = PROJECT) -> Start:
    ca = f", ca_file: {place.provider.ca}" if place.provider.ca else ""
    config = place.file(
        "rproxy.yaml",
        f"models:\n  - "
        f"{{model: '*', provider: {{base_url: '{place.provider.url}', "
        f"api_key: bench, profile: generic{ca}}}}}\n{store}",
    )
    listen = f"127.0.0.1:{place.port}"
    argv = [python, "-m", "rproxy", "serve", "--config", config, "--listen", listen]
    return argv, {"PYTHONPATH": str(project), "RPROXY_PURE": "1"}


def earlier(project: Path) -> List[Variant]:
    """The variants of another commit, which is checked out in ``project``."""

    def start(kind: str) -> Callable[[Place], Start]:
        store = "store: {{kind: sqlite, path: {folder}/responses.db}}\n" if kind == "sqlite" else ""
        return lambda place: rproxy(place, store=store.format(folder=place.folder), project=project)

    return [
        variant._replace(
            name=variant.name.replace("rproxy", EARLIER),
            server=variant.server.replace("rproxy", EARLIER),
            like=variant.server,
            start=start(variant.server.rpartition("-")[2]),
        )
        for variant in OURS
        if variant.server in ("rproxy", "rproxy-sqlite")
    ]


def rproxy_fast(place: Place) -> Start:
    installed = find_spec("orjson") and find_spec("uvloop")
    argv, env = rproxy(place, sys.executable if installed else program("rproxy-fast", "python"))
    return argv, {**env, "RPROXY_PURE": "0"}


def rproxy_sqlite(place: Place) -> Start:
    return rproxy(place, store=f"store: {{kind: sqlite, path: {place.folder}/responses.db}}\n")


def rproxy_redis(place: Place) -> Start:
    port = free_port()
    argv, env = rproxy(place, store=f"store: {{kind: redis, url: 'redis://127.0.0.1:{port}/0'}}\n")
    redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    return together((redis, port), (argv, place.port)), env


def behind_nginx(count: int) -> Callable[[Place], Start]:
    """So many processes of rproxy."""

    def start(place: Place) -> Start:
        ports = [free_port() for _ in range(count)]
        started = [rproxy(place._replace(port=port)) for port in ports]
        servers = [(argv, port) for (argv, _), port in zip(started, ports)]
        return together(*servers, (balancer(place, ports), place.port)), started[0][1]

    return start


def together(*servers: Tuple[List[str], int]) -> List[str]:
    return [sys.executable, str(HERE / "together.py"), *map(json.dumps, servers)]


def program(server: str, name: str) -> str:
    """A program in the venv of a server."""
    return str(CACHE / server / "bin" / name)


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
        program("litellm", "litellm"),
        "--config",
        place.file("litellm.yaml", text),
        "--host",
        "127.0.0.1",
        "--port",
        str(place.port),
        "--telemetry",
        "False",
    ], env


SSE = ("sse", "/v1/responses")
CHAT = ("chat", "/v1/chat/completions")
FAST = ("tornado", "pyyaml", "orjson", "uvloop")
DIRECT = Variant("no proxy", "", *CHAT, lambda place: ([], {}), "the client talks to the provider itself")
OURS = [
    Variant("rproxy, SSE", "rproxy", *SSE, rproxy, "Codex and SDKs that stream; Python's own json and loop"),
    Variant("rproxy, WebSocket", "rproxy", "ws", "/v1/responses", rproxy, "Codex over its WebSocket"),
    Variant("rproxy, JSON", "rproxy", "json", "/v1/responses", rproxy, "SDKs that do not stream"),
    Variant("rproxy [fast], SSE", "rproxy-fast", *SSE, rproxy_fast, "the same with the extra `fast`", FAST),
    Variant(
        "rproxy [fast], WebSocket",
        "rproxy-fast",
        "ws",
        "/v1/responses",
        rproxy_fast,
        "the same with the extra `fast`",
        FAST,
    ),
    Variant("rproxy, sqlite", "rproxy-sqlite", *SSE, rproxy_sqlite, "SSE; responses are stored in a file"),
    Variant(
        "rproxy, Redis",
        "rproxy-redis",
        *SSE,
        rproxy_redis,
        "SSE; responses are stored in Redis, whose CPU time counts, too",
        programs=("redis-server",),
    ),
    Variant(
        "1 process behind nginx",
        "rproxy-x1",
        *SSE,
        behind_nginx(1),
        "nginx and one rproxy: what nginx costs",
        programs=("nginx",),
    ),
    Variant(
        "2 processes behind nginx",
        "rproxy-x2",
        *SSE,
        behind_nginx(2),
        "nginx and two rproxy: what a second process gives",
        programs=("nginx",),
    ),
]
RIVALS = [
    Variant(
        "nginx proxy_pass (bytes)",
        "nginx",
        *CHAT,
        nginx,
        "the least a relay can cost: nginx, which reads nothing of an answer",
        programs=("nginx",),
    ),
    Variant(
        "Tornado relay (bytes)",
        "relay",
        *CHAT,
        rival("relay"),
        "the least a relay costs in Tornado",
        leaks=True,
    ),
    Variant(
        "naive Tornado translator",
        "naive",
        *SSE,
        rival("naive"),
        "the shortest translator that one would write with Tornado",
        leaks=True,
    ),
]
PEERS = [
    Variant("codex-relay (Rust)", "codex-relay", *SSE, codex_relay, "another proxy", ("codex-relay",)),
    Variant(
        "codex-bridge-python",
        "codex-bridge-python",
        *SSE,
        codex_bridge,
        "another proxy",
        ("codex-bridge-python",),
    ),
    Variant(
        "codex-proxy", "codex-proxy", "sse", "/responses", codex_proxy, "another proxy", ("codex-proxy",)
    ),
    Variant(
        "open-responses-server",
        "open-responses-server",
        "sse",
        "/responses",
        open_responses_server,
        "another proxy",
        ("open-responses-server",),
    ),
]
LITELLM = Variant("litellm", "litellm", *SSE, litellm, "another proxy", ("litellm[proxy]",))


def obstacle(variant: Variant, install: bool = True) -> Optional[str]:
    """Make sure that it can be started.

    :param install: with pip, if need be
    :returns: why not, or None
    """
    missing = [name for name in variant.programs if not shutil.which(name)]
    if missing:
        return f"{missing[0]} is not installed"
    if variant.server == "rproxy-redis" and not find_spec("redis"):
        return "the package redis is not installed (pip install '.[redis]')"
    if variant.server == "rproxy-fast" and find_spec("orjson") and find_spec("uvloop"):
        return None
    folder = CACHE / variant.server
    if not variant.packages or (folder / "installed").exists():
        return None
    if not install:
        return f"{', '.join(variant.packages)} would have to be installed"
    print(f"installing {', '.join(variant.packages)}, once", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    try:
        done = subprocess.run(
            [*pip, "--only-binary", ":all:", *variant.packages], capture_output=True, text=True, timeout=900
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
