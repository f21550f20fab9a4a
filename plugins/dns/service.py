"""What runs while the plugin is enabled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from weakref import WeakValueDictionary

from axoneme.core import logs
from axoneme.core.datapath.proxies import MARK_MASK, MARK_TO_PROXY
from axoneme.core.events.rules import L7_RULES, L7Rules
from axoneme.core.net import proxyroute, sysctl
from axoneme.core.net.rtnl import RtnlError
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Health, Level
from axoneme.core.workloads.endpoints import ENDPOINTS, Endpoint
from axoneme.core.workloads.names import DNS_NAMES, DnsName
from axoneme.plugins.dns.cache import NameCache
from axoneme.plugins.dns.config import DnsConfig
from axoneme.plugins.dns.journal import Journal
from axoneme.plugins.dns.learner import Learner
from axoneme.plugins.dns.permits import Permits
from axoneme.plugins.dns.proxy import DnsProxy
from axoneme.plugins.dns.servers import serving

log = logs.get(__name__)

#: Our name as a source of the table of names.
SOURCE = "dns"
#: How often what is over is looked for, in seconds.
SWEEP = 1.0


class DnsService:
    """Cache, proxy and sockets of one context. What was known before is known before anybody decides without it."""

    def __init__(self, context: PluginContext) -> None:
        config: DnsConfig = context.config
        self.context, self.config = context, config
        self.cache = NameCache(min_ttl=config.min_ttl, names=config.names, addresses=config.addresses)
        self.journal: Journal | None = None
        self.learner: Learner | None = None
        self.proxy: DnsProxy | None = None

    async def run(self, ready: Callable[[], None]) -> None:
        names = self.context.state.writer(DNS_NAMES.name, DnsName)
        names.expect(SOURCE)
        journal = self.journal = Journal(self.context.settings.agent.state_dir / "dns-names.jsonl")
        try:
            journal.load(self.cache, time.time(), self.config.grace)
            learner = self.learner = Learner(
                self.context, self.cache, journal, delay=self.config.response_delay
            )
            learner.restore()
            names.mark_initialized(SOURCE)
            await self._serve(learner, ready)
        finally:
            names.release(SOURCE)
            journal.close()

    async def _serve(self, learner: Learner, ready: Callable[[], None]) -> None:
        permits = Permits(self.context.state.table(L7_RULES.name, L7Rules))
        proxy = self.proxy = DnsProxy(self.context, permits, learner)
        families = tuple(_routed())
        limits = {"questions": self.config.concurrent, "connections": self.config.connections}
        async with (
            asyncio.TaskGroup() as tasks,
            serving(self.context.map("proxies"), proxy, tasks, families=families, **limits),
        ):
            ready()
            while True:
                await asyncio.sleep(SWEEP)
                proxyroute.ensure(
                    MARK_TO_PROXY, MARK_MASK, families
                )  # whoever set up routing anew took it away
                learner.expire(self.config.grace)
                self._forget_endpoints()

    def _forget_endpoints(self) -> None:
        table = self.context.state.table(ENDPOINTS.name, Endpoint)
        known = {number for _, entry in self.cache.items() for number in entry.endpoints}
        for number in known:
            if number not in table:
                self.cache.forget(number)

    def health(self) -> Health:
        if self.journal is not None and self.journal.problem:
            return Health(level=Level.DEGRADED, reason=self.journal.problem)
        return Health(level=Level.OK)


def _routed() -> Iterator[int]:
    """The families whose routing leads to the proxy: IPv4, and IPv6 where the host has it. Raises `RtnlError`."""
    proxyroute.ensure(MARK_TO_PROXY, MARK_MASK, (4,))
    yield 4
    if not sysctl.has_ipv6():
        return
    try:
        proxyroute.ensure(MARK_TO_PROXY, MARK_MASK, (6,))
    except RtnlError as error:  # switched off on the loopback, for one; then there is no IPv6 to redirect
        log.warning("dns_without_ipv6", error=error)
        return
    yield 6


_running: WeakValueDictionary[int, DnsService] = WeakValueDictionary()


def of(context: PluginContext) -> DnsService:
    """The one service of a context: health, metrics and API methods are about the same object."""
    found = _running.get(id(context))
    if found is None or found.context is not context:
        found = _running[id(context)] = DnsService(context)
    return found
