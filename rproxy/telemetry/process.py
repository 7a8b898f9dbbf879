"""The ``process_*`` metrics that Prometheus' client libraries have in common, read from ``/proc``.

Systems without ``/proc`` have only the CPU time, and Windows has none.
"""

from __future__ import annotations

import os
from typing import Iterator

from .exposition import Metric, gauge


def process_metrics() -> Iterator[Metric]:
    """The metrics of this process, as they are now."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = Metric("process_cpu_seconds_total", "counter", "User and system CPU time in seconds.")
    cpu.set(used.ru_utime + used.ru_stime)
    yield cpu
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield gauge("process_max_fds", "Limit of open file descriptors.", soft_limit)
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            stat = file.read().rpartition(")")[2].split()
        with open("/proc/stat", encoding="ascii") as file:
            boot = next(float(line.split()[1]) for line in file if line.startswith("btime"))
        open_fds = len(os.listdir("/proc/self/fd"))
    except (OSError, StopIteration):
        return
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    yield gauge("process_open_fds", "Open file descriptors.", open_fds)
    yield gauge("process_virtual_memory_bytes", "Virtual memory in bytes.", int(stat[20]))
    yield gauge("process_resident_memory_bytes", "Resident memory in bytes.", int(stat[21]) * page)
    yield gauge(
        "process_start_time_seconds",
        "Start of the process in seconds since the epoch.",
        boot + int(stat[19]) / ticks,
    )
