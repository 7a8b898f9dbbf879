"""``scripts/mutants``: does a test notice when ``rproxy/convert`` is wrong?

Of all small errors that :mod:`changes` can make, some are drawn at random: the seed is printed, and
``--seed`` draws the same ones again as long as the code is the same.  Each is tried with the tests that reach
its function, and only with tests of values (see ``conftest.py``), wherever they are; the quickest first.

Prints the errors that no test has noticed.  Some change nothing that matters, such as the size of a cache;
the others ask for a test.  Not a part of ``.ci/run``: a mutant that survives is a question, not a failure.

It is small because it needs little: pytest collects the tests once, and each mutant is a fork in which one
function gets other code.  Two packages do more: mutmut sends every call through a wrapper, which made these
tests several times slower and some fail (recursion, public names); cosmic-ray starts pytest anew for each
mutant, which would take longer than most tests here.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import random
import re
import resource
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Dict, List, Optional, Set, Tuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pytest  # noqa: E402
from _pytest.runner import runtestprotocol  # noqa: E402
from changes import Mutant, mutants  # noqa: E402

CONVERT = ROOT / "rproxy" / "convert"
SERVERS = re.compile(r"^\s*(?:from|import) (?:rawserver|scripted|running_server|api|wsclient)\b", re.M)
SUBJECT = re.compile(r"^\s*(?:from|import) (?:rproxy\.convert|stream_tools|histories|provider_cases)\b", re.M)
BUDGET = 10.0  # seconds of tests for one mutant; the slowest ones are left out
HARMLESS = {"request", "monkeypatch", "log_guard", "expect_log", "io_loop"}  # fixtures without a server
KILLED, SURVIVED, ENDLESS, UNREACHED = "killed", "survived", "endless", "no test reaches it"


def say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


def modules_about_convert() -> List[str]:
    paths = sorted((ROOT / "tests").glob("test_*.py"))
    return [str(path) for path in paths if SUBJECT.search(path.read_text(encoding="utf-8"))]


def is_of_values(item: Any) -> bool:
    """Does a test need no server?"""
    if not SERVERS.search(Path(item.path).read_text(encoding="utf-8")):
        return True
    parameters = set(item.callspec.params) if hasattr(item, "callspec") else set()
    needs = set(item.fixturenames) - parameters - HARMLESS
    return not needs and not inspect.iscoroutinefunction(item.function)


def all_mutants(only: str) -> List[Mutant]:
    found: List[Mutant] = []
    for path in sorted(CONVERT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).replace(".__init__", "")
        if re.search(only, module):
            found += mutants(module, path.read_text(encoding="utf-8"), str(path))
    return found


def live(module: ModuleType, path: Tuple[str, ...]) -> Any:
    """The function in this process, without what decorators have put around it; None if that is not known."""
    found: Any = module
    for name in path:
        found = vars(found).get(name)
    while not hasattr(found, "__code__"):
        inner = (
            getattr(found, "__func__", None)
            or getattr(found, "fget", None)
            or getattr(found, "__wrapped__", None)
        )
        if inner is None:
            return None
        found = inner
    return found


class Trial:
    """A plugin for pytest that tries the mutants instead of running the tests once."""

    def __init__(self, drawn: List[Mutant]) -> None:
        self.drawn = drawn
        self.outcomes: Dict[int, str] = {}
        self.reached: Dict[CodeType, Set[int]] = defaultdict(set)  # function -> the numbers of tests
        self.seconds: List[float] = []  # of each test

    def pytest_configure(self) -> None:
        import hypothesis  # not before pytest, which wants to see it first

        hypothesis.settings.register_profile(
            "mutants",
            deadline=None,
            database=None,
            derandomize=True,
            max_examples=30,
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),  # a smaller example is not wanted
            suppress_health_check=list(hypothesis.HealthCheck),  # the trace takes several times as long
        )
        hypothesis.settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: List[Any]) -> None:
        items[:] = filter(is_of_values, items)

    def pytest_runtestloop(self, session: Any) -> bool:
        say("finding out which test reaches which function ...")
        failed = self.first_run(session.items)
        for number in failed:
            say(f"fails while it is traced: {session.items[number].nodeid}")
        broken = [number for number in failed if not run(session.items, [number])]
        if broken:
            say("fail without any mutant: " + ", ".join(session.items[number].nodeid for number in broken))
            raise session.Failed
        for numbers in self.reached.values():
            numbers.difference_update(failed)  # they would not tell a mutant from a busy machine
        say(f"{len(session.items)} tests take {sum(self.seconds):.0f} s")
        for number, mutant in enumerate(self.drawn):
            self.outcomes[number] = self.try_out(mutant, session.items)
            if number % 20 == 19:
                say(f"{number + 1}: {dict(Counter(self.outcomes.values()))}")
        return True

    def first_run(self, items: List[Any]) -> List[int]:
        """Run all tests and see what they reach. :returns: those that fail"""
        failed, prefix = [], str(CONVERT)
        for number in range(len(items)):
            codes: Set[CodeType] = set()

            def called(frame: FrameType, event: str, argument: Any, codes: Set[CodeType] = codes) -> None:
                codes.add(frame.f_code)  # and no trace of its lines

            began = time.process_time()
            sys.settrace(called)
            try:
                passed = run(items, [number])
            finally:
                sys.settrace(None)
            self.seconds.append(time.process_time() - began)
            failed += [] if passed else [number]
            for code in codes:
                if code.co_filename.startswith(prefix):
                    self.reached[code].add(number)
        return failed

    def try_out(self, mutant: Mutant, items: List[Any]) -> str:
        function = live(importlib.import_module(mutant.module), mutant.path)
        numbers = sorted(self.reached[function.__code__], key=self.seconds.__getitem__) if function else []
        total, chosen = 0.0, []
        for number in numbers:
            total += self.seconds[number]
            if total < BUDGET or not chosen:
                chosen.append(number)
        if not chosen:
            return UNREACHED
        child = os.fork()
        if child == 0:
            limit = 10 + int(total)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            function.__code__ = mutant.code()
            status = 1
            try:
                status = 0 if run(items, chosen) else 1
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        return ENDLESS if os.WIFSIGNALED(status) else KILLED if os.WEXITSTATUS(status) else SURVIVED


def run(items: List[Any], numbers: List[int]) -> bool:
    """Run these tests up to the first failure. :returns: do all pass?"""
    for at, number in enumerate(numbers):
        following = items[numbers[at + 1]] if at + 1 < len(numbers) else None
        if any(report.failed for report in runtestprotocol(items[number], log=False, nextitem=following)):
            return False
    return True


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description="Which errors do the tests miss?")
    parser.add_argument("--count", type=int, default=400, help="how many to try (default: 400)")
    parser.add_argument("--seed", type=int, help="draw the same ones again")
    parser.add_argument("--only", default="", help="a regular expression for the modules")
    args = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    found, began = all_mutants(args.only), time.monotonic()
    drawn = random.Random(seed).sample(found, min(args.count, len(found)))
    say(f"{len(drawn)} of {len(found)} mutants, --seed {seed}")
    trial = Trial(drawn)
    options = ["-qq", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    status = pytest.main([*options, *modules_about_convert()], plugins=[trial])
    if len(trial.outcomes) < len(drawn):
        say(f"pytest ended with status {status}")
        return 2
    left: List[Tuple[Mutant, str]] = [
        (mutant, trial.outcomes[number])
        for number, mutant in enumerate(drawn)
        if trial.outcomes[number] in (SURVIVED, UNREACHED)
    ]
    for mutant, outcome in sorted(left, key=lambda one: (one[0].module, one[0].line)):
        place = mutant.module.replace(".", "/")
        print(f"\n{place}.py:{mutant.line} {'.'.join(mutant.path)}: {outcome}")
        print("  - {}\n  + {}".format(*mutant.change()))
    told = ", ".join(f"{number} {word}" for word, number in Counter(trial.outcomes.values()).most_common())
    print(f"\n{len(drawn)} mutants, --seed {seed}, {time.monotonic() - began:.0f} s: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
