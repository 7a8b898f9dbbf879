"""The configuration: what loads, what is refused and in which words, where it is looked for, and what happens
without a file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import pytest
from anything import json_values
from hypothesis import given
from hypothesis import strategies as st

from rproxy.config.addresses import ListenAddress
from rproxy.config.checks import keys_of
from rproxy.config.load import find_config, load_config, parse_config
from rproxy.config.schema import Auth, Config, Key, Model, Provider, Server, StoreConfig, UsageConfig
from rproxy.config.search_schema import Search
from rproxy.config.yaml_positions import MAX_VALUES, load
from rproxy.config.zero_config import default_config
from rproxy.errors import ConfigError

HERE = Path(__file__).resolve().parent
SAMPLE = HERE.parent / "etc" / "config.yaml"
REFUSED = HERE / "fixtures" / "refused_configs.txt"
SECRET = "sk-very-secret-4711"

# The example of responses-proxy 0.1.1, whose format is kept.
SEED = """\
server:
  listen_addr: "0.0.0.0:3000"
  request_timeout: 30

  # Log level: trace, debug, info, warn, error (default: info)
  log_level: info

  auth:
    enabled: false # Set to true to require API key
    keys:
      - sk-your-key-here

  tool_type_allowlist:
    - function

models:
  - model: gpt-5.5
    provider:
      base_url: https://api.deepseek.com
      api_key: $DEEPSEEK_API_KEY # or static key
    downstream_model: deepseek-v4-pro # optional, defaults to model

  - model: codex-auto-review
    provider:
      base_url: https://api.deepseek.com
      api_key: $DEEPSEEK_API_KEY
    downstream_model: deepseek-v4-flash
"""
MODELS = """\
models:
  - model: m
    provider:
      base_url: https://h.example/v1
