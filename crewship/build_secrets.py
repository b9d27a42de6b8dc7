"""What a project's builds get and its runs never do: a private index's address, its credentials, a CA bundle.

They reach the installer by its commands' environment (the bundle by a file in the build's volume), so they are in no layer, in no
image's configuration or history, and in no log; a run's env vars are never here. After an install the container is searched
for them (``crewship.installer``): a package that writes one down fails the build.

Names are those that ``uv`` reads, such as ``UV_INDEX_URL`` or ``UV_INDEX_CORP_PASSWORD``, or whatever ``${NAME}`` in a
requirements file stands for; ``CA_BUNDLE`` is a PEM bundle that builds trust besides.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlmodel import Session, select

from crewship.models import BuildSecret
from crewship.sealing import Sealer

CA_BUNDLE: Final = "CA_BUNDLE"
INDEX_NAMES: Final = frozenset(
    {"UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX"}
)
"""Those that make other indexes be asked than a lock file names."""
RESERVED: Final = frozenset(
    {
        "HOME", "PATH", "TMPDIR", "VIRTUAL_ENV", "UV_CACHE_DIR", "UV_LINK_MODE", "UV_PYTHON_DOWNLOADS", "UV_NO_EDITABLE",
        "UV_TARGET", "UV_PYTHON", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME",
    }
)  # fmt: skip
"""What the build itself sets, or what would make it another program."""


@dataclass(frozen=True, slots=True)
class BuildSecrets:
    """The secrets of one build."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    revision: str = ""
    """Part of what dependency images are named by: other secrets may mean other packages, and no other project gets them."""

    @property
    def environment(self) -> dict[str, str]:
        """For the installer's commands."""
        return {name: value for name, value in self.values.items() if name != CA_BUNDLE}

    @property
    def ca_bundle(self) -> bytes:
        """PEM; empty when there is none."""
        return self.values.get(CA_BUNDLE, "").encode()

    @property
    def names_an_index(self) -> bool:
        return not INDEX_NAMES.isdisjoint(self.values)


NONE: Final = BuildSecrets()


def context(project: str, name: str) -> str:
    """What a sealed value is bound to; no env var's context has two slashes."""
    return f"{project}/build/{name}"


def open_secrets(session: Session, project: str, sealer: Sealer) -> BuildSecrets:
    """A project's build secrets, in clear: for the installer's commands and the redactor only."""
    rows = session.exec(select(BuildSecret).where(BuildSecret.project == project).order_by(BuildSecret.name)).all()
    if not rows:
        return NONE
    values = {row.name: sealer.open(row.sealed, context(project, row.name)) for row in rows}
    told = "".join(f"{row.name} {row.updated_at.isoformat()}\n" for row in rows)
    return BuildSecrets(values, f"{project} {hashlib.sha256(told.encode()).hexdigest()}")
