"""The distribution ``rproxy-responses``: package and command ``rproxy``.

No logic here; the version stands in rproxy/__init__.py.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (HERE / "rproxy" / "__init__.py").read_text(encoding="utf-8"), re.M
).group(1)

setup(
    name="rproxy-responses",
    version=VERSION,
    description="The OpenAI Responses API in front of any Chat Completions provider, for Codex CLI, the "
    "OpenAI SDKs and curl",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["rproxy", "rproxy.*"]),
    package_dir={"": "."},  # so that an editable installation is a path, and not a program run at each start
    package_data={"rproxy": ["py.typed"], "rproxy.service": ["*.md"], "rproxy.inspector": ["*.html"]},
    include_package_data=False,
    zip_safe=True,
    python_requires=">=3.9",
    install_requires=["tornado>=6.5.10", "pyyaml>=5.4"],
    extras_require={
        "redis": ["redis>=5"],
        "seal": ["cryptography"],
        "zstd": ["zstandard"],
        "pdf": ["pypdf"],
        "fast": ["orjson>=3.9", "uvloop>=0.18; sys_platform != 'win32' and implementation_name == 'cpython'"],
        "test": [
            "pytest<10",
            "pytest-tornasync",
            "pytest-cov",
            "hypothesis",
            "openai",
            "mcp; python_version >= '3.10'",
            "prometheus_client",
            "pypdf",
            "redis>=5",
            "cryptography",
            "zstandard",
            "orjson>=3.9",
            "uvloop>=0.18; sys_platform != 'win32' and implementation_name == 'cpython'",
            "setuptools>=70.1",
        ],
        "check": ["ruff", "mypy", "types-PyYAML"],
    },
    entry_points={"console_scripts": ["rproxy = rproxy.cli.main:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Framework :: AsyncIO",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        *("Programming Language :: Python :: 3.%d" % minor for minor in range(9, 15)),
        "Topic :: Internet :: WWW/HTTP",
        "Typing :: Typed",
    ],
)
