"""``rproxy --version``: the versions of everything that runs here, for bug reports."""

from __future__ import annotations

import json
import platform
import zipimport
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Optional

from .. import PURE, __version__

FAST = ("orjson", "uvloop")
DISTRIBUTION = "rproxy-responses"
PACKAGE = Path(__file__).resolve().parent.parent
# extra of setup.py -> its distributions, which are also the names of their packages
EXTRAS = {
    "redis": ("redis",),
    "seal": ("cryptography",),
    "zstd": ("zstandard",),
    "pdf": ("pypdf",),
    "fast": FAST,
}


def version_text() -> str:
    """The versions of rproxy, Python and the packages, and how rproxy is installed."""
    extras = ", ".join(f"{extra} ({_extra(*names)})" for extra, names in EXTRAS.items())
    return "\n".join(
        (
            f"rproxy {__version__}",
            f"Python {platform.python_version()}, Tornado {_version('tornado', 'tornado')}, "
            f"PyYAML {_version('PyYAML', 'yaml')}",
            f"extras: {extras}",
            f"installed as: {_how_installed()}",
        )
    )


def _extra(*packages: str) -> str:
    found = [f"{package} {_version(package, package)}" for package in packages if find_spec(package)]
    unused = "; not used: RPROXY_PURE" if found and PURE and packages == FAST else ""
    return (", ".join(found) or "not installed") + unused


def _version(distribution: str, package: str) -> str:
    """The version of an installed distribution, or of a loaded package that was only copied here."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        try:
            module = import_module(package)
        except ImportError:
            return "that cannot be loaded"
        return str(getattr(module, "__version__", None) or getattr(module, "version", "of unknown version"))


def _how_installed() -> str:
    if isinstance(globals().get("__loader__"), zipimport.zipimporter):
        return f"pyz ({PACKAGE.parent})"
    mine = _distribution()
    if mine is None:
        return f"source tree ({PACKAGE.parent})"
    origin = json.loads(mine.read_text("direct_url.json") or "{}")
    if (origin.get("dir_info") or {}).get("editable"):
        return f"editable ({PACKAGE.parent})"
    return f"wheel ({PACKAGE.parent})"


def _distribution() -> Optional[metadata.Distribution]:
    """The installed distribution, if it is the running code; a source tree has none, even beside its
    egg-info.
    """
    for found in metadata.distributions(name=DISTRIBUTION):
        if found.read_text("WHEEL") is None:
            continue
        editable = '"editable": true' in (found.read_text("direct_url.json") or "")
        if editable or Path(str(found.locate_file("rproxy"))).resolve() == PACKAGE:
            return found
    return None
