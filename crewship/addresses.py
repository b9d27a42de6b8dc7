"""Network addresses: who reaches what listens there."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on ``host``; a name other than ``localhost`` counts as public."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
