"""Checks the locked dependencies against the database of known vulnerabilities (OSV): ``make audit``.

Exit code 1 when one is known. Where the database cannot be reached nothing is known: that is said loudly, and is a failure only
with ``--required``, so that a machine without the internet can still run everything else.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATABASE = "https://api.osv.dev/v1/query"
PROBE = {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "2.4.1"}
"""A package that is known to be vulnerable: an answer without it comes from no such database."""
_SECONDS = 15


def why_unreachable(url: str = DATABASE) -> str | None:
    """None: the database answers."""
    request = urllib.request.Request(url, json.dumps(PROBE).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            return None if json.load(answer).get("vulns") else "it does not know what it should"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def main(arguments: list[str], url: str = DATABASE) -> int:
    """Exit code: 0 nothing known or nobody to ask, 1 a vulnerability or (``--required``) no database, 2 uv failed."""
    if (why := why_unreachable(url)) is not None:
        rule = "!" * 100
        print(f"{rule}\nNOT AUDITED: {url} cannot be reached ({why}).", file=sys.stderr)  # noqa: T201
        print(f"Whether a dependency has a known vulnerability was not checked.\n{rule}", file=sys.stderr)  # noqa: T201
        return 1 if "--required" in arguments else 0
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "audit", "--frozen", "--preview-features", "audit-command"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
