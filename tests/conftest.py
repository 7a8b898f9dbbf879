"""How the tests are organised; and what every test gets: an event loop of its own, and a failure when
something unexpected was logged.

There are four kinds of test modules, by how much of rproxy runs.  Most are named after the module they test.

1. **Values in, values out**, for ``convert/``, ``providers/`` and ``config/``: ``test_messages``,
   ``test_answer_chat``, ``test_profiles``, ``test_config`` ...  Many draw their input with hypothesis.
2. **One part over real sockets**, against a server that does what a test says: ``test_parser``,
   ``test_http_client``, ``test_upstream``, ``test_store`` ...
3. **The whole application in the test's own process**, between a client and a provider that plays a script:
   ``test_http``, ``test_websocket``, ``test_retrieval``, ``test_conversations``, ``test_acceptance`` ...
4. **Processes**: ``rproxy serve`` and what surrounds it in real life, such as nginx, HAProxy, Redis, Codex
   and the openai package: ``test_processes``, ``test_balanced``, ``test_bad_providers``, ``test_cli``,
   ``test_codex`` ...  What is not installed is skipped.

The modules without ``test_`` in their names are shared:

==================  ===================================================================================
``rawserver``       :class:`RawServer` runs a script for each connection; :func:`until` waits for a
                    condition; :func:`nothing_left` fails when sockets or tasks are left
``scripted``        :class:`ScriptedProvider` plays turns made of ``think``, ``say``, ``call``, ``error``
                    and refuses what DeepSeek refuses; :func:`served` is rproxy in this process,
                    :func:`running` a process of its own
``forkserver``      the command ``rproxy`` without what a new interpreter costs; ``forkclient`` is its program
``running_server``  the application in front of a provider whose answers the first word of the input
                    chooses: for tests of the client's side; ``wsclient`` has WebSocket clients
``api``             :func:`site` is a scripted provider, rproxy and an HTTP client in one; :func:`valid`
                    asks the openai package's types
``grammar``         the rules of every event stream: each stream in a test goes through it
``stream_tools``    chunks in, a checked stream out, without a server
``inputs``          how many inputs a test tries, by profile
``histories``       random and recorded histories, and all profiles; ``anything`` has JSON of any shape
``chat_rules``      what providers enforce in a chat request, written without a look at the converter
``provider_cases``  recorded answers of providers (``fixtures/``); ``refusal_cases``: their refusals
``hostile``         a provider that fails at any byte, and clients that tell how a turn ended;
                    ``observed``: rproxy as a process whose sockets, tasks and memory are counted.  For
                    ``scripts/faults``, ``scripts/fuzz`` and ``scripts/soak``
``local_machine``   model servers on their usual ports, in a network of their own; ``portable``: rproxy
                    without what only POSIX has
``redis_server``    a Redis of a test's own; ``search_services`` has the APIs of search services, and
                    rproxy in front of them
``parallel``        a plug-in of pytest: the option ``-n``
``browser``         a headless Chromium, for the page of the inspector
``secrets_shown``   secrets in texts from outside, and what may be shown of them
``pdf_maker``       small PDF files; ``mcp_demo``: a server with a tool, as a program
``mcp_double``      an MCP server over HTTP with all faults; ``mcp_official``: one of the official package;
                    ``mcp_lab``: rproxy between a client, a provider and such a server
==================  ===================================================================================

The folders are programs: ``bench``, ``newest``, ``real_servers``, ``fuzz``, ``faults``, ``soak`` and
``mutants`` belong to the scripts of those names.

Rules: no mocks of our own code; ids, clocks and the environment are arguments.  No fixed sleeps: wait for the
condition, with :func:`rawserver.until`; a provider that is to hold its answer back has a
:func:`scripted.gate`, which the test opens when it has seen enough.  Limits on time are for CPU time, or so
wide that a busy machine keeps them.  A test fails when its subject breaks: break the code once and watch it.
Tests run in parallel (``scripts/test``), so ports are free ones, files are in ``tmp_path``, and parameters
have the same order in every process.

Async tests are run by pytest-tornasync on the loop of :func:`io_loop`.  Set-up that must await uses
``io_loop.asyncio_loop.run_until_complete(...)`` in a plain fixture, because the plugin has no async fixtures.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import tempfile
import warnings
from typing import Any, Callable, Iterator, List, Tuple

import hypothesis
import pytest
from rawserver import until
from tornado.ioloop import IOLoop

from rproxy.server.speedups import event_loops

# What rproxy keeps for good (its seal key) must not go to the state folder of whoever runs the tests.
STATE = tempfile.TemporaryDirectory(prefix="rproxy-tests-")
atexit.register(STATE.cleanup)
os.environ["XDG_STATE_HOME"] = STATE.name

pytest_plugins = ["parallel"]

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# ---- Logs
class LogGuard(logging.Handler):
    """Collects records from WARNING on; :meth:`complaints`: the unexpected, and those that never came.

    The lines of failed turns and of providers that cool down are of no interest: a test of failures sees
    them in the answers.
    """

    USUAL = ("rproxy.turn", "rproxy.failover")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: List[logging.LogRecord] = []
        self.expected: List[Tuple[re.Pattern[str], bool]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def expect(self, pattern: str, *, required: bool = True) -> None:
        """Allow records whose ``logger: message`` contains the regular expression; when ``required`` there
        must be one.
        """
        self.expected.append((re.compile(pattern), required))

    def complaints(self) -> List[str]:
        lines = [f"{r.name}: {r.getMessage()}" for r in self.records]
        found = [
            f"unexpected log output: {r.levelname} {line}"
            for r, line in zip(self.records, lines)
            if r.name not in self.USUAL and not any(p.search(line) for p, _ in self.expected)
        ]
        return found + [
            f"expected log output never came: {p.pattern}"
            for p, required in self.expected
            if required and not any(p.search(line) for line in lines)
        ]


@pytest.fixture(autouse=True)
def log_guard() -> Iterator[LogGuard]:
    """Fails the test when a warning or an error was logged that :func:`expect_log` did not announce."""
    guard = LogGuard()
    root = logging.getLogger()
    ours = logging.getLogger("rproxy")
    levels, handlers = (root.level, ours.level), root.handlers[:]
    root.addHandler(guard)
    yield guard
    for logger, level in zip((root, ours), levels):
        logger.setLevel(level)
    root.handlers[:] = (
        handlers  # what a test sets up for a command must not outlive it: its stream does not either
    )
    complaints = guard.complaints()
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.fixture(autouse=True)
def io_loop(request: pytest.FixtureRequest, log_guard: LogGuard) -> Iterator[IOLoop]:
    """A loop of its own for each test; what a test left running is cancelled and awaited, so that nothing
    leaks into the next.

    It replaces the fixture of pytest-tornasync, whose ``make_current`` is deprecated and which forgets
    pending tasks.
    """
    standard = request.node.get_closest_marker("standard_loop") is not None
    loop = (asyncio if standard else event_loops()).new_event_loop()
    asyncio.set_event_loop(loop)
    tornado_loop, processes = IOLoop.current(), watched(loop)
    yield tornado_loop
    left = close(tornado_loop, processes)
    asyncio.set_event_loop(None)
    if left:
        pytest.fail(f"{request.node.nodeid} has left something open: {'; '.join(left)}", pytrace=False)


Processes = List[Tuple[asyncio.SubprocessTransport, str]]


def watched(loop: asyncio.AbstractEventLoop) -> Processes:
    """The processes that this loop starts from now on, with their commands."""
    found: Processes = []
    start: Any = loop.subprocess_exec

    async def watched_start(factory: Any, *command: Any, **options: Any) -> Any:
        transport, protocol = await start(factory, *command, **options)
        found.append((transport, " ".join(map(str, command))))
        return transport, protocol

    loop.subprocess_exec = watched_start  # type: ignore[method-assign]
    return found


def close(tornado_loop: IOLoop, processes: Processes) -> List[str]:
    """Close a loop with all that is left on it.

    :returns: what a test should have ended or closed
    """
    loop = tornado_loop.asyncio_loop  # type: ignore[attr-defined]
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    if pending:
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    left = [f"the process {command!r} was running" for command in loop.run_until_complete(_end(processes))]
    with warnings.catch_warnings(record=True) as caught:
        # As an error, the warning would keep uvloop from closing what it warns of, and then the loop.
        warnings.simplefilter("always", ResourceWarning)
        tornado_loop.close(all_fds=True)
    return left + [str(one.message) for one in caught]


async def _end(processes: Processes) -> List[str]:
    """End them, and close their pipes.

    :returns: the commands of those that were running
    """
    running = [(transport, command) for transport, command in processes if transport.get_returncode() is None]
    for transport, _ in processes:
        transport.close()  # kills it
    await until(lambda: all(transport.get_returncode() is not None for transport, _ in running))
    await asyncio.sleep(0)  # the pipes are closed in the loop's next turn
    return [command for _, command in running]


@pytest.fixture
def expect_log(log_guard: LogGuard) -> Callable[..., Any]:
    """``expect_log(regex, required=True)``: this test logs a warning or an error, and that is right."""
    return log_guard.expect
