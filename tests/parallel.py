"""``-n 4``: four processes share the tests.

They are forked when the tests have been collected: that takes eight seconds, twice that in a fresh clone, and
each process of pytest-xdist would do it anew.  Each asks for tests when it is about to begin its last, and
sends their reports; here they are given to pytest's hooks as if the tests had run in this process, so that
``-x``, ``--lf``, ``--durations``, ``--junitxml`` and ``--cov`` do what they always do.  When a process dies,
the test that killed it has failed, and another process goes on.

With ``-n 0``, ``--pdb`` or without ``os.fork`` pytest runs the tests itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import traceback
import warnings
from collections import deque
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Deque, Dict, Generator, Iterator, List, Literal, NoReturn, Optional

import pytest
from _pytest.runner import runtestprotocol

PIECES = 4  # a process gets at most this part of what is left for each of them
SERIAL = (
    "collectonly",
    "usepdb",
    "trace",
    "setupshow",
    "setuponly",
    "setupplan",
)  # options that need one process


def pytest_addoption(parser: pytest.Parser) -> None:
    group: Any = parser.getgroup("parallel")
    about = "run the tests in so many processes (default: in this one)"
    group._addoption("-n", "--numprocesses", type=int, default=0, metavar="NUMBER", help=about)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is made while tests are collected stays: the garbage collector never needs to look at it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Optional[Literal[True]]:
    option = session.config.option
    count = min(option.numprocesses, len(session.items))
    serial = not hasattr(os, "fork") or any(getattr(option, name, False) for name in SERIAL)
    if count < 2 or serial or (session.testsfailed and not option.continue_on_collection_errors):
        return None
    Pool(session, count).run()
    return True


# ---- The process that reports
class Worker:
    """A process that runs tests; ``assigned`` are the numbers of those that it has not reported yet."""

    def __init__(self, process: int, connection: Connection) -> None:
        self.process, self.connection = process, connection
        self.assigned: Deque[int] = deque()


class Pool:
    def __init__(self, session: pytest.Session, count: int) -> None:
        self.session, self.count = session, count
        self.config: Any = session.config
        self.todo = deque(range(len(session.items)))
        self.workers: Dict[Connection, Worker] = {}
        self.started = 0

    def run(self) -> None:
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.showfspath = False  # the results of several files come by turns
        try:
            for _ in range(self.count):
                self.start()
            while self.workers:
                for connection in wait(list(self.workers)):
                    self.receive(self.workers[connection])
                    if self.session.shouldfail:
                        raise self.session.Failed(self.session.shouldfail)
                    if self.session.shouldstop:
                        raise self.session.Interrupted(self.session.shouldstop)
        finally:
            for worker in self.workers.values():
                with contextlib.suppress(OSError):
                    worker.connection.send(None)
            for worker in self.workers.values():
                os.waitpid(worker.process, 0)

    def start(self) -> None:
        folders = self.config._tmp_path_factory
        base = folders.mktemp(f"process{self.started}", numbered=False)
        self.started += 1
        ours, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            for connection in (ours, *self.workers):  # no other process keeps the one of a dead process open
                connection.close()
            folders._basetemp = base
            Child(self.session, theirs).live()
        theirs.close()
        self.workers[ours] = Worker(process, ours)

    def receive(self, worker: Worker) -> None:
        kind, value = "end", None
        with contextlib.suppress(EOFError, ConnectionError):
            kind, value = worker.connection.recv()
        if kind == "end":
            self.ended(worker)
        elif kind == "more":
            piece = self.take()
            worker.assigned.extend(piece)
            with contextlib.suppress(ConnectionError):
                worker.connection.send(piece)
        elif kind == "warning":
            self.config.hook.pytest_warning_recorded.call_historic(kwargs=value)
        else:
            self.report(worker.assigned.popleft(), value)

    def take(self) -> List[int]:
        """The next tests: some of one file, which share its fixtures; fewer towards the end."""
        most = max(1, len(self.todo) // self.count // PIECES)
        piece: List[int] = []
        items = self.session.items
        while self.todo and len(piece) < most:
            if piece and items[self.todo[0]].path != items[piece[0]].path:
                break
            piece.append(self.todo.popleft())
        return piece

    def report(self, number: int, reports: List[Any]) -> None:
        item = self.session.items[number]
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for data in reports:
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def ended(self, worker: Worker) -> None:
        """A process is at its end: if a test ended it, that has failed, and another process does the rest."""
        del self.workers[worker.connection]
        worker.connection.close()
        status = os.waitstatus_to_exitcode(os.waitpid(worker.process, 0)[1])
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if not worker.assigned:
            if status:
                raise self.session.Interrupted(f"a process that runs tests ended with {how}")
            return
        number = worker.assigned.popleft()
        item = self.session.items[number]
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=f"the process that ran this test ended with {how}",
            when="call",
        )
        serial = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.report(number, [serial])
        self.todo.extendleft(reversed(worker.assigned))
        if self.todo:
            self.start()


# ---- The processes that run tests
class Child:
    """Runs what it is given, and sends the reports."""

    def __init__(self, session: pytest.Session, connection: Connection) -> None:
        self.session, self.connection = session, connection
        self.config: Any = session.config

    def live(self) -> NoReturn:
        status = 1
        atexit._clear()  # they belong to the process that registered them
        try:
            self.take_over()
            with contextlib.suppress(KeyboardInterrupt):
                self.run()
            self.session._setupstate.teardown_exact(None)
            self.save_coverage()
            atexit._run_exitfuncs()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def take_over(self) -> None:
        capture = self.config.pluginmanager.getplugin("capturemanager")
        capture.stop_global_capturing()  # into files that all processes would share
        capture.start_global_capturing()
        capture.suspend_global_capture()
        self.config.pluginmanager.register(self)

    def run(self) -> None:
        coming = self.items()
        item = next(coming, None)
        while item is not None and not self.connection.poll():  # it is told to stop
            following = next(coming, None)
            self.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            item = following

    def items(self) -> Iterator[pytest.Item]:
        while True:
            self.connection.send(("more", None))
            piece = self.connection.recv()
            if not piece:
                return
            yield from (self.session.items[number] for number in piece)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: Optional[pytest.Item]) -> bool:
        hook = self.config.hook
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        serial = [hook.pytest_report_to_serializable(config=self.config, report=report) for report in reports]
        self.connection.send(("reports", serial))
        return True

    @pytest.hookimpl
    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: object
    ) -> None:
        that = warning_message
        plain = warnings.WarningMessage(that.message, that.category, that.filename, that.lineno)  # no source
        told = {"warning_message": plain, "when": when, "nodeid": nodeid, "location": location}
        self.connection.send(("warning", told))

    def save_coverage(self) -> None:
        """Into a file of its own; pytest-cov combines them."""
        if "coverage" in sys.modules:
            measured = sys.modules["coverage"].Coverage.current()
            if measured is not None:
                measured.stop()
                measured.save()
