"""What the rule ids in verdicts and events stand for. Plugins that decide write the rows; everybody may read them."""

from __future__ import annotations

from attrs import frozen

from axoneme.core.records import TableSpec


@frozen(kw_only=True)
class Rule:
    """Everything that is to be shown for a rule id.

    :param id: 32 bits, never 0; the same after a restart.
    :param kind: of the resource that the rule stands in, with its namespace and name; empty for none.
    :param path: `spec.ingress[0]`, or a word such as `default-deny` for what no written rule says.
    :param index: position in the direction's list, -1 for what no written rule says.
    :param effect: `allow`, `deny`, or the word of `path`.
    :param text: the rule as canonical JSON, or the reason in words.
    :param retired: the rule no longer exists; it stays for events that speak of it.
    """

    id: int
    kind: str
    namespace: str
    name: str
    direction: str
    path: str
    index: int
    effect: str
    text: str
    file: str = ""
    line: int = 0
    retired: bool = False

    def describe(self) -> str:
        """One line for people: the policy, the place in it, and the place in the file."""
        owner = f"{self.namespace}/{self.name}" if self.namespace else self.name
        place = f" ({self.file}:{self.line})" if self.file and self.line else ""
        return f"{owner} {self.path}{place}" if owner else f"{self.effect}: {self.text}"


RULES = TableSpec(
    name="rules",
    row=Rule,
    key="id",
    indexes=("kind", "namespace", "name", "retired"),
    doc="what the rule ids in verdicts and events stand for",
)


@frozen(kw_only=True)
class L7Rules:
    """What a proxy has to enforce on connections whose entry has this number (`egress_l7`, `ingress_l7`).

    :param kind: `http`, `dns`, `kafka`, `tls`, `crd` (a listener by name) or another parser's name.
    :param rules: canonical JSON, one text per rule, any of which lets a request through.
    :param wildcard: everything passes, through the proxy all the same.
    :param listener: its qualified name, for `crd`.
    :param context: canonical JSON of TLS contexts and server names.
    """

    number: int
    kind: str
    rules: tuple[str, ...] = ()
    wildcard: bool = False
    listener: str = ""
    context: tuple[str, ...] = ()


L7_RULES = TableSpec(
    name="l7_rules",
    row=L7Rules,
    key="number",
    indexes=("kind",),
    doc="what proxies have to enforce, by number",
)
