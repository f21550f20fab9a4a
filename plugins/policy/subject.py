"""Whom a policy is resolved for, and the settings that count in it."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import frozen

from axoneme.plugins.policy.model import Protocol


class Enforcement(enum.StrEnum):
    DEFAULT = "default"
    ALWAYS = "always"
    NEVER = "never"


@frozen
class Settings:
    """What of the agent's configuration decides verdicts.

    :param audit: all policies are only rehearsed, and so are the default denies that come from no policy.
    :param audit_namespaces: the policies of these namespaces are only rehearsed.
    """

    enforcement: Enforcement = Enforcement.DEFAULT
    allow_localhost: bool = True
    host_firewall: bool = False
    non_default_deny: bool = True
    audit: bool = False
    audit_namespaces: frozenset[str] = frozenset()


#: A workload's or the cluster's named ports: (name, protocol) to the numbers it stands for.
NamedPorts = Mapping[tuple[str, Protocol], frozenset[int]]


@frozen
class Subject:
    """Whom a policy is resolved for. Two endpoints with equal subjects share their policies.

    :param host: the node itself: only nodeSelector rules apply to it, and only with the host firewall.
    """

    labels: tuple[str, ...]
    named_ports: tuple[tuple[str, Protocol, int], ...] = ()
    host: bool = False

    @property
    def ports(self) -> NamedPorts:
        found: dict[tuple[str, Protocol], frozenset[int]] = {}
        for name, protocol, port in self.named_ports:
            found[name.lower(), protocol] = found.get((name.lower(), protocol), frozenset()) | {port}
        return found
