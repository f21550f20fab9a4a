"""BTF (Documentation/bpf/btf.rst), as little as the kernel insists on: of a map of socket storage, a key and a value of some size.

What the bytes mean is in the map's declaration and needs no second description.
"""

from __future__ import annotations

import struct
from typing import Final

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("=HBBIIIII")
_TYPE: Final = struct.Struct("=III")
_INT, _STRUCT = 1, 4
_SIGNED: Final = 1 << 24
_STRINGS: Final = b"\0key\0value\0"

#: Numbers of the types in `of_map`.
KEY: Final = 1
VALUE: Final = 2


def of_map(value_size: int) -> bytes:
    """Type 1 is the key, an `int`; type 2 the value, a struct of this size without members."""
    types = _TYPE.pack(_STRINGS.index(b"key"), _INT << 24, 4) + struct.pack("=I", _SIGNED | 32)
    types += _TYPE.pack(_STRINGS.index(b"value"), _STRUCT << 24, value_size)
    header = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types), len(_STRINGS))
    return header + types + _STRINGS