"""


def parse(text: str, **environ: str) -> Config:
    return parse_config(text.encode(), "config.yaml", environ)


def refusal(text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, **environ)
    return str(caught.value)


def server(lines: str) -> str:
    return "server:\n{}\n{}".format("\n".join("  " + line for line in lines.split("\n")), MODELS)


def provider(lines: str, url: str = "https://h.example/v1") -> str:
    return MODELS.replace("https://h.example/v1", url) + "".join(
        f"      {line}\n" for line in lines.split("\n")
    )


# ---- what loads


def test_the_seeds_file_works_unchanged() -> None:
    config = parse(SEED, DEEPSEEK_API_KEY=SECRET)
    assert (config.server.listen_addr, config.server.request_timeout, config.server.log_level) == (
        (ListenAddress("0.0.0.0", 3000),),
        30.0,
        "info",
    )
    assert config.server.auth == Auth(False, (Key("key1", "sk-your-key-here"),))
    assert config.server.tool_type_allowlist == ("function",)
    first, second = config.models
    assert (first.model, first.downstream_model, second.downstream_model) == (
        "gpt-5.5",
        "deepseek-v4-pro",
        "deepseek-v4-flash",
    )
    assert (first.providers[0].base_url, first.providers[0].api_key) == ("https://api.deepseek.com", SECRET)
    assert first.providers[0].name == first.providers[0].profile.name == "deepseek"
    assert config.path == "config.yaml"
    assert config.server.is_open
    assert config.warnings == (
        "config.yaml:9:14: server.auth.enabled: is false, so that 'keys' has no effect and nobody is asked "
        "for a key",
        "config.yaml:14:5: server.tool_type_allowlist: rproxy translates the types of this list only, and "
        "Codex needs others: custom (apply_patch, its way to edit files), namespace (the tools of MCP "
        "servers and its subagents), tool_search (the tools that it loads when it needs them)",
    )


def test_a_smallest_file_has_the_defaults() -> None:
    config = parse(MODELS)
    assert (config.server, config.store, config.usage, config.warnings) == (
        Server(),
        StoreConfig(),
        UsageConfig(),
        (),
    )
    assert config.models[0].downstream_model == config.models[0].display_name == "m"
    assert config.models[0].providers[0].api_key is None
    assert not config.server.is_open


def test_null_is_the_default() -> None:
    assert parse("server:\n  auth:\n  retries:\nstore:\n" + MODELS).server == Server()


def test_secrets_do_not_show_in_a_repr() -> None:
    text = (
        server("auth: {enabled: true, keys: [$K]}")
        + "      api_key: $K\n      headers: {X-Key: $K}\n      query: {k: $K}\n"
        + "      http_proxy: http://u:${K}@p:80\nstore: {kind: redis, url: 'redis://:${K}@h'}\n"
    )
    config = parse(text, K=SECRET)
    assert config.server.auth.keys == (Key("key1", SECRET),)
    assert config.models[0].providers[0].http_proxy == f"http://u:{SECRET}@p:80"
    assert config.store.url == f"redis://:{SECRET}@h"
    assert SECRET not in repr(config)


@pytest.mark.parametrize(
    "written, read",
    [
        ("https://h.example/v1", "https://h.example/v1"),
        ("https://h.example/v1/", "https://h.example/v1"),
        ("https://h.example/v1/chat/completions", "https://h.example/v1"),
        ("https://h.example/v1/chat/completions//", "https://h.example/v1"),
        ("https://h.example", "https://h.example"),
        ("https://h.example/", "https://h.example"),
        ("http://[::1]:8000/v4/", "http://[::1]:8000/v4"),
        ("https://h.example/v1/responses", "https://h.example/v1"),
        ("http+unix://%2Frun%2Fa.sock/v1/", "http+unix://%2Frun%2Fa.sock/v1"),
        ("$URL", "http://h.example:8000"),
        ("${URL}/v1", "http://h.example:8000/v1"),
        ("' $URL '", "http://h.example:8000"),
    ],
)
def test_base_urls(written: str, read: str) -> None:
    assert (
        parse(provider("", url=written), URL=" http://h.example:8000 ").models[0].providers[0].base_url
        == read
    )


def test_a_provider_on_a_unix_socket_is_called_by_its_path() -> None:
    assert (
        parse(provider("", url="http+unix://%2Frun%2Fa.sock/v1")).models[0].providers[0].name == "/run/a.sock"
    )


def test_a_query_of_the_base_url_becomes_part_of_the_query() -> None:
    config = parse(
        provider("query: {b: '2'}", url="https://h.example/x/chat/completions?api-version=2024-10-21&b=1")
    )
    found = config.models[0].providers[0]
    assert (found.base_url, found.query) == ("https://h.example/x", {"api-version": "2024-10-21", "b": "2"})


@pytest.mark.parametrize(
    "lines, field, value",
    [
        ("listen_addr: '[::1]:3000'", "listen_addr", (ListenAddress("::1", 3000),)),
        ("listen_addr: $LISTEN", "listen_addr", (ListenAddress("0.0.0.0", 80),)),
        ("listen_addr: '*:80'", "listen_addr", (ListenAddress("", 80),)),
        ("listen_addr: ':80'", "listen_addr", (ListenAddress("", 80),)),
        (
            "listen_addr: ['127.0.0.1:80', 'unix:/run/$LISTEN/r.sock']",
            "listen_addr",
            (ListenAddress("127.0.0.1", 80), ListenAddress(path="/run/0.0.0.0:80/r.sock")),
        ),
        ("socket_mode: 0660", "socket_mode", 0o660),
        ("socket_mode: 660", "socket_mode", 0o660),
        ("socket_mode: '0660'", "socket_mode", 0o660),
        ("socket_mode: 0o666", "socket_mode", 0o666),
        ("request_timeout: 0.5", "request_timeout", 0.5),
        ("heartbeat_interval: 0", "heartbeat_interval", 0.0),
        ("log_level: WARN", "log_level", "warn"),
        ("max_body_size: 1 MiB", "max_body_size", 1 << 20),
        ("max_body_size: 4096", "max_body_size", 4096),
        (
            "auth: {enabled: yes, keys: [$LISTEN, $$LISTEN, a$b]}",
            "auth",
            Auth(True, (Key("key1", "0.0.0.0:80"), Key("key2", "$LISTEN"), Key("key3", "a$b"))),
        ),
        ("allowed_origins: [https://a.example]", "allowed_origins", ("https://a.example",)),
        (
            "tool_type_allowlist: [function, custom, namespace, tool_search]",
            "tool_type_allowlist",
            ("function", "custom", "namespace", "tool_search"),
        ),
    ],
)
def test_server_keys(lines: str, field: str, value: Any) -> None:
    config = parse(server(lines), LISTEN="0.0.0.0:80")
    assert getattr(config.server, field) == value
    assert config.warnings == ()


def test_http_client_is_a_key_of_the_past() -> None:
    for value in ("pooled", "Pooled", ""):
        assert parse(server(f"http_client: {value}")).server == parse(MODELS).server
    for value in ("stock", "curl", "on"):
        message = refusal(server(f"http_client: {value}"))
        assert message.startswith("config.yaml:2:16: server.http_client: rproxy has one HTTP client")
        assert "remove this line" in message and "provider.http_proxy" in message


def test_several_providers_and_shared_ones() -> None:
    config = parse("""\
