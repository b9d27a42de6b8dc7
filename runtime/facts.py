"""What the kernel says about the container, read from the inside: its isolation, its limits, what it used.

Both cgroup versions. What cannot be read (gVisor hides most of it) is None, never a guess.
"""

import os

_ROOT = "/sys/fs/cgroup"
_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number near 2**63


def isolation() -> dict[str, object]:
    """How the supervisor itself is confined, which the crew's process inherits."""
    status = _pairs("/proc/self/status", ":")
    uids, gids = status.get("Uid", "").split(), status.get("Gid", "").split()
    no_new_privs, seccomp = _number(status.get("NoNewPrivs", "")), _number(status.get("Seccomp", ""))
    try:
        root_read_only: bool | None = bool(os.statvfs("/").f_flag & os.ST_RDONLY)
    except OSError:
        root_read_only = None
    return {
        "kernel": os.uname().release,
        "uid": _number(uids[1]) if len(uids) > 1 else None,
        "gid": _number(gids[1]) if len(gids) > 1 else None,
        "cap_eff": status.get("CapEff"),
        "cap_bnd": status.get("CapBnd"),
        "no_new_privs": None if no_new_privs is None else bool(no_new_privs),
        "seccomp": seccomp,
        "root_read_only": root_read_only,
        "pids_max": _limit("pids/pids.max", "pids.max"),
        "memory_max_bytes": _limit("memory/memory.limit_in_bytes", "memory.max"),
    }


def cgroup() -> dict[str, int | None]:
    """What the container used until now, and which of its limits it met."""
    oom = _pairs(f"{_ROOT}/memory.events") or _pairs(f"{_ROOT}/memory/memory.oom_control")
    pids = _pairs(f"{_ROOT}/pids.events") or _pairs(f"{_ROOT}/pids/pids.events")
    cpu_us = _number(_pairs(f"{_ROOT}/cpu.stat").get("usage_usec", ""))
    cpu_ns = _number(_text(f"{_ROOT}/cpuacct/cpuacct.usage"))
    cpu_ms = cpu_us // 1000 if cpu_us is not None else cpu_ns // 1_000_000 if cpu_ns is not None else None
    peak = _number(_text(f"{_ROOT}/memory.peak"))
    return {
        "oom_kills": _number(oom.get("oom_kill", "")),
        "pids_max_events": _number(pids.get("max", "")),
        "memory_peak_bytes": _number(_text(f"{_ROOT}/memory/memory.max_usage_in_bytes")) if peak is None else peak,
        "cpu_ms": cpu_ms,
    }


def _limit(v1: str, v2: str) -> int | None:
    number = _number(_text(f"{_ROOT}/{v2}") or _text(f"{_ROOT}/{v1}"))
    return None if number is None or number >= _UNLIMITED else number


def _pairs(path: str, separator: str | None = None) -> dict[str, str]:
    """A file of ``key value`` lines."""
    split = (line.split(separator, 1) for line in _text(path).splitlines())
    return {pair[0]: pair[1].strip() for pair in split if len(pair) == 2}


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _text(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 65536).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
