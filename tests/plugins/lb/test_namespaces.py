"""Which workload a network namespace is, while endpoints come and go."""

from __future__ import annotations

from attrs import evolve
from lb_scenes import kit

from axoneme.core.workloads.endpoints import Endpoint, EndpointState
from axoneme.plugins.lb.namespaces import NamespaceOperations


async def test_a_namespace_whose_endpoint_was_replaced_is_the_new_one_s() -> None:
    """In one batch, a reconciler tells of those that came before those that are gone."""
    async with kit() as made:
        table = made.agent.datapath.map("lb_namespaces")
        operations = NamespaceOperations(lambda: table, {"/run/netns/a": 7, "/run/netns/b": 8}.__getitem__)
        web = await made.agent.workloads.add("web")
        old = evolve(web, id=1, state=EndpointState.READY, netns="/run/netns/a")
        new = evolve(old, id=2)
        assert isinstance(old, Endpoint)
        assert await operations.update([old]) == {}
        assert await operations.update([new]) == {}
        await operations.delete([old])
        assert table.lookup(7) == 2
        assert await operations.update([evolve(new, netns="/run/netns/b")]) == {}
        assert (table.lookup(7), table.lookup(8)) == (None, 2)
        await operations.delete([new])
        assert table.lookup(8) is None
