"""The nodes of the mesh as Hubble peers: the table that whoever knows other nodes writes, and `peer.Peer` over it.

Source: the interface of Cilium's peer service. A relay asks one agent for all nodes, and connects to each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from axoneme.core.records import TableSpec
from axoneme.core.state.watch import Change, ChangeKind
from axoneme.core.structure import setting

if TYPE_CHECKING:
    from axoneme.core.state.table import Table

SERVICE: Final = "peer.Peer"
DOMAIN: Final = "hubble-grpc.cilium.io"


@frozen(kw_only=True)
class Peer:
    """A node whose flows can be asked for."""

    name: str = setting(help="NODE in the cluster `default`, else CLUSTER/NODE")
    address: str = setting(help="HOST:PORT, or unix:///PATH for a node that only its own machine reaches")
    server_name: str = setting("", help="the name on its certificate; empty: it speaks plain text")


PEERS: Final = TableSpec(
    name="hubble_peers", row=Peer, key="name", doc="nodes whose flows a relay can ask for"
)


def peer_name(cluster: str, node: str) -> str:
    return node if cluster in ("", "default") else f"{cluster}/{node}"


def server_name(cluster: str, node: str) -> str:
    """The name that a node's certificate must have: NODE.CLUSTER.hubble-grpc.cilium.io, the dots in both as hyphens."""
    return f"{node.replace('.', '-')}.{(cluster or 'default').replace('.', '-')}.{DOMAIN}"


class PeerService:
    """`peer.Peer`: every known node, then what changes."""

    def __init__(self, peers: Table[Peer]) -> None:
        self._peers = peers

    def handler(self) -> Any:
        from axoneme.plugins.hubble.proto import peer_pb2
        from axoneme.plugins.hubble.server.rpc import Method, handlers

        return handlers(
            SERVICE, {"Notify": Method(request=peer_pb2.NotifyRequest, call=self.notify, streams=True)}
        )

    async def notify(self, _request: Any, _context: Any) -> AsyncIterator[bytes]:
        """A client that is slow gets what changed meanwhile in one step: a table's watch holds one change per node."""
        async for batch in self._peers.watch():
            for change in batch.changes:
                yield notification(change).SerializeToString()


def notification(change: Change[Peer]) -> Any:
    """The message for one change."""
    from axoneme.plugins.hubble.proto import peer_pb2

    kinds = {
        ChangeKind.INSERT: "PEER_ADDED",
        ChangeKind.UPDATE: "PEER_UPDATED",
        ChangeKind.DELETE: "PEER_DELETED",
    }
    row = change.row
    message = peer_pb2.ChangeNotification(name=row.name, address=row.address, type=kinds[change.kind])
    if row.server_name:
        message.tls.server_name = row.server_name
    return message
