"""The crew's process: ``/opt/venv/bin/python /opt/crewship/runtime/crew.py``, started by the supervisor.

Its fds: 0 is /dev/null, 1 and 2 are pipes to the supervisor, 3 is the socket for claims and commands. User code sees
neither this folder on ``sys.path`` nor its modules under their own names.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder: its "crew" must not be taken for the user's
    _package = type(sys)("_crewship")
    _package.__path__ = [__file__.rpartition("/")[0] or "."]
    sys.modules["_crewship"] = _package
    __package__ = "_crewship"

    from .process import main

    main()
