"""Services in the shapes of Cilium's API (`api/v1/models`), which scripts read: of the rows that the agent answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

Row = Mapping[str, Any]

#: States that Cilium calls otherwise; it does not know of those that are not ready.
_STATES: Final = {"drained": "maintenance"}


def state(backend: Row) -> str:
    return _STATES.get(backend["state"], str(backend["state"]))


def listed(row: Row) -> Iterator[Row]:
    """The backends that Cilium would list: those in use, and those that keep what they have, or are drained."""
    return (one for one in row["backends"] if _is_listed(one))


def preferences(row: Row) -> Iterator[tuple[Row, str]]:
    """The same with those that others are preferred to, and what `--clustermesh-affinity` says of each."""
    for one in row["backends"]:
        if _is_listed(one) or one["affinity"]:
            yield one, " (preferred)" if one["affinity"] == "preferred" else ""


def _is_listed(one: Row) -> bool:
    return bool(one["used"] or one["state"] in ("terminating", "drained"))


def service(row: Row) -> dict[str, Any]:
    """`Service`: what is asked for, and, if the kernel has it, the same as what there is; and what is wrong with it."""
    spec = _spec(row)
    status: dict[str, Any] = {"realized": spec} if row["id"] else {}
    if row["problems"]:
        status["problems"] = row["problems"]
    return {"spec": spec, "status": status}


def _spec(row: Row) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "backend-addresses": [_backend(one) for one in listed(row)],
        "flags": {
            "extTrafficPolicy": row["external_traffic_policy"],
            "intTrafficPolicy": row["internal_traffic_policy"],
            "name": row["name"],
            "namespace": row["namespace"],
            "trafficPolicy": row["external_traffic_policy"],
            "type": row["type"],
        },
    }
    if row["frontend"]:
        spec["frontend-address"] = {**place(row["frontend"]), "scope": "external"}
    if row["id"]:
        spec["id"] = row["id"]
    return spec


def _backend(one: Row) -> dict[str, Any]:
    known = {"nodeName": one["node"], "zone": one["zone"]}
    return {
        **place(one["address"]),
        **{name: value for name, value in known.items() if value},
        "preferred": one["affinity"] == "preferred",
        "state": state(one),
        "weight": one["weight"],
    }


def place(text: str) -> dict[str, Any]:
    """`10.0.0.1:80/TCP` or `[fd00::1]:80/TCP` in its parts."""
    rest, _, protocol = text.partition("/")
    host, _, port = rest.rpartition(":")
    return {"ip": host.strip("[]"), "port": int(port), "protocol": protocol}
