"""Squid's configuration, as a pure function, and what it says of what it refused.

Squid refuses a CONNECT on a port that looks into TLS by answering 200 and handing out a certificate of its own, which a client
reports as a forged certificate. So there are two ports in one process. The *front*, which runs reach, does not look into TLS:
it asks the helper whether the run may reach host and port, refuses with 403, and hands a CONNECT on to the *checker*, which
runs cannot reach. That one reads the name in the TLS greeting (peek), lets it through as it came (splice) when it is the name of
the CONNECT, and ends the connection when it is another, when there is none, or when it is no TLS. Nothing is ever decrypted.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from crewship.egress.wiring import CHECKER_ADDRESS
from crewship.netguard.messages import Denial
from crewship.netguard.rules import Reach

_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin"
CONF, CERTIFICATE, HELPER, POLICIES, DENIALS, LOG = (
    "squid.conf",
    "tls.pem",
    "helper.py",
    "hosts",
    "denials",
    "squid.log",
)
"""Names in the proxy's folder."""
READY = "ready.crewship.invalid"
"""What this host itself asks the front for, to learn whether it and the checker serve."""
_HELPER_LINES = 1000
"""That one helper has to answer at once. More would stop squid, so as many connections are refused by the kernel before."""
_REASONS = {
    "host": "not in [network] allow",
    "private": "its address is a private one, or of this platform",
    "nowhere": "the name has no IPv4 address",
    "protocol": "only HTTP, and TLS by CONNECT, pass",
    "many": "too many connections at once",
    "name": "",
}
"""By what the rule that refused it notes; the last one's are made of the names."""
_CONNECTIONS = 256
"""That one run may have open at once: it must not use up what the others need."""


@dataclass(frozen=True, slots=True)
class SquidOptions:
    """What one squid is configured by.

    Attributes:
        folder: Its files.
        address: The host's on the closed bridge.
        port: Where runs reach it.
        python: For the helper.
        resolvers: Whom it asks for names.
        blocked: Networks it must not reach.
        own: Addresses of the host, which it must not reach either.
        reach: Exceptions to both.
        has_v6: Whether it talks to its helpers by IPv6, as ``netguard.rules.ClosedPolicy`` has it.
        files: That it may have open; a run takes up to four for a connection.
    """

    folder: Path
    address: IPv4Address
    port: int
    python: str
    resolvers: Sequence[IPv4Address]
    blocked: Sequence[IPv4Network]
    own: Sequence[IPv4Address] = ()
    reach: Sequence[Reach] = ()
    has_v6: bool = True
    files: int = 20_000


def find_squid() -> str | None:
    """Squid's binary, or None."""
    return shutil.which("squid") or shutil.which("squid", path=_PATH)


