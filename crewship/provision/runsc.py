"""gVisor's ``runsc``, for tests of runs under another kernel."""

from crewship.provision.go import Program

RUNSC = Program(
    name="runsc",
    # Pinned to a commit of gVisor's ``go`` branch, the only one that Go's own tools can build.
    package="gvisor.dev/gvisor/runsc@v0.0.0-20260905035102-160fafc42237",
    called="gVisor's runsc",
    takes="a minute",
)
