"""Squid with OpenSSL, the proxy of runs with ``[network] allow``: on this machine, or installed where that is ours to do.

Nothing else needs it, so a machine that cannot have it is a machine on which such runs are refused, and no more.
"""

import os
from pathlib import Path

from crewship.egress.squid import find_squid
from crewship.provision.commands import locked
from crewship.provision.engine import install_packages, is_ours_to_install
from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Progress

PACKAGE = "squid-openssl"
HINT = f"sudo apt-get install {PACKAGE}; only runs with [network] allow need it"
_OWN_SERVICE = Path("/etc/systemd/system/squid.service")


def ensure_squid(cache: Path, progress: Progress) -> str:
    """The binary, installed when it is missing.

    Raises:
        ProvisionError: it is not there and cannot be installed.
    """
    with locked(cache, "squid"):
        if found := find_squid():
            return found
        if not is_ours_to_install():
            raise ProvisionError("squid is not on this machine", hint=HINT)
        with progress.step("Installing the egress proxy (squid-openssl)") as step:
            _mask_its_own_service()
            install_packages([PACKAGE], step, log=cache / "logs" / "squid-install.log", start=False)
    found = find_squid()
    if found is None:
        raise ProvisionError(f"{PACKAGE} was installed and has no squid", hint=HINT)
    return found


def _mask_its_own_service() -> None:
    """The package would start a proxy of its own, open to the local networks: masked before it comes, it never begins."""
    if not os.path.lexists(_OWN_SERVICE):
        _OWN_SERVICE.parent.mkdir(parents=True, exist_ok=True)
        _OWN_SERVICE.symlink_to("/dev/null")
