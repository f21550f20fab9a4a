"""What an engine is made of, as one value: to be handed to another process, and to make two engines that differ in one thing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from attrs import evolve, field, frozen

from axoneme.core.workloads.identities import FIRST_LOCAL, RESERVED, WORLD
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.model import CIDR_GROUP_KEY, CidrGroup, Network, Policy
from axoneme.plugins.policy.parties import Address, Parties, Workload
from axoneme.plugins.policy.prefixes import world_labels
from axoneme.plugins.policy.selectors import Identity, Labels
from axoneme.plugins.policy.services import KnownService, expand, names_services
from axoneme.plugins.policy.subject import Settings

#: Numbers of prefixes that have none in the running agent.
_FIRST_MADE = FIRST_LOCAL << 2


@frozen(kw_only=True)
class Inputs:
    """Everything that decides verdicts.

    :param policies: by their keys.
    :param groups: CIDR groups by name.
    :param identities: labels by number, those of workloads and reserved ones; and of prefixes, if there are any yet.
    :param worlds: the identities of IPv4 and IPv6 addresses that nothing else is known of.
    :param names: DNS names with the addresses that they stand for now.
    :param services: those that `toServices` may name.
    """

    settings: Settings = field(factory=Settings)
    policies: Mapping[str, Policy] = field(factory=dict)
    groups: Mapping[str, CidrGroup] = field(factory=dict)
    identities: Mapping[int, tuple[str, ...]] = field(factory=lambda: dict(RESERVED))
    workloads: tuple[Workload, ...] = ()
    worlds: tuple[int, int] = (WORLD, WORLD)
    names: Mapping[str, tuple[Address, ...]] = field(factory=dict)
    services: tuple[KnownService, ...] = ()

    def changed(
        self, objects: Iterable[Policy | CidrGroup] = (), deleted: Iterable[str] = (), *, only: bool = False
    ) -> Inputs:
        """These with objects added or replaced, and policies (by key) deleted.

        :param only: nothing holds but the objects given here.
        """
        gone = set(self.policies) if only else set(deleted)
        policies = {key: policy for key, policy in self.policies.items() if key not in gone}
        groups = dict(self.groups)
        for one in objects:
            if isinstance(one, Policy):
                policies[one.key] = expand(one, self.services) if names_services(one) else one
            else:
                groups[one.name] = one
        return evolve(self, policies=policies, groups=groups)


@frozen
class Rehearsed:
    """An engine of certain inputs, with the prefixes that it and those it is compared with speak of.

    :param prefixes: identities by prefix; equal in all engines that are compared.
    :param labels: all identities.
    """

    engine: Engine
    inputs: Inputs
    prefixes: Mapping[Network, int]
    labels: Mapping[int, tuple[str, ...]]

    def behind(self, address: Address) -> int:
        """The identity of an address that is no workload's."""
        lengths = {one.prefixlen for one in self.prefixes if one.version == address.version}
        for length in sorted(lengths, reverse=True):
            if (number := self.prefixes.get(ip_network((address, length), strict=False))) is not None:
                return number
        return self.inputs.worlds[address.version == 6]

    def parties(self) -> Parties:
        return Parties(self.inputs.workloads, self.labels, self.behind)


def rehearse(inputs: Inputs, *others: Inputs) -> Rehearsed:
    """An engine of `inputs`. Prefixes that `others` speak of have identities of their own, so that all can be compared."""
    every = (inputs, *others)
    policies = [policy for one in every for policy in one.policies.values()]
    filler = CidrGroup(
        "", tuple({prefix for one in others for group in one.groups.values() for prefix in group.prefixes})
    )
    labels = world_labels(policies, [*inputs.groups.values(), filler], inputs.names, dual_stack=True)
    live = {prefix: number for number, texts in inputs.identities.items() if (prefix := _prefix_of(texts))}
    known = {number: texts for number, texts in inputs.identities.items() if not _is_made(texts)}
    prefixes: dict[Network, int] = {}
    for index, prefix in enumerate(sorted(labels, key=str)):
        number = prefixes[prefix] = live.get(prefix, _FIRST_MADE + index)
        known[number] = tuple(text for text in labels[prefix] if text != _FILLER)
    return Rehearsed(_engine(inputs, known), inputs, prefixes, known)


_FILLER = f"cidrgroup:{CIDR_GROUP_KEY}"


def _is_made(labels: Iterable[str]) -> bool:
    """Whether an identity is there because policies speak of its addresses: these are made anew."""
    return any(text.startswith(("cidr:", "fqdn:")) for text in labels)


def _prefix_of(labels: Iterable[str]) -> Network | None:
    return Labels(labels).prefix


def _engine(inputs: Inputs, identities: Mapping[int, tuple[str, ...]]) -> Engine:
    engine = Engine(inputs.settings)
    for number, labels in identities.items():
        engine.upsert_identity(Identity(number, labels))
    for policy in inputs.policies.values():
        engine.upsert_policy(policy)
    for workload in inputs.workloads:  # last, so that no policy is matched with all of them
        engine.upsert_subject(workload.endpoint, workload.subject)
    engine.commit()
    return engine
