"""What is shipped: the metadata, the wheel, the single file, and the scripts.

Nothing here needs a network.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipapp
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from rproxy import __version__

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.suffix != ".md")
SHIPPED = (".py", ".typed", ".md", ".html")
SOURCES = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "rproxy").rglob("*") if path.suffix in SHIPPED
)


def run(*argv: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """What a program said, whatever its status."""
    return subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: Any) -> Iterator[Path]:
    """The wheel, built from a copy of the tree by the setuptools that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "rproxy", tree / "rproxy", ignore=shutil.ignore_patterns("__pycache__"))
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    done = run(sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", folder, tree)
    assert done.returncode == 0, done.stderr
    yield next(folder.glob("*.whl"))


def setup_arguments() -> Dict[str, Any]:
    """The literal arguments of ``setup()``."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    call = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    found: Dict[str, Any] = {}
    for keyword in call.keywords:
        try:
            found[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            pass  # computed, such as the version
    return found


def test_the_wheel_is_pure_and_complete(wheel: Path) -> None:
    assert wheel.name == f"rproxy_responses-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
        entries = archive.read(next(n for n in names if n.endswith("/entry_points.txt"))).decode()
    assert sorted(n for n in names if ".dist-info/" not in n) == SOURCES
    assert any(n.endswith("LICENSE") for n in names)
    assert "rproxy = rproxy.cli.main:main" in entries
    for line in (
        "Name: rproxy-responses",
        "Version: " + __version__,
        "Requires-Python: >=3.9",
        "Requires-Dist: tornado>=6.5.10",
    ):
        assert line in metadata.splitlines()


COMPILE = "-m compileall -q -b --invalidation-mode unchecked-hash -s build/pyz -p rproxy.pyz build/pyz"


def pyz_tree(wheel: Path, tree: Path) -> None:
    """What scripts/build puts into the single file, but from the packages that are installed here."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tree)
    for package in ("tornado", "yaml"):
        installed = Path(str(import_module(package).__file__)).parent
        shutil.copytree(
            installed, tree / package, ignore=shutil.ignore_patterns("*.so", "__pycache__", "test")
        )
    shutil.copy(ROOT / "rproxy" / "__main__.py", tree / "__main__.py")
    assert COMPILE in (ROOT / "scripts" / "build").read_text(encoding="utf-8")
    done = run(sys.executable, *COMPILE.replace("build/pyz", str(tree)).split())
    assert done.returncode == 0, done.stderr


def test_the_single_file_runs(wheel: Path, tmp_path: Path) -> None:
    tree, single = tmp_path / "pyz", tmp_path / "rproxy.pyz"
    pyz_tree(wheel, tree)
    zipapp.create_archive(tree, single, compressed=True)
    python = (sys.executable, "-I", "-S")  # nothing but the file and the standard library
    alone: Dict[str, Any] = {"env": {"HOME": str(tmp_path)}, "cwd": tmp_path}
    said = run(*python, single, "--version", **alone).stdout.splitlines()
    assert said[0] == f"rproxy {__version__}" and said[-1] == f"installed as: pyz ({single})"
    done = run(*python, single, "check", **alone)
    assert done.returncode == 78 and "DEEPSEEK_API_KEY" in done.stderr
    read_data = f"sys.path.insert(0, {str(single)!r}); from rproxy.service.catalog import _instructions"
    code = f"import sys; {read_data}; print(_instructions(None))"
    assert "Codex" in run(*python, "-c", code, **alone).stdout
    code = f"import sys; sys.path.insert(0, {str(single)!r}); from rproxy.inspector.page import page"
    assert "<!doctype html>" in run(*python, "-c", code + "; print(page()[0].decode())", **alone).stdout
    assert {path.name for path in tmp_path.iterdir()} == {"pyz", "rproxy.pyz"}


def test_the_single_file_starts_from_bytecode(wheel: Path, tmp_path: Path) -> None:
    """The Python that built it needs no source; any other one needs nothing else."""
    tree, single = tmp_path / "pyz", tmp_path / "rproxy.pyz"
    pyz_tree(wheel, tree)
    sources = {path: path.read_bytes() for path in tree.rglob("*.py")}
    assert sources and all(path.with_suffix(".pyc").exists() for path in sources)
    for path in sources:
        path.write_text("this is no Python")
    zipapp.create_archive(tree, single, compressed=True)
    python = (sys.executable, "-I", "-S", single, "profiles")
    assert "deepseek" in run(*python).stdout
    for path, source in sources.items():
        path.write_bytes(source)
        bytecode = path.with_suffix(".pyc")
        bytecode.write_bytes(b"\0\0" + bytecode.read_bytes()[2:])  # as another Python sees it
    zipapp.create_archive(tree, single, compressed=True)
    assert "deepseek" in run(*python).stdout


def test_metadata() -> None:
    arguments = setup_arguments()
    assert arguments["install_requires"] == ["tornado>=6.5.10", "pyyaml>=5.4"]
    assert "pytest<10" in arguments["extras_require"]["test"]
    assert arguments["python_requires"] == ">=3.9"


def optional_packages() -> List[str]:
    """Extras that users install, by the packages they bring."""
    extras: Dict[str, List[str]] = setup_arguments()["extras_require"]
    return [
        package
        for extra, packages in extras.items()
        if extra not in ("test", "check")
        for package in packages
    ]


def test_every_optional_package_is_used() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "rproxy").rglob("*.py"))
    for package in optional_packages():
        name = re.split(r"[<>=\[]", package)[0]
        assert re.search(rf"import_module\(\"{name}\b|(?:import|from) {name}\b", source), package


