"""The section `policy` of the configuration."""

from __future__ import annotations

import enum

from attrs import frozen

from axoneme.core.structure import setting
from axoneme.plugins.policy.subject import Enforcement, Settings


class AllowLocalhost(enum.StrEnum):
    ALWAYS = "always"
    POLICY = "policy"


@frozen(kw_only=True)
class PolicyConfig:
    enforcement: Enforcement = setting(
        Enforcement.DEFAULT,
        help="default: what a policy selects is in default deny; always: everything is; never: no policy applies",
    )
    allow_localhost: AllowLocalhost = setting(
        AllowLocalhost.ALWAYS,
        help="always: the host reaches its own workloads unless a rule denies it; policy: only if a rule allows it",
    )
    host_firewall: bool = setting(
        False,
        help="whether policies with a nodeSelector protect the host itself; not there yet, so that it can only be off",
    )
    audit: bool = setting(
        False, help="rehearse all policies: they deny nothing, and what they would deny is in the events"
    )
    audit_namespaces: tuple[str, ...] = setting(
        (), help="rehearse the policies of these namespaces; the others are enforced"
    )
    peers: int = setting(262_144, help="room for (policy, identity) entries in the kernel", minimum=1024)
    verdicts: int = setting(
        131_072, help="room for (class, protocol, port prefix) entries in the kernel", minimum=1024
    )

    def __attrs_post_init__(self) -> None:
        if self.host_firewall:
            raise ValueError("host_firewall cannot be on: policies with a nodeSelector are not enforced yet")

    @property
    def settings(self) -> Settings:
        return Settings(
            self.enforcement,
            self.allow_localhost is AllowLocalhost.ALWAYS,
            audit=self.audit,
            audit_namespaces=frozenset(self.audit_namespaces),
        )