def squid_conf(options: SquidOptions) -> str:
    """The file's text."""
    folder = options.folder
    helper = f"{options.python} -I -S {folder / HELPER}"
    # One helper of each kind, started with squid: a second one that comes up in a burst has refused what it should not.
    external = (
        f"concurrency={_HELPER_LINES} queue-size={_HELPER_LINES * 4} "
        f"children-max=1 children-startup=1 children-idle=1 {'ipv6' if options.has_v6 else 'ipv4'}"
    )
    private = " ".join(map(str, [*options.blocked, *options.own]))
    excepted, exceptions = [], []
    for number, reach in enumerate(options.reach):
        excepted.append(f"acl reach{number} dst {reach.network}")
        conditions = f"reach{number}"
        if reach.port is not None:
            excepted.append(f"acl reachport{number} port {reach.port}")
            conditions += f" reachport{number}"
        exceptions.append(f"http_access allow allowed {conditions}")
    lines = [
        f"http_port {options.address}:{options.port} name=front",
        f"http_port {CHECKER_ADDRESS}:{options.port} name=checker ssl-bump generate-host-certificates=off"
        f" tls-cert={folder / CERTIFICATE}",
        "acl front myportname front",
        "acl checker myportname checker",
        # Who is at the other end of a tunnel is told to the checker, and to nobody else.
        "forwarded_for truncate",
        "follow_x_forwarded_for allow checker",
        "follow_x_forwarded_for deny all",
        "request_header_access X-Forwarded-For deny !CONNECT",
        "via off",
        "reply_header_access X-Cache deny all",
        "reply_header_access X-Cache-Lookup deny all",
        "httpd_suppress_version_string on",
        "visible_hostname crewship",
        f"cache_log {folder / LOG}",
        # No run must be able to fill a disk with what squid says of it; what ends squid is said on stderr.
        "debug_options ALL,0",
        "cache_store_log none",
        "pid_filename none",
        "coredump_dir none",
        "netdb_filename none",
        "cache deny all",
        "cache_mem 0",
        "pinger_enable off",
        "global_internal_static off",
        "memory_pools off",
        "hosts_file none",
        "dns_nameservers " + " ".join(map(str, options.resolvers)) if options.resolvers else "",
        "shutdown_lifetime 1 seconds",
        f"max_filedescriptors {options.files}",
        "connect_timeout 20 seconds",
        # A client that speaks and waits, as an event stream's does, may be silent for as long as a run may take.
        "read_timeout 1 day",
        "client_lifetime 2 days",
        # Asked each time: what a run may reach holds at once, and ends with it.
        f"external_acl_type hosts ttl=0 negative_ttl=0 cache=0 {external} %>a %>rd %>rP {helper} hosts {folder / POLICIES}",
        # Two names are the same for ever.
        f"external_acl_type same ttl=3600 negative_ttl=3600 cache=10000 {external} %>rd %ssl::>sni {helper} same",
        "acl allowed external hosts",
        "acl same_name external same",
        "acl greeting at_step SslBump1",
        "acl named at_step SslBump2",
        "acl http proto HTTP",
        f"acl private dst {private}",
        "acl somewhere dst 0.0.0.0/1 128.0.0.0/1",
        *(f"acl why_{reason} annotate_transaction why={reason}" for reason in _REASONS),
        f"acl many maxconn {_CONNECTIONS}",
        "acl refused note why",
        "acl passed note passed",
        "acl pass annotate_transaction passed=yes",
        *excepted,
        "http_access allow checker CONNECT",
        "http_access deny checker",
        f"acl this_host src {options.address}",
        f"acl ready dstdomain {READY}",
        "http_access allow CONNECT this_host ready",
        "http_access deny many why_many",
        "http_access deny manager why_host",
        "http_access deny !CONNECT !http why_protocol",
        "http_access deny !allowed why_host",
        "http_access deny !somewhere why_nowhere",
        *exceptions,
        "http_access deny private why_private",
        "http_access allow all",
        "ssl_bump peek greeting",
        "ssl_bump splice named same_name pass",
        "ssl_bump terminate why_name",
        f"cache_peer {CHECKER_ADDRESS} parent {options.port} 0 no-query no-digest no-netdb-exchange name=checker"
        # It is this process: what cannot be reached for a moment is not away.
        " connect-fail-limit=1000000",
        "cache_peer_access checker allow front CONNECT",
        "cache_peer_access checker deny all",
        "never_direct allow front CONNECT",
        'logformat refused {"at": "%ts.%03tu", "source": "%>a", "host": "%>rd", "port": "%>rP", "why": "%{why}note", '
        '"name": "%#ssl::>sni", "error": "%err_code"}',
        f"access_log stdio:{folder / DENIALS} refused refused",
        f"access_log stdio:{folder / DENIALS} refused checker !passed !refused",
        "buffered_logs off",
    ]
    return "\n".join(filter(None, lines)) + "\n"


def denial_of(line: bytes) -> Denial | None:
    """What a line of the log says was refused; None for one that says nothing of the kind."""
    try:
        told = json.loads(line)
        why = told["why"]
        if why not in _REASONS:
            # A tunnel without TLS in it is an error of squid's own, after which no rule is asked.
            if told["error"] != "ERR_PROTOCOL_UNKNOWN":
                return None
            why = "protocol"
        # Squid quotes what it was sent; whatever is no plain name is cut to what can stand in a log.
        host, name = (str(told[key])[:255] for key in ("host", "name"))
        reason = _REASONS[why]
        if why == "name":
            # What a run wanted to reach behind a name that it may reach.
            reason = "TLS without a name" if name in ("-", "") else f"TLS inside a connection to {host}"
            host = host if name in ("-", "") else name
        port = int(told["port"]) if told["port"].isdigit() else None
        at_ms = round(float(told["at"]) * 1000)
        return Denial(at_ms, str(told["source"]), host, port, "tcp", reason)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
