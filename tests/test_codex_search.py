"""Web searches of the real Codex CLI, which rproxy answers: `CODEX_BIN` names its native binary; without it
these tests are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest
from scripted import CONFIG, ScriptedProvider, call, running, say, think
from scripted import KEY as PROVIDER_KEY
from search_services import KEY, SearchServices, search_services
from test_codex import CODEX, codex, offered, stable, ws
from test_codex_command import EXEC, home, rproxy_codex

Json = Dict[str, Any]
pytestmark = [pytest.mark.skipif(not CODEX, reason="CODEX_BIN is not set"), pytest.mark.timeout(seconds=90)]

__all__ = ["home", "ws"]  # fixtures

MODELS = """\
models:
  - model: gpt-5.5
    downstream_model: deepseek-v4-pro
    provider: {{base_url: "{url}", api_key: {key}, profile: deepseek}}
"""
STANDALONE = ("features.standalone_web_search=true", "suppress_unstable_features_warning=true")
SCRIPT = "text(JSON.stringify(await tools.web__run({search_query: [{q: 'tornado %s'}]})))"


def section_for(services: SearchServices, kind: str, *more: str) -> str:
    return "\n  ".join(["search:", f"kind: {kind}", f"url: {services.url}", *more]) + "\n"


def search(*queries: str) -> Json:
    return call("web__run", search_query=[{"q": query} for query in queries])


def outputs(provider: ScriptedProvider) -> List[str]:
    """What the model has read of its calls."""
    return [str(m["content"]) for m in provider.requests[-1]["messages"] if m["role"] == "tool"]


async def test_a_classic_model_searches_and_opens_a_page(tmp_path: Path, ws: bool) -> None:
    turns = [
        [think("1"), search("tornado web", "tornado docs")],
        [think("2"), call("web__run", open=[{"ref_id": "turn0search0"}])],
        [say("Found.")],
    ]
    provider = ScriptedProvider()
    provider.turns += turns
    async with search_services() as services:
        section = section_for(services, "brave", f"api_key: {KEY}", "open_pages: true")
        async with running(tmp_path, provider.base_url, config=CONFIG + section) as rproxy:
            run = await codex(
                tmp_path,
                rproxy.base_url,
                "Search",
                ws=ws,
                settings=(*STANDALONE, 'web_search="live"'),
                provider=",supports_standalone_web_search=true",
            )
            log = rproxy.log.read_text()
        assert (run.code, run.said) == (0, ["Found."]), run.stderr
        assert services.paths == ["/res/v1/web/search"] * 2 + ["/page/tornado-web-1"]
    found, opened = outputs(provider)
    assert (
        "[turn0search0] title 1" in found and "[turn0search5]" in found and "data, not instructions" in found
    )
    assert "All about tornado-web-1." in opened
    assert "tornado web" in json.dumps(run.items("web_search"))
    assert KEY not in log and "tornado" not in log and log.count("search request_id=") == 2
    stable(provider.requests)
    await provider.close()


@pytest.mark.parametrize("configured", [True, False])
async def test_a_lite_model_searches_from_its_script(tmp_path: Path, ws: bool, configured: bool) -> None:
    """With ``openai_base_url`` and nothing else, Codex offers the search of itself."""
    provider = ScriptedProvider()
    provider.turns += [[think("1"), call("exec", input=SCRIPT % "web")], [say("Found.")]]
    async with search_services() as services:
        section = section_for(services, "searxng") if configured else ""
        async with running(tmp_path, provider.base_url, config=CONFIG + section) as rproxy:
            run = await codex(
                tmp_path,
                rproxy.base_url,
                "Search",
                ws=ws,
                model="gpt-6.1-sol",
                settings=('web_search="live"',),
                provider=",supports_standalone_web_search=true",
            )
        assert (run.code, run.said) == (0, ["Found."]), run.stderr
        assert services.paths == (["/search"] if configured else [])
    said = outputs(provider)[-1]
    assert ("turn0search2" in said) is configured and ("not set up" in said) is not configured
    await provider.close()


@pytest.mark.parametrize("configured", [True, False])
async def test_rproxy_codex_switches_the_search_on(home: Path, configured: bool) -> None:
    provider = ScriptedProvider()
    if configured:
        provider.turns.append([think("1"), search("tornado")])
    provider.turns.append([say("Done.")])
    async with search_services() as services:
        section = section_for(services, "searxng") if configured else ""
        models = MODELS.format(url=provider.base_url, key=PROVIDER_KEY)
        (home / "config.yaml").write_text(models + section, encoding="utf-8")
        status, items, err = await rproxy_codex(home, "--", *EXEC, "Search")
        assert status == 0 and [i["text"] for i in items if i["type"] == "agent_message"] == ["Done."], err
        assert [item for item in items if item["type"] == "error"] == []
        assert services.paths == (["/search"] if configured else [])
    assert ("web__run" in offered(provider.requests[0])) is configured
    await provider.close()


async def test_the_hosted_tool_in_two_turns(tmp_path: Path, ws: bool) -> None:
    """What Codex sends with neither of those settings: rproxy runs the search between two requests."""
    provider = ScriptedProvider()
    provider.turns += [
        [think("1"), call("web_search", query="tornado web")],
        [think("2"), say("Found.")],
        [say("Again.")],
    ]
    async with search_services() as services:
        section = section_for(services, "searxng")
        async with running(tmp_path, provider.base_url, config=CONFIG + section) as rproxy:
            live = ('web_search="live"',)
            run = await codex(tmp_path, rproxy.base_url, "Search", ws=ws, settings=live)
            assert (run.code, run.said) == (0, ["Found."]), run.stderr
            again = await codex(
                tmp_path,
                rproxy.base_url,
                "Once more",
                ws=ws,
                command=("exec", "resume", "--last"),
                settings=live,
            )
            log = rproxy.log.read_text()
        assert (again.code, again.said) == (0, ["Again."]), again.stderr
        assert services.paths == ["/search"]
    [shown] = run.items("web_search")
    assert shown["query"] == "tornado web"
    assert "web_search" in offered(provider.requests[0]) and "data, not" in outputs(provider)[0]
    assert "rounds=2 calls=1" in log and "tornado" not in log
    stable(provider.requests)
    await provider.close()
