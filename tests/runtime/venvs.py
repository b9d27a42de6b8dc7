"""Virtual environments with real frameworks, made once and kept in the user's cache.

A venv's name is a hash of what is in it, so changing a requirement makes a new one and never breaks an old one. It is
built beside its final place and renamed, so that a suite that was interrupted leaves no half of a venv behind.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

RELEASES = {
    "crewai": {
        "1.15.30": ("crewai==1.15.30", "langgraph==1.2.22", "langchain-core==1.7.2"),
        "1.0.0": ("crewai==1.0.0", "--exclude-newer=2025-10-25"),
        "0.114.0": ("crewai==0.114.0", "--exclude-newer=2025-04-20"),
    },
    "langgraph": {
        "1.2.22": ("crewai==1.15.30", "langgraph==1.2.22", "langchain-core==1.7.2"),
        "0.2.76": ("langgraph==0.2.76", "--exclude-newer=2025-03-10"),
    },
    "openai-agents": {
        "0.24.0": ("openai-agents==0.24.0", "pydantic-ai-slim==2.68.0"),
        "0.1.0": ("openai-agents==0.1.0", "--exclude-newer=2025-07-01"),
    },
    "pydantic-ai": {
        "2.68.0": ("openai-agents==0.24.0", "pydantic-ai-slim==2.68.0"),
        "1.0.0": ("pydantic-ai-slim==1.0.0", "--exclude-newer=2025-09-15"),
    },
}
"""Framework → release → what its venv holds: the current release first, then the oldest of each support tier.

An old release gets what was there in its days, as a project's lock would have it: newer releases of what it needs break some.
"""

FRAMEWORKS = RELEASES["crewai"]["1.15.30"]


def python_of(requirements: tuple[str, ...]) -> Path:
    """The interpreter of a venv that holds ``requirements``; makes the venv when it is missing (minutes)."""
    key = "\n".join((sys.version, sys.prefix if sys.prefix == sys.base_prefix else sys.base_prefix, *requirements))
    folder = (
        Path(platformdirs.user_cache_dir("crewship")) / "test-venvs" / hashlib.sha256(key.encode()).hexdigest()[:16]
    )
    python = folder / "bin" / "python"
    if python.exists():
        return python
    # A venv's scripts hold its path, its interpreter does not: renaming keeps what is used here.
    building = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.parent.mkdir(parents=True, exist_ok=True)
    uv = _uv()
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(building)], check=True)
    target = ["--python", str(building / "bin" / "python")]
    subprocess.run([uv, "pip", "install", "--quiet", "--compile-bytecode", *target, *requirements], check=True)
    try:
        building.rename(folder)
    except OSError:  # another suite was faster
        shutil.rmtree(building)
    return python


def _uv() -> str:
    from uv import find_uv_bin

    return str(find_uv_bin())