models:
  - model: a
    provider:
      - &one {base_url: "http://one:1/v1", name: one, weight: 3}
      - {<<: *one, base_url: "http://two:1/v1", profile: vllm}
  - {model: b, provider: *one}
""")
    assert [(p.base_url, p.name, p.weight, p.profile.name) for p in config.models[0].providers] == [
        ("http://one:1/v1", "one", 3, "generic"),
        ("http://two:1/v1", "one", 3, "vllm"),
    ]
    assert config.models[1].providers == config.models[0].providers[:1]


def test_several_keys_make_several_providers_that_share_the_turns() -> None:
    config = parse(
        "models: [{model: a, provider: {base_url: 'http://one:1/v1', name: one, api_keys: [k1, k2]}}]"
    )
    assert [(p.name, p.api_key, p.weight) for p in config.models[0].providers] == [
        ("one#1", "k1", 1),
        ("one#2", "k2", 1),
    ]


def test_overrides_the_models_wins() -> None:
    config = parse("""\
models:
  - model: m
    downstream_model: deepseek-v4-pro
    context_window: 64000
    modalities: [text, image]
    efforts: [low, HIGH]
    override: {strict_tools: pass}
    provider:
      base_url: http://h:1
      override:
        strict_tools: omit
        thinking: {efforts: {xhigh: max}}
""")
    model = config.models[0]
    profile = model.providers[0].profile
    assert (profile.name, profile.strict_tools, profile.thinking.efforts["xhigh"]) == (
        "deepseek",
        "pass",
        "max",
    )
    assert (
        (profile.context_window, profile.modalities)
        == (model.context_window, model.modalities)
        == (64000, ("text", "image"))
    )
    assert model.efforts == ("low", "high")


def test_routes() -> None:
    config = parse("""\
