"""Which model servers run on this machine; see :mod:`rproxy.providers.local_servers`.

All ports are queried at the same time; a server that has not answered within ``TIMEOUT`` does not count.
Only loopback addresses are asked, and those never through a proxy.
"""

from __future__ import annotations

import asyncio
from typing import List, Mapping, Optional, Sequence

from ..providers.local_servers import LOCAL_KINDS, LocalKind, LocalServer, local_server
from .client import Upstream
from .web import WebError, WebRequest

TIMEOUT = 1.0  # seconds for all of them
MAX_LIST = 1 << 20  # bytes


async def find_local_servers(
    environ: Mapping[str, str], kinds: Sequence[LocalKind] = LOCAL_KINDS
) -> List[LocalServer]:
    """Those that answer, in the order of ``kinds``."""
    upstream = Upstream(environ=environ)
    try:
        found = await asyncio.gather(*(_ask(upstream, kind) for kind in kinds))
    finally:
        upstream.close()
    return [server for server in found if server is not None]


async def _ask(upstream: Upstream, kind: LocalKind) -> Optional[LocalServer]:
    request = WebRequest(kind.base_url + "/models", TIMEOUT, MAX_LIST, headers={"Accept": "application/json"})
    try:
        answer = await upstream.fetch(request)
    except WebError:
        return None
    return local_server(kind, answer.body) if answer.status == 200 else None
