"""What every test gets: a fresh event loop, and a failure when something unexpected was logged.

Async tests are run by pytest-tornasync on the loop of :func:`io_loop`.  Set-up that must await uses
``io_loop.asyncio_loop.run_until_complete(...)`` in a plain fixture, because the plugin has no async fixtures.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import tempfile
from typing import Any, Callable, Generator, Iterator, List, Tuple

import hypothesis
import pytest
from tornado.ioloop import IOLoop

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000)
# What rproxy keeps for good (its seal key) must not go to the state folder of whoever runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="rproxy-tests-")

hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# ---- Parallel runs
@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """pytest-xdist sends reports as UTF-8, but lone surrogates are what some tests are about: escape them."""
    report = yield
    return encodable(report)


def encodable(value: Any) -> Any:
    """``value``, JSON-like, without anything that UTF-8 cannot encode."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encodable(item) for item in value]
    return value


# ---- Logs
class LogGuard(logging.Handler):
    """Collects records from WARNING on; :meth:`complaints`: the unexpected, and those that never came."""

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
            if not any(p.search(line) for p, _ in self.expected)
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
def io_loop(log_guard: LogGuard) -> Iterator[IOLoop]:
    """A loop of its own for each test; what a test left running is cancelled and awaited, so that nothing
    leaks into the next.

    It replaces the fixture of pytest-tornasync, whose ``make_current`` is deprecated and which forgets
    pending tasks.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    tornado_loop = IOLoop.current()
    yield tornado_loop
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    if pending:
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    tornado_loop.close(all_fds=True)
    asyncio.set_event_loop(None)


@pytest.fixture
def expect_log(log_guard: LogGuard) -> Callable[..., Any]:
    """``expect_log(regex, required=True)``: this test logs a warning or an error, and that is right."""
    return log_guard.expect
