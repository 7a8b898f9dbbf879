"""``rproxy completion``: bash really completes; zsh and fish do where they are installed."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from typing import List

import pytest
from forkserver import rproxy_command
from scripted import ROOT

from rproxy.cli.completion import SHELLS, commands_of
from rproxy.cli.main import COMMANDS, make_parser


def script(shell: str) -> str:
    command = rproxy_command("completion", shell)
    done = subprocess.run(command, cwd=str(ROOT), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout


def completed(*words: str) -> List[str]:
    """What bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"{script('bash')}\nset -euo pipefail\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n_rproxy\n"
    code += 'printf "%s\\n" "${COMPREPLY[@]:-}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash() -> None:
    assert set(COMMANDS) <= set(completed("rproxy", ""))
    assert completed("rproxy", "se") == ["serve"]
    assert completed("rproxy", "serve", "--re") == ["--reuse-port", "--record", "--record-errors-only"]
    assert completed("rproxy", "serve", "--log-level", "de") == ["debug"]
    assert completed("rproxy", "serve", "--record", "") == []  # bash itself offers files
    assert {"request", "response", "stream"} <= set(completed("rproxy", "convert", ""))
    assert completed("rproxy", "completion", "z") == ["zsh"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_there(shell: str) -> None:
    text = script(shell)
    for name, command in commands_of(make_parser()).items():
        assert name in text
        for option in command.options:
            for word in (*option.names, *option.choices):
                assert (
                    f"-l {word[2:]}" if shell == "fish" and word[:2] == "--" else word.lstrip("-")
                ) in text
    shell_path = shutil.which(shell)
    if shell_path is not None:
        done = subprocess.run([shell_path, "-n"], input=text, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_zsh_takes_every_argument_as_it_is_meant() -> None:
    """Of two rest arguments, and of an action behind a colon in a metavar, zsh complains while one types."""
    for line in re.findall(r"_arguments (.*?)(?: ;;)?$", script("zsh"), re.M):
        specs = [re.sub(r"\\.|\[.*\]", "", spec) for spec in shlex.split(line)]
        assert sum(spec.startswith("*:") for spec in specs) <= 1, line
        for spec in specs:
            message = re.fullmatch(r"\*?(-[\w-]+)?(::?[^:]*:(_files|\([^)]*\)| ))?", spec)
            assert message, spec
    text = script("zsh")
    assert "]::host\\:port: '" in text and "'*--image[" in text and "'::name: '" in text


def test_help_texts_cannot_break_the_scripts() -> None:
    parser = argparse.ArgumentParser()
    sub = parser.add_subparsers().add_parser("do", help="it's [a] $(touch x): `y`")
    sub.add_argument("--it", choices=("a", "b"), help="it's [a] \\ $(touch x): `y`")
    for shell, make in SHELLS.items():
        path = shutil.which(shell)
        if path is not None:
            text = make(commands_of(parser))
            done = subprocess.run([path, "-n"], input=text, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr


def test_no_other_shell() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rproxy", "completion", "csh"], cwd=str(ROOT), capture_output=True
    )
    assert done.returncode == 2
