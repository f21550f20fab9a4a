"""The host's routing of what goes to a proxy: everything under the mark is local, wherever it is addressed to.

As `ip rule add pref 9 fwmark 0x200/0xf00 lookup 2004; ip rule add pref 10 fwmark 0x200/0xf00 prohibit; ip route add local
default dev lo table 2004`, for both families. It stays until `axoneme cleanup`: without packets under the mark it says
nothing, and with the agent dead what is on its way to the proxy is still refused by its steering program, rather than
forwarded.
"""

from __future__ import annotations

import errno
import socket
import struct

from axoneme.core.net.messages import NLM_F_CREATE, NLM_F_EXCL, Request
from axoneme.core.net.rtnl import Rtnl

TABLE, PREFERENCE = 2004, 9

_RTM_NEWROUTE, _RTM_NEWRULE = 24, 32
_RTN_LOCAL, _RT_SCOPE_HOST, _RTPROT_STATIC = 2, 254, 4
_FR_ACT_TO_TBL, _FR_ACT_PROHIBIT = 1, 8
_LOOPBACK = 1
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 6, 10, 15, 16
_RTA_OIF, _RTA_TABLE = 4, 15
_FAMILIES = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}


def _number(kind: int, number: int) -> bytes:
    return struct.pack("=HHI", 8, kind, number)


def _rule(version: int, mark: int, mask: int) -> Request:
    return _request(version, mark, mask, PREFERENCE, _FR_ACT_TO_TBL)


def _no_other_way(version: int, mark: int, mask: int) -> Request:
    """What finds nothing in the table, since somebody emptied it, goes nowhere, rather than to where it is addressed to."""
    return _request(version, mark, mask, PREFERENCE + 1, _FR_ACT_PROHIBIT)


def _request(version: int, mark: int, mask: int, preference: int, action: int) -> Request:
    """linux/fib_rules.h: struct fib_rule_hdr and its attributes."""
    head = struct.pack("=BBBBBBBBI", _FAMILIES[version], 0, 0, 0, 0, 0, 0, action, 0)
    pairs = [(_FRA_PRIORITY, preference), (_FRA_FWMARK, mark), (_FRA_FWMASK, mask)]
    pairs += [(_FRA_TABLE, TABLE)] if action == _FR_ACT_TO_TBL else []
    body = head + b"".join(_number(*pair) for pair in pairs)
    return Request(
        _RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, body, f"add rule for mark {mark:#x} (IPv{version})"
    )


def _route(version: int) -> Request:
    """linux/rtnetlink.h: struct rtmsg and its attributes."""
    head = struct.pack(
        "=BBBBBBBBI", _FAMILIES[version], 0, 0, 0, 0, _RTPROT_STATIC, _RT_SCOPE_HOST, _RTN_LOCAL, 0
    )
    body = head + _number(_RTA_OIF, _LOOPBACK) + _number(_RTA_TABLE, TABLE)
    return Request(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"add local route in table {TABLE}")


def _all(mark: int, mask: int, versions: tuple[int, ...]) -> list[Request]:
    """In the order in which they are made: at no moment a packet under the mark goes astray."""
    made = []
    for version in versions:
        made += [_no_other_way(version, mark, mask), _route(version), _rule(version, mark, mask)]
    return made


def ensure(mark: int, mask: int, versions: tuple[int, ...] = (4, 6)) -> None:
    """Makes what is missing. Raises `RtnlError`."""
    _apply(_all(mark, mask, versions), errno.EEXIST)


def remove(mark: int, mask: int, versions: tuple[int, ...] = (4, 6)) -> None:
    """Takes it away; nothing happens where it is not."""
    made = reversed(_all(mark, mask, versions))
    gone = [Request(one.type + 1, 0, one.body, one.what.replace("add", "delete", 1)) for one in made]
    _apply(gone, errno.ENOENT, errno.ESRCH)


def _apply(requests: list[Request], *accepted: int) -> None:
    with Rtnl() as rtnl:
        _, errors = rtnl.attempt(requests)
    for error in errors:
        if error is not None and error.errno not in accepted:
            raise error
