"""Sets a bridge's rules, sees whether they are still there, takes them away. By the host's own iptables, as the engine does.

All of a change is one transaction: there is no moment at which half of the rules hold. Nothing but chains of the bridge's
name and the rules that call them is ever touched.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from crewship.errors import CrewshipError
from crewship.netguard.rules import OURS, PARENT, ClosedPolicy, Policy, Ruleset, all_chains, ruleset

_WAIT_SECONDS = 10
"""For the lock that the engine's own changes take too."""
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


class FirewallError(CrewshipError):
    """The rules cannot be set: ``detail`` says why, ``hint`` how to mend it."""

    default_code = "firewall"


class Firewall:
    """The rules of one network namespace.

    Args:
        prefix: What each command is put behind, such as ``("ip", "netns", "exec", "x")``.
    """

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self._prefix = tuple(prefix)
        self._set: dict[str, tuple[Policy | ClosedPolicy, list[list[str]]]] = {}
        """By bridge: what was set last, and how it was listed right after, of both protocols."""

    def apply(self, policy: Policy | ClosedPolicy) -> None:
        """Set the rules, whatever was there of them. Idempotent.

        Raises:
            FirewallError: nothing was changed.
        """
        if not self._prefix and not _is_bridged_traffic_filtered():
            raise FirewallError(
                "The kernel does not filter between containers of one bridge",
                hint="modprobe br_netfilter && sysctl net.bridge.bridge-nf-call-iptables=1",
            )
        rules = ruleset(policy)
        self._change(self._iptables, rules.chains, rules.hooks)
        if self._ip6tables is not None:
            self._change(self._ip6tables, rules.chains6, rules.hooks6)
        self._set[policy.bridge] = (policy, self._listed(rules))

    def is_intact(self, policy: Policy | ClosedPolicy) -> bool:
        """Whether the rules are those that ``apply`` has set for ``policy``, in their places.

        Raises:
            FirewallError: they cannot be listed.
        """
        known, listed = self._set.get(policy.bridge, (None, []))
        if known != policy:
            return False
        rules = ruleset(policy)
        tables = self._tables()
        if [_lines_of(table, rules.chains) for table in tables] != listed:
            return False
        if not self._prefix and not _is_bridged_traffic_filtered():
            return False
        return all(_comes_first(tables[0], parent, rules.chains) for parent, _ in rules.hooks)

    def remove(self, bridge: str) -> None:
        """Take all of a bridge and of its closed one away; fine when there is nothing.

        Raises:
            FirewallError: the rules cannot be changed.
        """
        self._set.clear()
        for command in (self._iptables, self._ip6tables):
            if command is None:
                continue
            listed = _lines_of(self._table(command), all_chains(bridge))
            there = [line[1:].split()[0] for line in listed if line.startswith(":")]
            if there:
                hooks = [f"-D{line[2:]}" for line in listed if line.startswith("-A") and OURS.search(line)]
                self._restore(
                    command, [*hooks, *(f"-F {chain}" for chain in there), *(f"-X {chain}" for chain in there)]
                )

    def _change(self, command: str, chains: dict[str, list[str]], hooks: Iterable[tuple[str, str]]) -> None:
        """Set chains and their hooks, in one transaction."""
        before = _lines_of(self._table(command), chains)
        text = [f":{chain} - [0:0]" for chain in chains]
        text += [f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules]
        text += [f"-D{line[2:]}" for line in before if line.startswith("-A") and OURS.search(line)]
        text += [f"-I {parent} 1 {rule}" for parent, rule in hooks]
        self._restore(command, text)

    def _listed(self, rules: Ruleset) -> list[list[str]]:
        return [_lines_of(table, rules.chains) for table in self._tables()]

    @cached_property
    def _iptables(self) -> str:
        """The command whose rules the engine's are among: a host may have two kinds."""
        found = [name for name in ("iptables", "iptables-nft", "iptables-legacy") if shutil.which(name, path=_PATH)]
        if not found:
            raise FirewallError("There is no iptables", hint="install it: apt install iptables")
        errors = []
        for name in found:
            done = self._run([name, "-w", str(_WAIT_SECONDS), "-S", PARENT])
            if done.returncode == 0:
                return name
            errors.append(done.stderr.strip())
        if any("ermission" in error or "must be root" in error for error in errors):
            raise FirewallError("The rules may be changed by root only", hint="sudo crewship netguard")
        raise FirewallError(
            f"The engine has no chain {PARENT}: {errors[0]}",
            hint='is Docker running, and "iptables" not switched off in /etc/docker/daemon.json?',
        )

    @cached_property
    def _ip6tables(self) -> str | None:
        """Its companion; None when the kernel has no IPv6."""
        name = self._iptables.replace("iptables", "ip6tables")
        if not Path("/proc/net/if_inet6").exists():
            return None
        if not shutil.which(name, path=_PATH):
            raise FirewallError(f"There is no {name}", hint="install it: apt install iptables")
        return name

    def _tables(self) -> list[list[str]]:
        return [self._table(command) for command in (self._iptables, self._ip6tables) if command is not None]

    def _table(self, command: str) -> list[str]:
        done = self._run([f"{command}-save", "-t", "filter"])
        if done.returncode:
            raise FirewallError(f"{command}-save: {done.stderr.strip()}", hint="is the kernel's netfilter there?")
        # Without the counts of packets that stand behind a chain.
        return [line.partition(" [")[0] if line.startswith(":") else line for line in done.stdout.splitlines()]

    def _restore(self, command: str, lines: list[str]) -> None:
        text = "\n".join(["*filter", *lines, "COMMIT", ""])
        done = self._run([f"{command}-restore", "-w", str(_WAIT_SECONDS), "--noflush"], text)
        if done.returncode:
            reason = done.stderr.strip().splitlines() or ["?"]
            raise FirewallError(
                f"{command}-restore: {reason[0]}",
                hint="the kernel needs xt_conntrack, xt_hashlimit, xt_NFLOG and ipt_REJECT, for [network] allow xt_bpf, "
                "xt_owner and xt_addrtype too; the process CAP_NET_ADMIN",
            )

    def _run(self, command: list[str], text: str | None = None) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                [*self._prefix, *command],
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                timeout=_WAIT_SECONDS * 2,
                env={"PATH": _PATH},
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FirewallError(f"{command[0]}: {error}", hint="install it: apt install iptables") from error


def _lines_of(table: list[str], chains: Iterable[str]) -> list[str]:
    """The lines of a table that are of ``chains``: these, their rules, their hooks."""
    names = set(chains)
    return [line for line in table if names & set(line.replace(":", " ").split())]


def _comes_first(table: list[str], parent: str, chains: Iterable[str]) -> bool:
    """Whether nothing but hooks of ours stands before that of ``chains``: a rule before it might let through what it refuses."""
    names = set(chains)
    for line in table:
        if line.startswith(f"-A {parent} "):
            if names & set(line.split()):
                return True
            if not OURS.search(line):
                return False
    return False


def _is_bridged_traffic_filtered() -> bool:
    try:
        return _BRIDGE_FILTER.read_text().strip() == "1"
    except OSError:
        return False