models:
  - {model: "*", downstream_model: last, provider: {base_url: http://h:1}}
  - {model: "deepseek-*", provider: {base_url: http://h:2}}
  - {model: "deepseek-v*", provider: {base_url: http://h:3}}
  - {model: deepseek-x, downstream_model: glm-5, provider: {base_url: http://h:4}}
""")
    for name, model, downstream, url, profile in (
        ("deepseek-x", "deepseek-x", "glm-5", "http://h:4", "zai"),
        ("deepseek-v4-pro", "deepseek-*", "deepseek-v4-pro", "http://h:2", "deepseek"),
        ("deepseek-r1", "deepseek-*", "deepseek-r1", "http://h:2", "deepseek"),
        ("other", "*", "last", "http://h:1", "generic"),
        ("", "*", "last", "http://h:1", "generic"),
    ):
        found = config.route(name)
        assert found is not None
        assert (found.model, found.downstream_model, found.providers[0].base_url) == (model, downstream, url)
        assert (found.providers[0].profile.name, found.display_name) == (profile, name)
    assert parse(MODELS).route("other") is None


@pytest.mark.parametrize(
    "names, asked, answers",
    [
        (("deepseek-v4-pro", "gpt-5.5", "gpt-5.4-mini"), "gpt-6.1-sol", "gpt-5.5"),
        (("deepseek-v4-pro", "gpt-5.5"), "codex-auto-review", "gpt-5.5"),
        (("gpt-5.5", "codex-auto-review"), "codex-auto-review", "codex-auto-review"),
        (("deepseek-v4-pro", "glm-5"), "gpt-6.1-terra", "deepseek-v4-pro"),
        (("gpt-5.5", "gpt-6*"), "gpt-6-sol", "gpt-6*"),
        (("gpt-5.5",), "no-such-model", None),
        (("gpt-5.5",), "my-gpt-5", None),
        (("deepseek-*",), "gpt-6-sol", None),
    ],
)
def test_names_that_codex_asks_for_by_itself_find_a_model(
    names: Tuple[str, ...], asked: str, answers: Optional[str]
) -> None:
    config = parse(
        "models:\n"
        + "".join(f"  - {{model: '{name}', provider: {{base_url: http://h:1}}}}\n" for name in names)
    )
    found = config.route(asked)
    assert (found.model if found else None) == answers


# ---- what is refused

REFUSALS = [case.split("\n", 1) for case in re.split("(?m)^#### ", REFUSED.read_text(encoding="utf-8"))[1:]]


@pytest.mark.parametrize("message, text", REFUSALS, ids=[message[:60] for message, _ in REFUSALS])
def test_refusals(message: str, text: str) -> None:
    assert refusal(text, EMPTY=" ").splitlines()[0] == "config.yaml:" + message


def test_all_errors_of_a_file_are_told_at_once() -> None:
    text = """\
server:
  listen_adr: x
  retries: -1
  auth: {enabled: true, keys: [$NO_KEY, {name: a}]}
store: {kind: disk, ttl: soon}
models:
  - model: m
    provider: {base_url: "ftp://h", api_key: $NO_KEY, api_keys: [k]}
  - {model: m, provider: {base_ulr: "http://h:1", api_key_file: /nowhere/key}}
  - {modle: n}
"""
    said = [line.replace("config.yaml:", "") for line in refusal(text).splitlines()]
    assert [" ".join(line.split(" ", 2)[:2]) for line in said] == [
        "2:3: server:",
        "3:12: server.retries:",
        "4:32: server.auth.keys[0]:",
        "4:41: server.auth.keys[1]:",
        "5:15: store.kind:",
        "5:26: store.ttl:",
        "8:26: models[0].provider.base_url:",
        "8:46: models[0].provider.api_key:",
        "8:55: models[0].provider:",
        "9:27: models[1].provider:",
        "9:65: models[1].provider.api_key_file:",
        "10:6: models[2]:",
        "10:5: models[2]:",
        "9:13: models[1].model:",
    ]
    assert "did you mean 'base_url'" in said[9] and "'provider' is missing" in said[12]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\xff", "c.yaml:1:1: the file is not UTF-8 text"),
        (b"a: \xc3\xa9\nb: \xff", "c.yaml:2:4: the file is not UTF-8 text"),
        (b"a: b\x07\n", "c.yaml:1:5: the character U+0007 is not allowed in YAML"),
        (b'a: "\\UFFFFFFFF"', "c.yaml:1:7: cannot be read: "),
        (
            b"a: &a [%s]\n%s"
            % (b"1," * 9, b"".join(b"%c: &%c [%s]\n" % (c, c, b"*%c," % (c - 1) * 10) for c in b"bcdef")),
            f"c.yaml:5:4: stands for more than {MAX_VALUES} values",
        ),
    ],
)
def test_bytes_that_cannot_be_read(content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(content, "c.yaml", {})


def test_what_stays_text() -> None:
    data = load("\ufeffa: 2024-13-45\nb: 12:30\nc: 1.5\nd: ~\ne: '7'\nf: !!str 8\ng: 'on'\n", "c.yaml").data
    assert data == {"a": "2024-13-45", "b": "12:30", "c": 1.5, "d": None, "e": "7", "f": "8", "g": "on"}


def test_anchors_and_merge_keys() -> None:
    text = (
        "a: &x {b: 1, c: &y [2]}\nd: {<<: *x, c: 3}\ne: &x {<<: [{f: *y}, {f: 5, g: <<}]}\nh: *x\n'<<': =\n"
    )
    assert load(text, "c.yaml").data == {
        "a": {"b": 1, "c": [2]},
        "d": {"b": 1, "c": 3},
        "e": {"f": [2], "g": "<<"},
        "h": {"f": [2], "g": "<<"},
        "<<": "=",
    }


def test_no_message_shows_a_key() -> None:
    for text in (
        provider(f"api_key: '{SECRET}\u00e9'"),
        provider(f"api_key: k\nweight: {SECRET}"),
        provider("api_key: $KEY"),
        provider("", url="$KEY"),
        provider("headers: {A: '${KEY}'}"),
        server(f"auth: {{keys: {SECRET}}}"),
        provider("http_proxy: $KEY"),
        "store: {url: $KEY}\n" + MODELS,
    ):
        try:
            config = parse(text, KEY=SECRET + "\u00e9")
        except ConfigError as error:
            assert SECRET not in str(error)
        else:
            assert SECRET not in repr(config)


# ---- key files, warnings


def test_a_key_file_counts_from_the_folder_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET + "\n")
    (tmp_path / "key").chmod(0o600)
    path = tmp_path / "config.yaml"
    path.write_text(provider("api_key_file: key"))
    config = load_config(str(path), {})
    assert (config.models[0].providers[0].api_key, config.warnings) == (SECRET, ())
    path.write_text(provider("api_key_file: $CREDENTIALS_DIRECTORY/key"))
    assert (
        load_config(str(path), {"CREDENTIALS_DIRECTORY": str(tmp_path)}).models[0].providers[0].api_key
        == SECRET
    )


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_key_file_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "key").chmod(0o644)
    path = tmp_path / "config.yaml"
    path.write_text(provider("api_key_file: key"))
    (warning,) = load_config(str(path), {}).warnings
    assert warning == (
        f"{path}:5:21: models[0].provider.api_key_file: every user of this machine can read this key; to "
        f"prevent that: chmod o-r {tmp_path / 'key'}"
    )


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "the file is empty"),
        (b"\xff", "the file is not text"),
        (b"a\nb", "has a character that HTTP headers cannot have"),
    ],
)
def test_a_key_file_that_holds_no_key(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(0o600)
    assert message in refusal(provider("api_key_file: %s" % (tmp_path / "key")))


def test_a_client_key_needs_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("x")
    assert (
        refusal(provider("client_key: %s" % (tmp_path / "k")))
        == "config.yaml:5:7: models[0].provider: 'client_key' needs 'client_cert'"
    )
    found = (
        parse(provider("client_key: {0}\nclient_cert: {0}\nca_file: {0}".format(tmp_path / "k")))
        .models[0]
        .providers[0]
    )
    assert found.client_cert == found.ca_file == str(tmp_path / "k")


@pytest.mark.parametrize(
    "url, warned",
    [
        ("http://api.example.com/v1", True),
        ("http://8.8.8.8", True),
        ("https://api.example.com/v1", False),
        ("http://127.0.0.1:1", False),
        ("http://192.168.1.7:8000", False),
        ("http://vllm:8000", False),
        ("http://llm.corp.internal", False),
    ],
)
def test_a_key_that_travels_in_the_open_is_a_warning(url: str, warned: bool) -> None:
    warnings = parse(provider("api_key: k", url=url)).warnings
    assert warnings == (
        ("config.yaml:4:17: models[0].provider.base_url: the key travels unencrypted; use https://",)
        if warned
        else ()
    )


@pytest.mark.parametrize(
    "address, auth, is_open",
    [
        ("127.0.0.1:1", False, False),
        ("localhost:1", False, False),
        ("'[::1]:1'", False, False),
        ("0.0.0.0:1", False, True),
        ("'*:1'", False, True),
        ("'[::]:1'", False, True),
        ("0.0.0.0:1", True, False),
    ],
)
def test_open_to_the_world(address: str, auth: bool, is_open: bool) -> None:
    lines = f"listen_addr: {address}\nauth: {{enabled: {str(auth).lower()}, keys: [k]}}"
    assert parse(server(lines)).server.is_open is is_open


# ---- where it is looked for


def test_the_search_order(tmp_path: Path) -> None:
    home, xdg, system, cwd = (tmp_path / name for name in ("home", "xdg", "etc", "cwd"))
    for folder in (home / ".config" / "rproxy", xdg / "rproxy", system, cwd):
        folder.mkdir(parents=True)
    system_file = system / "config.yaml"

    def find(cli: Any = None, **environ: str) -> Tuple[Any, str]:
        return tuple(find_config(cli, {"HOME": str(home), **environ}, str(cwd), str(system_file)))  # type: ignore[return-value]

    assert find() == (None, "")
    (cwd / "config.yaml").touch()
    note = "./config.yaml is not read unless you name it: rproxy serve --config config.yaml"
    assert find() == (None, note)
    system_file.touch()
    assert find() == (str(system_file), note)
    (home / ".config" / "rproxy" / "config.yaml").touch()
    assert find()[0] == str(home / ".config" / "rproxy" / "config.yaml")
    assert find(XDG_CONFIG_HOME="relative")[0] == str(home / ".config" / "rproxy" / "config.yaml")
    assert find(XDG_CONFIG_HOME=str(xdg))[0] == str(system_file)
    (xdg / "rproxy" / "config.yaml").touch()
    assert find(XDG_CONFIG_HOME=str(xdg))[0] == str(xdg / "rproxy" / "config.yaml")
    assert find(XDG_CONFIG_HOME=str(xdg), RPROXY_CONFIG="r.yaml") == ("r.yaml", "")
    assert find("c.yaml", RPROXY_CONFIG="r.yaml") == ("c.yaml", "")


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    for path, why in (
        (str(tmp_path / "none"), "No such file or directory"),
        (str(tmp_path), "Is a directory"),
        ("a\0b", "embedded null byte"),
    ):
        with pytest.raises(ConfigError, match="cannot read the configuration .*: " + why):
            load_config(path, {})


# ---- without a file


def test_zero_configuration_with_one_key() -> None:
    config = load_config(None, {"DEEPSEEK_API_KEY": f" {SECRET}\n", "OPENAI_API_KEY": ""})
    assert [(m.model, m.downstream_model) for m in config.models] == [
        ("deepseek-v4-pro", "deepseek-v4-pro"),
        ("deepseek-v4-flash", "deepseek-v4-flash"),
        ("deepseek-*", ""),
        ("gpt-5.5", "deepseek-v4-pro"),
        ("codex-auto-review", "deepseek-v4-flash"),
        ("*", "deepseek-v4-pro"),
    ]
    assert {m.providers[0].api_key for m in config.models} == {SECRET}
    assert {m.providers[0].profile.name for m in config.models if not m.is_glob} == {"deepseek"}
    routed = config.route("gpt-6.1-sol")
    assert routed is not None and (routed.downstream_model, routed.providers[0].profile.name) == (
        "deepseek-v4-pro",
        "deepseek",
    )
    assert (config.path, config.server, config.warnings) == (None, Server(), ())


DURATIONS = {
    "30": 30.0,
    "0.5": 0.5,
    '"90"': 90.0,
    "90s": 90.0,
    "5m": 300.0,
    "1h": 3600.0,
    "1.5h": 5400.0,
    "1h30m": 5400.0,
    "1 h 30 m": 5400.0,
    "2d": 172_800.0,
    "250ms": 0.25,
    "' 5m '": 300.0,
}


@pytest.mark.parametrize("text", DURATIONS)
def test_every_duration_may_have_a_unit(text: str) -> None:
    keys = [
        (section, name)
        for section, cls in (("server", Server), ("store", StoreConfig), ("search", Search))
        for name, field in keys_of(cls).items()
        if field.metadata["check"].__qualname__.startswith("seconds.")
    ]
    assert len(keys) == 12
    for section, name in keys:
        more = "kind: searxng, url: http://x, " if section == "search" else ""
        whole = f"{section}: {{{more}{name}: {text}}}\n"
        assert getattr(getattr(parse(whole + MODELS), section), name) == DURATIONS[text]


@pytest.mark.parametrize("text", ["m", "5x", "5M", "-5m", "1e3s", "0s", "m5", "5m!", "٣s", "1_0s", "[5m]"])
def test_what_is_no_duration(text: str) -> None:
    assert "server.request_timeout: must be a number of seconds" in refusal(
        f"server: {{request_timeout: {text}}}\n" + MODELS
    )


def test_zero_configuration_with_several_keys() -> None:
    config = default_config({"OPENAI_API_KEY": "o", "ZHIPU_API_KEY": "z", "OPENROUTER_API_KEY": "r"})
    names = ("glm-4.7", "x/y", "gpt-5.5", "gpt-5", "other", "codex-auto-review", "openai/gpt-oss-120b")
    found: Dict[str, Tuple[str, str]] = {}
    for name in names:
        model = config.route(name)
        assert model is not None
        found[name] = (model.providers[0].name, model.downstream_model)
    assert found == {
        "glm-4.7": ("zai", "glm-4.7"),
        "x/y": ("openrouter", "x/y"),
        "gpt-5.5": ("openai", "gpt-5.5"),
        "gpt-5": ("openai", "gpt-5"),
        "other": ("zai", "glm-5.3"),
        "codex-auto-review": ("zai", "glm-5.3-flash"),
        "openai/gpt-oss-120b": ("openrouter", "openai/gpt-oss-120b"),
    }


def test_zero_configuration_without_a_key() -> None:
    with pytest.raises(
        ConfigError,
        match=r"(?s)no configuration file and no provider's key in the environment, .*Ollama \(11434\).*"
        "rproxy serve --demo.*export DEEPSEEK_API_KEY=.*rproxy init",
    ):
        default_config({"DEEPSEEK_API_KEY": " "})
    with pytest.raises(
        ConfigError, match=r"^\$DEEPSEEK_API_KEY has a character that HTTP headers cannot have"
    ):
        default_config({"DEEPSEEK_API_KEY": "sk-\u00e9"})


# ---- etc/config.yaml


def test_the_secrets_of_a_provider() -> None:
    provider = Provider(
        base_url="x",
        api_key="key-of-acme",
        headers={
            "X-Title": "Title of rproxy",
            "Cf-Access-Token": "Token tok-of-acme",
            "X-Empty-Key": " ",
            "X-Tenant": "tenant-of-acme",
            "X-Short": "eu",
        },
        query={"api-version": "2026-11-22", "subscription-key": "sub-of-acme"},
        http_proxy="http://user:pw%40acme@proxy:3128",
    )
    assert provider.secrets == (
        "key-of-acme",
        "Token tok-of-acme",
        "tok-of-acme",
        "tenant-of-acme",
        "sub-of-acme",
        "pw%40acme",
        "pw@acme",
        "dXNlcjpwd0BhY21l",
    )


def test_the_sample_file_loads_and_its_values_are_the_defaults() -> None:
    config = load_config(str(SAMPLE), {"DEEPSEEK_API_KEY": "k"})
    assert (config.server, config.store, config.usage, config.warnings) == (
        Server(),
        StoreConfig(),
        UsageConfig(),
        (),
    )
    assert [m.downstream_model for m in config.models] == ["deepseek-v4-pro", "deepseek-v4-flash"]
    blank = Model(model="x", providers=config.models[0].providers)
    unset = Provider(base_url="x", name="deepseek", api_key="k")
    first = config.models[0]
    assert (first.efforts, first.override, first.description) == (
        blank.efforts,
        blank.override,
        blank.description,
    )
    for name in ("headers", "query", "weight", "override", "ca_file", "http_proxy"):
        assert getattr(first.providers[0], name) == getattr(unset, name)


def test_the_sample_file_names_every_key_with_a_comment() -> None:
    all_lines = SAMPLE.read_text(encoding="utf-8").split("\n")
    for section in (Config, Server, Auth, StoreConfig, UsageConfig, Model, Provider):
        for name, field in keys_of(section).items():
            found = [
                i for i, line in enumerate(all_lines) if re.match(rf"\s*(# |- )?{re.escape(name)}:", line)
            ]
            assert found, f"{section.__name__}: {name} is not in the sample"
            assert field.metadata["doc"]
            if section in (Server, Auth, UsageConfig) and name != "auth":
                above, line = all_lines[found[0] - 1], all_lines[found[0]]
                assert re.search(r"\S  +# \S", line) or above.strip()[:2] == "# ", f"{name} has no comment"


def test_what_is_commented_out_in_the_sample_loads_too(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^( +)# ([a-z_]+: )", r"\1\2", SAMPLE.read_text(encoding="utf-8"))
    text = text.replace("kind: memory", "kind: sqlite")
    text = re.sub(r"(?m)^ +((url|api_keys): .*|api_key: \$DEEPSEEK_API_KEY +#.*)\n", "", text)
    text = re.sub(r"(~/.deepseek-key|\b(ca|me|prompt)\.(pem|key|md)) ", str(tmp_path / "file") + " ", text)
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o600)
    environ = {"DEEPSEEK_API_KEY": "k", "RPROXY_SEAL_KEY": "ab" * 32}
    config = parse_config(text.encode(), "config.yaml", environ)
    assert config.models[0].providers[0].api_key == "x"
    assert config.models[0].efforts == ("low", "high", "max")
    assert config.warnings == ()


# ---- any text at all

KNOWN = sorted(
    {
        name
        for section in (Config, Server, Auth, StoreConfig, UsageConfig, Model, Provider)
        for name in keys_of(section)
    }
)
ODD = [
    "$X",
    "${X}",
    "http://h",
    "https://[",
    "*",
    "memory",
    "sqlite",
    "1 MiB",
    "127.0.0.1:1",
    "~",
    "/",
    "\0",
    "deepseek",
    *KNOWN,
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(ODD)
)
TREES = SCALARS | json_values(
    [None, True, False, 0, -1, 7, 1.5, float("inf"), "", "x", *ODD], [*KNOWN, "x", "\0", ""]
)


def loads_or_refuses(content: bytes) -> None:
    try:
        parse_config(content, "config.yaml", {"X": "x"})
    except ConfigError as error:
        assert re.match(r"config\.yaml:\d+:\d+: \S", str(error))


@given(st.one_of(st.text(), st.text("[]{}:,-*&!|>'\"%@`?#~ \n\tab1<.", max_size=60)))
def test_any_text_loads_or_is_refused(text: str) -> None:
    loads_or_refuses(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=40))
def test_any_bytes_load_or_are_refused(content: bytes) -> None:
    loads_or_refuses(content)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "server": st.dictionaries(st.sampled_from(sorted(keys_of(Server))), TREES, max_size=3),
            "store": st.dictionaries(st.sampled_from(sorted(keys_of(StoreConfig))), TREES, max_size=3),
            "models": st.lists(
                st.fixed_dictionaries(
                    {
                        "model": SCALARS,
                        "provider": st.fixed_dictionaries(
                            {"base_url": SCALARS},
                            optional={name: TREES for name in keys_of(Provider) if name != "base_url"},
                        ),
                    },
                    optional={name: TREES for name in keys_of(Model) if name not in ("model", "provider")},
                ),
                min_size=1,
                max_size=2,
            ),
        },
    )
)
def test_any_tree_of_known_keys_loads_or_is_refused(tree: Any) -> None:
    loads_or_refuses(flow(tree).encode("utf-8", "surrogatepass"))


def flow(value: Any) -> str:
    """YAML's flow style; numbers that JSON does not know included."""
    if isinstance(value, dict):
        return "{{{}}}".format(", ".join(f"{flow(name)}: {flow(item)}" for name, item in value.items()))
    if isinstance(value, list):
        return "[{}]".format(", ".join(map(flow, value)))
    if isinstance(value, str):
        return '"{}"'.format(
            "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08X}" for c in value)
        )
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if value is None or isinstance(value, bool)
        else str(value)
    )


PUT = st.sampled_from(["", " ", "\n", ":", "-", "*", "&a", "$", "[", '"', "#"])


@given(st.lists(st.tuples(st.integers(0, len(SEED)), st.integers(0, 9), PUT), min_size=1, max_size=4))
def test_a_damaged_file_loads_or_is_refused(damages: Any) -> None:
    text = SEED
    for start, length, put in damages:
        text = text[:start] + put + text[start + length :]
    loads_or_refuses(text.encode())
