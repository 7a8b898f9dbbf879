"""The option ``-n`` of these tests: what forked processes report is what one process reports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path
from typing import Dict

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="tests run in one process here")

TESTS = """
import os, time, warnings
import pytest

@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory):
    yield tmp_path_factory.mktemp("module")
    print("end of the module")

@pytest.mark.parametrize("number", range(20))
def test_passes(number, tmp_path):
    (tmp_path / "file").write_text("text")

def test_fails():
    print("captured, \\ud800")
    assert "\\ud800" == ""

def test_ends():
    os._exit(3)

def test_is_killed():
    os.kill(os.getpid(), 9)

@pytest.mark.skip(reason="the reason")
def test_is_skipped():
    raise AssertionError

def test_warns():
    warnings.warn("a warning", UserWarning)

@pytest.mark.xfail
def test_is_expected_to_fail():
    assert False

@pytest.fixture
def broken():
    yield
    raise ValueError("in the fixture")

def test_cannot_clean_up(broken):
    pass
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Pytest with :mod:`parallel` in a project of its own."""
    (folder / "test_it.py").write_text(TESTS, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV"))}
    environ.update(
        PYTHONPATH=str(Path(__file__).parent), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", TMPDIR=str(folder)
    )
    command = [sys.executable, "-m", "pytest", "-p", "parallel", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)


def outcomes(file: Path) -> Dict[str, str]:
    return {
        case.attrib["name"]: " ".join(f"{part.tag}: {part.attrib.get('message', '')}" for part in case)
        for case in xml.etree.ElementTree.parse(file).iter("testcase")
    }


def test_each_test_is_reported_as_in_one_process(tmp_path: Path) -> None:
    died = {"test_ends": "status 3", "test_is_killed": "signal 9"}
    alone = run(tmp_path, "--junitxml=alone.xml", "-k", " and ".join(f"not {name}" for name in died))
    done = run(tmp_path, "-n", "3", "--junitxml=report.xml", "--durations=30", "-v")
    assert (alone.returncode, done.returncode) == (1, 1), done.stdout + done.stderr
    found = outcomes(tmp_path / "report.xml")
    for name, how in died.items():
        assert found.pop(name) == f"failure: the process that ran this test ended with {how}"
    assert found == outcomes(tmp_path / "alone.xml")
    last = done.stdout.splitlines()[-1]
    assert "3 failed, 22 passed, 1 skipped, 1 xfailed, 1 warning, 1 error" in last
    assert "a warning" in done.stdout and "captured" in done.stdout and "slowest" in done.stdout
    words = re.findall(r"^test_it\.py::\S+ ([A-Z]+)", done.stdout, re.M)
    assert Counter(words) == {"PASSED": 22, "FAILED": 3, "SKIPPED": 1, "XFAIL": 1, "ERROR": 1}
    assert not done.stderr


def test_the_first_failure_is_the_end_with_x(tmp_path: Path) -> None:
    done = run(tmp_path, "-n", "2", "-x", "-k", "ends or passes or killed")
    assert done.returncode == 1
    assert "stopping after 1 failures" in done.stdout and "1 failed" in done.stdout


def test_coverage_is_that_of_all_processes(tmp_path: Path) -> None:
    pytest.importorskip("pytest_cov")
    options = ["-p", "pytest_cov", "--cov=test_it", "--cov-report=term-missing"]
    done = run(tmp_path, "-n", "3", *options, "-k", "passes or fails or expected or warns or clean")
    missing = [line.split(None, 4)[4] for line in done.stdout.splitlines() if line.startswith("test_it.py ")]
    not_run = ("os._exit(3)", "os.kill(os.getpid(), 9)", "raise AssertionError")
    numbers = [n for n, line in enumerate(TESTS.splitlines(), 1) if line.strip() in not_run]
    assert missing == [", ".join(map(str, numbers))]
