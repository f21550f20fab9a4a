"""The kinds of resource that the plugin understands."""

from __future__ import annotations

from functools import cache

from axoneme.core.records import ResourceKind
from axoneme.plugins.lb.parse_pod import parse_pod
from axoneme.plugins.lb.parse_pool import parse_pool, parse_redirect
from axoneme.plugins.lb.parse_service import parse_service
from axoneme.plugins.lb.parse_slice import parse_endpoints, parse_slice

#: The kinds by which services, or who is behind them, may change.
KINDS = frozenset(
    {"Service", "Endpoints", "EndpointSlice", "Pod", "CiliumLoadBalancerIPPool", "CiliumLocalRedirectPolicy"}
)
CILIUM_APIS = ("cilium.io/v2", "cilium.io/v2alpha1")


@cache
def resource_kinds() -> tuple[ResourceKind, ...]:
    """Always the same records: a reload then sees that nothing changed."""
    pools = [
        ResourceKind(api_version=api, kind="CiliumLoadBalancerIPPool", namespaced=False, parse=parse_pool)
        for api in CILIUM_APIS
    ]
    return (
        ResourceKind(api_version="v1", kind="Service", namespaced=True, parse=parse_service),
        ResourceKind(api_version="v1", kind="Endpoints", namespaced=True, parse=parse_endpoints),
        ResourceKind(api_version="v1", kind="Pod", namespaced=True, parse=parse_pod),
        ResourceKind(
            api_version="discovery.k8s.io/v1", kind="EndpointSlice", namespaced=True, parse=parse_slice
        ),
        ResourceKind(
            api_version="cilium.io/v2",
            kind="CiliumLocalRedirectPolicy",
            namespaced=True,
            parse=parse_redirect,
        ),
        *pools,
    )
