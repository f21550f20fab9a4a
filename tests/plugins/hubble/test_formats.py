"""The texts and the JSON of the real `hubble` command, line by line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from axoneme.plugins.hubble import formats, jsonpb
from axoneme.plugins.hubble.cli import texts
from axoneme.plugins.hubble.formats import Look
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2

FRONTEND = {"identity": 12345, "namespace": "shop", "pod_name": "frontend-5d8c7-abcde"}
API = {"identity": 23456, "namespace": "shop", "pod_name": "api-0"}
WORLD = {"identity": 2, "labels": ["reserved:world"]}
IP = {"source": "10.0.0.10", "destination": "10.0.0.20", "ipVersion": "IPv4"}


def answer(**fields: Any) -> observer_pb2.GetFlowsResponse:
    """An answer with a flow of these fields, or what else they say."""
    value = fields if {"node_status", "lost_events"} & fields.keys() else {"flow": fields}
    return json_format.ParseDict(value, observer_pb2.GetFlowsResponse())


SYN = answer(
    time="2025-01-01T00:00:00.123Z", verdict="FORWARDED", IP=IP, source=FRONTEND, destination=API, Type="L3_L4",
    l4={"TCP": {"source_port": 43210, "destination_port": 8080}}, event_type={"type": 4, "sub_type": 3},
    is_reply=False, Summary="TCP Flags: SYN",
)  # fmt: skip
VERDICT = answer(
    IP={"source": "1.1.1.1", "destination": "fe80::1"}, verdict="REDIRECTED", source={"identity": 16777217},
    destination={"identity": 7}, event_type={"type": 5}, is_reply=False, traffic_direction="EGRESS", auth_type="SPIRE",
    l4={"TCP": {"source_port": 1, "destination_port": 2}}, policy_match_type=2, Summary="TCP Flags: SYN",
    egress_allowed_by=[{"name": "p1", "kind": "CiliumNetworkPolicy"}, {"name": "p2", "kind": "NetworkPolicy"},
                       {"name": "without a kind"}],
)  # fmt: skip
COMPACT = [
    (
        SYN,
        "Jan  1 00:00:00.123: shop/frontend-5d8c7-abcde:43210 (ID:12345) -> shop/api-0:8080 (ID:23456) to-stack FORWARDED "
        "(TCP Flags: SYN)",
    ),
    (
        answer(
            time="2025-01-01T00:00:01Z", verdict="DROPPED", IP=IP, source=FRONTEND, destination=WORLD, Summary="UDP",
            l4={"UDP": {"source_port": 40000, "destination_port": 53}}, event_type={"type": 1, "sub_type": 133},
            destination_names=["example.com"], drop_reason_desc="POLICY_DENIED",
        ),
        "Jan  1 00:00:01.000: shop/frontend-5d8c7-abcde:40000 (ID:12345) <> example.com:53 (world) Policy denied DROPPED "
        "(UDP)",
    ),
    (
        answer(
            time="2025-01-01T00:00:02.005Z", verdict="FORWARDED", IP=IP, source=API, destination=FRONTEND, Type="L7",
            l4={"TCP": {"source_port": 8080, "destination_port": 43210}}, event_type={"type": 129}, is_reply=True,
            l7={"type": "RESPONSE", "latency_ns": 2000000, "http": {"code": 200, "method": "GET"}},
            Summary="HTTP/1.1 200 2ms (GET http://api/items?id=1)",
        ),
        "Jan  1 00:00:02.005: shop/frontend-5d8c7-abcde:43210 (ID:12345) <- shop/api-0:8080 (ID:23456) http-response FORWARDED "
        "(HTTP/1.1 200 2ms (GET http://api/items?id=1))",
    ),
    (
        VERDICT,
        "N/A: 1.1.1.1:1 (ID:16777217) -> [fe80::1]:2 (kube-apiserver) policy-verdict:L3-L4 EGRESS ALLOWED BY p1 "
        "(CiliumNetworkPolicy), p2 (NetworkPolicy) (TCP Flags: SYN; Auth: SPIRE)",
    ),
    (
        answer(
            time="2025-01-01T00:00:00Z", verdict="DROPPED", event_type={"type": 1, "sub_type": 166}, Summary="Ethernet",
            ethernet={"source": "aa:bb:cc:dd:ee:ff", "destination": "ff:ff:ff:ff:ff:ff"},
        ),
        "Jan  1 00:00:00.000: aa:bb:cc:dd:ee:ff (unknown) <> ff:ff:ff:ff:ff:ff (unknown) Unsupported L2 protocol DROPPED "
        "(Ethernet)",
    ),
    (
        answer(
            time="2025-01-01T00:00:00Z", verdict="TRACED", event_type={"type": 7, "sub_type": 1}, Type="SOCK", Summary="UDP",
            IP={"source": "10.0.0.1", "destination": "10.0.0.2"}, l4={"UDP": {"destination_port": 53}},
            destination_service={"name": "kube-dns", "namespace": "kube-system"},
            sock_xlate_point="SOCK_XLATE_POINT_PRE_DIRECTION_FWD",
        ),
        "Jan  1 00:00:00.000: 10.0.0.1 (unknown) <> kube-system/kube-dns:53 (unknown) pre-xlate-fwd TRACED (UDP)",
    ),
    (
        answer(
            time="2025-01-01T00:00:00Z", verdict="FORWARDED", event_type={"type": 129}, Type="L7", is_reply=True,
            IP={"source": "10.0.0.1", "destination": "10.0.0.2"},
            l4={"UDP": {"source_port": 53, "destination_port": 4000}},
            l7={"type": "RESPONSE", "dns": {"query": "a.com.", "observation_source": "proxy"}},
            Summary='DNS Answer "1.2.3.4" TTL: 30 (Proxy a.com. A)',
        ),
        "Jan  1 00:00:00.000: 10.0.0.2:4000 (unknown) <- 10.0.0.1:53 (unknown) dns-response proxy FORWARDED "
        '(DNS Answer "1.2.3.4" TTL: 30 (Proxy a.com. A))',
    ),
    (answer(lost_events={"source": "HUBBLE_RING_BUFFER", "num_events_lost": 1}), "EVENTS LOST: HUBBLE_RING_BUFFER CPU(0) 1"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "line"), COMPACT)
def test_compact(given: observer_pb2.GetFlowsResponse, line: str) -> None:
    assert formats.compact(given, Look(policy_names=True)) == line


def test_compact_in_other_ways() -> None:
    plain = answer(
        IP=IP,
        source=FRONTEND,
        destination=API,
        node_name="c/n",
        event_type={"type": 9},
        time="2025-01-01T00:00:00Z",
    )
    assert formats.compact(plain, Look(translate=False, node_name=True, time_format="RFC3339Nano")) == (
        "2025-01-01T00:00:00Z [c/n]: 10.0.0.10 (ID:12345) <> 10.0.0.20 (ID:23456) UNKNOWN VERDICT_UNKNOWN ()"
    )
    assert formats.verdict(VERDICT.flow, Look()) == "ALLOWED"
    assert formats.compact(SYN, Look(colored=True)).startswith(
        "Jan  1 00:00:00.123: \x1b[36mshop/frontend-5d8c7-abcde:\x1b[33m43210\x1b[0m\x1b[0m \x1b[35m(ID:12345)\x1b[0m -> "
    )


def test_nothing_from_the_network_reaches_the_terminal_as_a_command() -> None:
    evil = answer(IP=IP, Summary="a\x1b]0;title\x07b\nfaked: line\x9b31m", source_names=["x\r\x1b[2J"])
    line = formats.compact(evil, Look())
    assert "a^[]0;title^Gb^Jfaked: line^\xdb31m" in line
    assert "x^M^[[2J (unknown)" in line


def test_dictionary_and_table() -> None:
    assert formats.dictionary(formats.pairs(SYN, Look())) == (
        "  TIMESTAMP: Jan  1 00:00:00.123\n"
        "     SOURCE: shop/frontend-5d8c7-abcde:43210\n"
        "DESTINATION: shop/api-0:8080\n"
        "       TYPE: to-stack\n"
        "    VERDICT: FORWARDED\n"
        "    SUMMARY: TCP Flags: SYN\n"
    )
    look = Look(node_name=True)
    lost = answer(lost_events={"source": "PERF_EVENT_RING_BUFFER", "num_events_lost": 5, "cpu": 1})
    assert texts.table(
        [formats.header(look), formats.row(SYN, look), formats.row(lost, look)]
    ).splitlines() == [
        "TIMESTAMP             NODE   SOURCE                            DESTINATION       TYPE          VERDICT     SUMMARY",
        "Jan  1 00:00:00.123          shop/frontend-5d8c7-abcde:43210   shop/api-0:8080   to-stack      FORWARDED   TCP Flags: SYN",
        "N/A                   -      PERF_EVENT_RING_BUFFER            -                 EVENTS LOST   -           CPU(1) - 5",
    ]


def test_node_status() -> None:
    def status(state: str, *names: str, message: str = "") -> str:
        event = answer(node_status={"state_change": state, "node_names": names, "message": message})
        event.node_name = "relay-host"
        event.time.FromJsonString("2025-01-01T00:00:00Z")
        return formats.node_status(event, Look())

    prefix = "Jan  1 00:00:00.000 [relay-host]: "
    assert status("NODE_UNAVAILABLE", "k8s3") == f"{prefix}1 nodes are unavailable: k8s3"
    assert status("NODE_ERROR", "k8s4", message="boom") == f'{prefix}Error "boom" on 1 nodes: k8s4'
    assert status("NODE_CONNECTED", "k8s1", "k8s2") == f"{prefix}Receiving flows from 2 nodes: k8s1, k8s2"
    many = status("NODE_CONNECTED", *[f"node-{number:010}" for number in range(9)])
    assert many == f"{prefix}Receiving flows from 9 nodes: node-0000000000, node-0000000001 (and 7 more)"


DROPPED = (
    '{"flow":{"time":"2025-01-01T00:00:01Z","uuid":"5b8c5a6e-0000-4000-8000-000000000002","verdict":"DROPPED",'
    '"drop_reason":133,"IP":{"source":"10.0.0.10","destination":"93.184.216.34","ipVersion":"IPv4"},'
    '"l4":{"UDP":{"source_port":40000,"destination_port":53}},"source":{"ID":100,"identity":12345,"namespace":"shop",'
    '"labels":["k8s:app=frontend"],"pod_name":"frontend-5d8c7-abcde"},"destination":{"identity":2,'
    '"labels":["reserved:world"]},"Type":"L3_L4","node_name":"k8s1","destination_names":["example.com"],'
    '"event_type":{"type":1,"sub_type":133},"traffic_direction":"EGRESS","file":{"name":"bpf_lxc.c","line":1234},'
    '"drop_reason_desc":"POLICY_DENIED","Summary":"UDP"},"node_name":"k8s1","time":"2025-01-01T00:00:01Z"}'
)
LINES = [
    DROPPED,
    '{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"1"},"node_name":"k8s1","time":"2025-01-01T00:00:03Z"}',
    '{"node_status":{"state_change":"NODE_UNAVAILABLE","node_names":["k8s3"]},"node_name":"relay-host",'
    '"time":"2025-01-01T00:00:00Z"}',
    '{"flow":{"l7":{"type":"REQUEST","latency_ns":"5","http":{"code":7,"url":"/?a=1\\u0026b=\\u003cx\\u003e","headers":'
    '[{"key":"a","value":"\\u2028"}]}},"is_reply":false,"socket_cookie":"18446744073709551615"}}',
    '{"lost_events":{"num_events_lost":"7","cpu":3}}',
]


@pytest.mark.parametrize("line", LINES)
def test_json_is_that_of_the_real_command(line: str) -> None:
    message = json_format.Parse(line, observer_pb2.GetFlowsResponse())
    assert jsonpb.text(message) == line


def test_json_of_what_has_no_name_or_no_type() -> None:
    flow = flow_pb2.Flow(verdict=99, Summary='"\t\x01ü')  # type: ignore[arg-type]
    flow.extensions.type_url = "type.example/unknown.Type"
    flow.extensions.value = b"x"
    assert jsonpb.text(flow) == (
        '{"verdict":99,"Summary":"\\"\\t\\u0001ü","extensions":{"@type":"type.example/unknown.Type"}}'
    )
    flow.extensions.Pack(flow_pb2.Emitter(name="a<b"))
    assert json.loads(jsonpb.text(flow))["extensions"] == {
        "@type": "type.googleapis.com/flow.Emitter",
        "name": "a<b",
    }
    request = observer_pb2.GetFlowsRequest(number=3)
    request.field_mask.paths.extend(["IP", "source.pod_name"])
    assert jsonpb.text(request) == '{"number":"3","field_mask":"IP,source.pod_name"}'


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("StampMilli", "Jan  2 03:04:05.006"), ("YearMonthDay", "2025-01-02"), ("YearMonthDayHour", "2025-01-02T03Z"),
        ("YearMonthDayHourMinute", "2025-01-02T03:04Z"), ("RFC3339", "2025-01-02T03:04:05Z"),
        ("RFC3339Milli", "2025-01-02T03:04:05.006Z"), ("RFC3339Micro", "2025-01-02T03:04:05.00678Z"),
        ("RFC3339Nano", "2025-01-02T03:04:05.006780009Z"), ("RFC1123Z", "Thu, 02 Jan 2025 03:04:05 +0000"),
    ],
)  # fmt: skip
def test_times(name: str, shown: str) -> None:
    assert (
        formats.time_text(answer(time="2025-01-02T03:04:05.006780009Z").flow, Look(time_format=name)) == shown
    )


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [(0, "0s"), (7, "7ns"), (1500, "1.5µs"), (2_000_000, "2ms"), (1_500_000_000, "1.5s"), (3_661_000_000_000, "1h1m1s"),
     (3_600_000_000_000, "1h0m0s"), (60_000_000_000, "1m0s"), (400_000_000_000_000, "111h6m40s")],
)  # fmt: skip
def test_durations_as_go_prints_them(nanoseconds: int, shown: str) -> None:
    assert texts.go_duration(nanoseconds) == shown


def test_status() -> None:
    message = observer_pb2.ServerStatusResponse(
        num_flows=3, max_flows=4095, seen_flows=1234567, uptime_ns=3661 * 10**9, version="hubble-relay v1", flows_rate=12.34,
        unavailable_nodes=["k8s3"],
    )  # fmt: skip
    message.num_connected_nodes.value, message.num_unavailable_nodes.value = 2, 1
    assert texts.status(message, "compact") == (
        "Current/Max Flows: 3/4,095 (0.07%)\nFlows/s: 12.34\nConnected Nodes: 2/3\nUnavailable Nodes: 1\n  - k8s3\n"
    )
    node = observer_pb2.ServerStatusResponse(
        num_flows=3,
        max_flows=4095,
        seen_flows=1234567,
        uptime_ns=3661 * 10**9,
        version="cilium v1.18.0",
        flows_rate=12.34,
    )
    assert texts.status(node, "json") == (
        '{"num_flows":"3","max_flows":"4095","seen_flows":"1234567","uptime_ns":"3661000000000","version":"cilium v1.18.0",'
        '"flows_rate":12.34}\n'
    )
    assert texts.status(node, "dict").splitlines()[-4:] == [
        "             UPTIME: 1h1m1s",
        "NUM CONNECTED NODES: N/A",
        " NUM UNAVAIL. NODES: N/A",
        "            VERSION: cilium v1.18.0",
    ]