def test_pyproject_holds_no_metadata() -> None:
    tables = re.findall(r"^\[([\w.-]+)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert [t for t in tables if t != "build-system" and not t.startswith("tool.")] == []


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (
        "Apache License" in text
        and "Version 2.0, January 2004" in text
        and "END OF TERMS AND CONDITIONS" in text
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.name))
def test_scripts_are_short_and_say_what_they_do(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/bin/sh -e" and lines[1].startswith("# ") and len(lines) <= 35
    assert os.access(path, os.X_OK)
    assert run("sh", "-n", path).returncode == 0


def test_scripts_need_a_python_and_say_so(tmp_path: Path) -> None:
    """With no Python at hand scripts/install names the remedy."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "install", tmp_path / "scripts")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname", "tr"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = run(tmp_path / "scripts" / "install", "test", env={"PATH": str(tools)})
    assert done.returncode == 1 and "Python 3.9 or newer is needed" in done.stderr


@pytest.mark.parametrize(
    "said, reason",
    [
        ("python: No module named pip", "has no pip"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: [Errno 13] Permission denied: 'x'", "may not write"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("connection broken by 'ProxyError('Cannot connect to proxy.', NewConn", "HTTPS_PROXY"),
        (
            "connection broken by 'NewConnectionError(': x\nERROR: No matching distribution",
            "cannot be reached",
        ),
        ("ERROR: No matching distribution found for setuptools>=61", "no version of a package"),
        ("ERROR: something else", "see above"),
    ],
)
def test_install_names_the_reason_when_pip_cannot(said: str, reason: str, tmp_path: Path) -> None:
    """With a venv whose pip fails in pip's own words (23.2 to 25)."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "install", tmp_path / "scripts")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n[ $1 = -c ] || {{ cat <<'EOF' >&2\n{said}\nEOF\nexit 1; }}\n")
    python.chmod(0o755)
    done = run(tmp_path / "scripts" / "install", "test", env={"PATH": os.environ["PATH"]})  # no $VENV
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and said.splitlines()[0] in done.stderr
    assert last.startswith("scripts/install: pip could not install rproxy: ") and reason in last


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 8)])
def test_a_python_that_is_too_old_is_told_so_in_one_line(version: Tuple[int, int]) -> None:
    """``__main__`` is the entry of the single file, too, and any Python can read it."""
    path = ROOT / "rproxy" / "__main__.py"
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 4))
    code = (
        f"import runpy, sys; sys.version_info = {(*version, 0, 'final', 0)}; "
        f"runpy.run_path({str(path)!r}, run_name='__main__')"
    )
    done = run(sys.executable, "-S", "-c", code)
    wanted = f"rproxy needs Python 3.9 or newer; this is Python {version[0]}.{version[1]}"
    assert (done.returncode, done.stderr.splitlines()) == (1, [wanted])


def test_the_version_tells_how_rproxy_is_installed(wheel: Path, tmp_path: Path) -> None:
    from rproxy.cli.version import EXTRAS

    extras = [package for packages in EXTRAS.values() for package in packages]
    assert set(extras) == {re.split("[<>=]", package)[0] for package in optional_packages()}
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    for way, folder in (("wheel", tmp_path / "site"), ("source tree", ROOT)):
        code = "import sys; from rproxy.cli.main import main; main(['--version'])"
        said = run(sys.executable, "-c", code, env={**os.environ, "PYTHONPATH": str(folder)}, cwd=tmp_path)
        lines = said.stdout.splitlines()
        assert lines[0] == f"rproxy {__version__}", said.stderr
        assert lines[1].startswith("Python 3.") and ", Tornado 6." in lines[1]
        # The tree of the tests may itself be installed that way.
        ways = (way,) if way == "wheel" else (way, "editable")
        assert lines[-1] in [f"installed as: {one} ({folder})" for one in ways]
