"""PID 1 of a run's container: ``python -I -S /opt/crewship/runtime/supervisor.py``.

Owns the container's real stdin and stdout, starts the crew's process, and is the only one that writes frames
(``docs/reference/frames.md``). This file is what every cold start waits for, so it does three things in order and
imports nothing else before the third:

1. makes itself undumpable, so that the crew, under the same uid, can never open its memory, environment or fds; before
   the crew's interpreter exists, since code in the user's venv runs as soon as that one starts;
2. starts the crew's process, so that both interpreters come up side by side;
3. loads the rest and serves: copy the source, wait for ``boot``, loop.

The folder is started as files and holds no installed package. Each of the two scripts registers it as ``_crewship`` and
imports its parts from there, so no module of ours can be mistaken for one of the user's.
"""

import sys

if __name__ == "__main__":
    _package = type(sys)("_crewship")
    _package.__path__ = [__file__.rpartition("/")[0] or "."]
    sys.modules["_crewship"] = _package
    __package__ = "_crewship"

    from .spawn import make_undumpable, spawn_crew

    make_undumpable()
    _child = spawn_crew()

    from .session import serve

    sys.exit(serve(_child))
