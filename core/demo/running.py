"""The demo from start to end: an agent, workloads with servers, resources, requests between everybody and through services,
and what was seen of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import frozen

from axoneme.core.agent import Agent
from axoneme.core.config import Config
from axoneme.core.demo import article, services
from axoneme.core.demo.article import APPS, NAMESPACE, OUTSIDE, Article
from axoneme.core.demo.machine import Machine
from axoneme.core.demo.observed import Observed, observe
from axoneme.core.demo.place import DemoError
from axoneme.core.demo.plan import Plan
from axoneme.core.demo.tallies import Tally, tally
from axoneme.core.demo.traffic import Attempt, Servers, attempts
from axoneme.core.demo.verdicts import Judge, Verdict, Witness
from axoneme.core.events.naming import Namer
from axoneme.core.events.rules import RULES, Rule
from axoneme.core.platform import Host
from axoneme.core.state.resources import RESOURCES, Resource
from axoneme.core.state.watch import watch_many

if TYPE_CHECKING:
    from axoneme.core.datapath.datapath import Datapath
    from axoneme.core.datapath.kernel import Kernel
    from axoneme.core.settings import Settings
    from axoneme.core.workloads.endpoints import Endpoint

#: Seconds that policies have to come into force. They need some hundredths of one.
PATIENCE: Final = 30.0

#: The kinds of resource that end as rules.
_POLICIES: Final = frozenset({"CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"})

CREATED_BY: Final = "demo"


@frozen(kw_only=True)
class Result:
    """What a demo showed.

    :param waiting: files that are not in force, with the plugins that they wait for.
    :param seconds: that the requests took, all together.
    :param tallies: who answered for services; empty where no plugin balances.
    :param observed: what Hubble saw; None where it does not run.
    """

    endpoints: Mapping[str, Endpoint]
    active: tuple[str, ...]
    waiting: Mapping[str, tuple[str, ...]]
    verdicts: tuple[Verdict, ...]
    seconds: float
    tallies: tuple[Tally, ...] = ()
    observed: Observed | None = None

    @property
    def ok(self) -> bool:
        return not self.wrong

    @property
    def wrong(self) -> int:
        """How much of it is not as expected."""
        wrong = [each for each in self.verdicts if not each.ok]
        miscounted = [each for each in self.tallies if not each.ok]
        return (
            len(wrong) + len(miscounted) + (self.observed is not None and not self._was_seen(self.observed))
        )

    def _was_seen(self, observed: Observed) -> bool:
        """Whether Hubble has at least a flow for each request, with what became of it."""
        seen = [verdict.seen for verdict in self.verdicts]
        return all(
            observed.verdicts.get(name, 0) >= seen.count(outcome)
            for name, outcome in (("FORWARDED", article.ALLOWED), ("DROPPED", article.DROPPED))
        )


class Display(Protocol):
    """Who is told what happens."""

    def step(self, name: str, text: str) -> None:
        """Something that is about to be done, or was."""
        ...

    def verdict(self, verdict: Verdict) -> None: ...

    def result(self, result: Result) -> None: ...


class Demo:
    """One demo, for one event loop.

    :ivar result: what it showed, once all requests are through.
    """

    def __init__(
        self, config: Config, display: Display, machine: Machine, *, no_plugins: bool = False
    ) -> None:
        self.result: Result | None = None
        self._config = config
        self._display = display
        self._machine = machine
        self._platform = _Telling(self._compiling)
        self._compiled: list[str] = []
        self._no_plugins = no_plugins

    async def run(self, conclude: Callable[[Result], bool] = lambda result: False) -> None:
        """Shows everything.

        :param conclude: is called with the result while all of it still runs; whether to go on until cancelled.
        """
        agent = Agent(self._config, platform=self._platform, no_plugins=self._no_plugins)
        self._display.step("agent", f"{self._config.settings.agent.name} is starting")
        async with agent, Servers() as servers:
            self._started(agent)
            endpoints = await self._add_workloads(agent, servers)
            active, waiting = await self._apply_resources(agent, endpoints)
            plan = Plan(
                endpoints=endpoints,
                machine=self._machine,
                services=_rows(agent, "services") if "services.yaml" in active else (),
            )
            begin = time.monotonic()
            verdicts, tallies = await self._request(agent, plan, active)
            seconds = time.monotonic() - begin
            self.result = Result(
                endpoints=endpoints,
                active=active,
                waiting=waiting,
                verdicts=tuple(verdicts),
                seconds=seconds,
                tallies=tuple(tallies),
                observed=await self._observe(agent),
            )
            self._display.result(self.result)
            if conclude(self.result):
                await asyncio.Event().wait()

    def _compiling(self, point: str) -> None:
        if not self._compiled:
            self._display.step(
                "compile", "programs that are not in the cache; the next start finds them there"
            )
        self._compiled.append(point)
        self._display.step("compile", point)

    def _started(self, agent: Agent) -> None:
        plugins = _enabled(agent)
        programs = f"{len(self._compiled)} programs compiled" if self._compiled else "programs from the cache"
        self._display.step(
            "agent",
            f"ready after {sum(agent.stages.values()):.1f} s, {programs}; plugins: {', '.join(plugins) or 'none'}",
        )

    async def _add_workloads(self, agent: Agent, servers: Servers) -> dict[str, Endpoint]:
        endpoints = {}
        for app in APPS:
            endpoint = await agent.workloads.add(app.name, NAMESPACE, app.labels, created_by=CREATED_BY)
            await servers.serve(app, endpoint.netns)
            endpoints[app.name] = endpoint
            addresses = "  ".join(f"{address!s:<12}" for address in endpoint.addresses)
            ports = ", ".join(map(str, app.ports))
            self._display.step("workload", f"{app.name:<16} {addresses}  listens on {ports}")
        await servers.serve(OUTSIDE, self._machine.outside)
        return endpoints

    async def _apply_resources(
        self, agent: Agent, endpoints: Mapping[str, Endpoint]
    ) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
        """Copies what the enabled plugins understand, and waits until it is in force."""
        enabled = _enabled(agent)
        waiting = {each.file: each.missing(enabled) for each in article.RESOURCES}
        chosen = [each for each in article.RESOURCES if not waiting[each.file]]
        for each in chosen:
            _copy(each, agent.settings.agent.resources)
        try:
            async with asyncio.timeout(PATIENCE):
                await in_force(agent, [each.file for each in chosen])
                await in_kernel(agent.datapath, endpoints.values())
                if "lb" in enabled:
                    await served(agent)
        except TimeoutError:
            raise DemoError(
                f"the resources are not in force after {PATIENCE:g} s",
                hint="run it with --verbose, and see what the agent says",
            ) from None
        for each in chosen:
            self._display.step("resource", f"{each.file} is in force")
        for file, plugins in waiting.items():
            if plugins:
                self._display.step("resource", f"{file} waits for the plugin {' and '.join(plugins)}")
        return tuple(each.file for each in chosen), {file: names for file, names in waiting.items() if names}

    async def _request(
        self, agent: Agent, plan: Plan, active: Collection[str]
    ) -> tuple[list[Verdict], list[Tally]]:
        """Sends all requests between workloads at once, and then one series after the other through services."""
        from axoneme.core.datapath.abi import EventType

        made = attempts(plan.flows(), self._machine)
        counted = [(*each, attempts(plan.series(*each), self._machine)) for each in plan.calls()]
        build = agent.datapath.active
        assert build is not None, "the agent is started"
        namer = Namer(agent.state, {reason.number: reason for reason in build.blueprint.reasons})
        witness = Witness(namer.name, [*made, *(one for *_, some in counted for one in some)])
        judge = Judge(
            agent.state.table(RULES.name, Rule), witness, lambda flow: article.expected(flow, active)
        )

        async def one(attempt: Attempt) -> Verdict:
            verdict = await judge.judge(attempt)
            self._display.verdict(verdict)
            return verdict

        with agent.events.listen((EventType.NEW, EventType.DROP)) as listener:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(witness.follow(listener))
                verdicts = await asyncio.gather(*(one(attempt) for attempt in made))
                tallies = [
                    await tally(call, way, family, some, witness, active)
                    for call, way, family, some in counted
                ]
                listening.cancel()
        return verdicts, tallies

    async def _observe(self, agent: Agent) -> Observed | None:
        if "hubble" not in _enabled(agent) or self._config.file is None:
            return None
        return await observe(self._config.file)


def _rows(agent: Agent, table: str) -> Sequence[Any]:
    return list(agent.state.table(table).all())


def _enabled(agent: Agent) -> list[str]:
    generation = agent.generation
    return list(generation.assembly.manager.enabled) if generation is not None else []


def _copy(resource: Article, folder: Path) -> None:
    """Puts a file into the watched folder, whole from the first moment."""
    half_done = folder / f".{resource.file}"
    half_done.write_text(resource.text())
    os.replace(half_done, folder / resource.file)


async def in_force(agent: Agent, files: Collection[str]) -> None:
    """Returns when all objects of these files are read, and the rules of the policies among them are written.

    :raises DemoError: when one of them is not valid.
    """
    watches = (
        agent.state.table(RESOURCES.name, Resource).watch(),
        agent.state.table(RULES.name, Rule).watch(),
    )
    try:
        async for _ in watch_many(*watches):
            rows = agent.state.table(RESOURCES.name, Resource).all()
            if _all_ruled(rows, agent.state.table(RULES.name, Rule).all(), files):
                return
    finally:
        for watch in watches:
            watch.close()


def _all_ruled(rows: Iterable[Resource], rules: Iterable[Rule], files: Collection[str]) -> bool:
    by_file: dict[str, list[Resource]] = {file: [] for file in files}
    for row in rows:
        by_file.setdefault(Path(row.where.file).name, []).append(row)
    ruled = {(rule.kind, rule.namespace, rule.name) for rule in rules if not rule.retired}
    for file in files:
        for row in by_file[file]:
            if row.problems:
                raise DemoError(f"{row} is not valid: {row.problems[0].message}", where=row.problems[0].where)
    return all(
        by_file[file] and all(row.key in ruled for row in by_file[file] if row.kind in _POLICIES)
        for file in files
    )


async def served(agent: Agent) -> None:
    """Returns when the kernel has all services, with everybody behind them."""
    watches = (agent.state.table("services").watch(), agent.state.table("backends").watch())
    try:
        async for _ in watch_many(*watches):
            if services.ready(_rows(agent, "services"), _rows(agent, "backends")):
                return
    finally:
        for watch in watches:
            watch.close()


async def in_kernel(datapath: Datapath, endpoints: Iterable[Endpoint]) -> None:
    """Returns when the kernel's maps know all these workloads and who they are."""
    chosen, written = list(endpoints), asyncio.Event()

    def note(revision: int) -> None:
        written.set()

    datapath.on_revision.append(note)
    try:
        while not all(_is_known(datapath, endpoint) for endpoint in chosen):
            await written.wait()
            written.clear()
    finally:
        datapath.on_revision.remove(note)


def _is_known(datapath: Datapath, endpoint: Endpoint) -> bool:
    from axoneme.core.datapath.endpoint_maps import words

    for address in endpoint.addresses:
        key: dict[str, Any] = {"a": words(address)}
        prefix = {"length": address.max_prefixlen, "address": key}
        here = datapath.map(f"endpoints{address.version}").lookup(key)
        who = datapath.map(f"ipcache{address.version}").lookup(prefix)
        if here is None or who is None or int(who["identity"]) != endpoint.identity:
            return False
    return datapath.map("links").lookup(endpoint.ifindex) is not None


class _Telling(Host):
    """This machine, with a word about each program that is compiled."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def datapath(self, kernel: Kernel, settings: Settings) -> Datapath:
        datapath = super().datapath(kernel, settings)
        datapath.compiler.on_compile = lambda composition: self._tell(composition.point.name)
        return datapath
