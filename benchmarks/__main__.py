"""``make bench``: measure against baselines in the same run; ``--write`` generates docs/benchmarks.md.

    python -m benchmarks [starts] [deploys] [events] [runs] [redaction] [egress] [--write]

The page keeps what it has of suites that were not measured. Exit code 1 when a target is missed.
"""

import gc
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import deploys, egress, events, redaction, runs, starts
from benchmarks.report import Row, show, write

SUITES = {
    "starts": starts.measure,
    "deploys": deploys.measure,
    "events": events.measure,
    "runs": runs.measure,
    "redaction": redaction.measure,
    "egress": egress.measure,
}


def main(arguments: list[str]) -> int:
    names = [name for name in arguments if not name.startswith("-")] or list(SUITES)
    suites: dict[str, list[Row]] = {}
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="crewship-bench-") as folder:
            suites[name] = SUITES[name](Path(folder))
        if "--write" in arguments:
            write({name: suites[name]}, order=list(SUITES))  # now: another suite may fail
    rows = [row for each in suites.values() for row in each]
    show(rows)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    gc.collect()
    sys.stdout.flush()
    os._exit(code)  # a process that held a Temporal client may crash while Python finalizes
