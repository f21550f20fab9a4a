"""The C functions through which stages reach a map, generated from its declaration.

They are typed, so that a stage which passes the wrong key does not compile. The map itself is a token: the loader
puts the open map's file descriptor in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from axoneme.core.datapath.layout import c_type
from axoneme.core.datapath.uapi import MapKind
from axoneme.core.errors import AxonemeError

if TYPE_CHECKING:
    from axoneme.core.datapath.spec import MapSpec

_INLINE = "static inline __attribute__((always_inline))"


def generate(spec: MapSpec, token: int) -> str:
    """The C text. Raises `AxonemeError` for a kind of map that stages cannot reach."""
    writer = _WRITERS.get(spec.kind, _unsupported)
    return writer(spec, f"bpf_pseudo_fd(1, {token})")


def _unsupported(spec: MapSpec, _map: str) -> str:
    raise AxonemeError(f"map {spec.name}: no C accessors for a {spec.kind.name}")


def _types(spec: MapSpec) -> tuple[str, str]:
    assert spec.key is not None
    assert spec.value is not None
    return c_type(spec.key), c_type(spec.value)


def _lookup(spec: MapSpec, map_: str) -> str:
    key, value = _types(spec)
    return f"""{_INLINE} {value} *{spec.name}_lookup(const {key} *key)
{{
	return ({value} *)bpf_map_lookup_elem_({map_}, (void *)key);
}}
"""


def _update(spec: MapSpec, map_: str) -> str:
    key, value = _types(spec)
    return f"""{_INLINE} long {spec.name}_update(const {key} *key, const {value} *value, u64 flags)
{{
	return bpf_map_update_elem_({map_}, (void *)key, (void *)value, flags);
}}
"""


def _delete(spec: MapSpec, map_: str) -> str:
    key, _ = _types(spec)
    return f"""{_INLINE} long {spec.name}_delete(const {key} *key)
{{
	return bpf_map_delete_elem_({map_}, (void *)key);
}}
"""


def _keyed(spec: MapSpec, map_: str) -> str:
    return _lookup(spec, map_) + _update(spec, map_) + _delete(spec, map_)


def _indexed(spec: MapSpec, map_: str) -> str:
    return _lookup(spec, map_) + _update(spec, map_)


def _ring(spec: MapSpec, map_: str) -> str:
    return f"""{_INLINE} void *{spec.name}_reserve(u64 size)
{{
	return bpf_ringbuf_reserve((void *){map_}, size, 0);
}}
{_INLINE} void {spec.name}_submit(void *record, u64 flags)
{{
	bpf_ringbuf_submit(record, flags);
}}
{_INLINE} void {spec.name}_discard(void *record)
{{
	bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
}}
{_INLINE} u64 {spec.name}_query(u64 what)
{{
	return bpf_ringbuf_query((void *){map_}, what);
}}
"""


def _programs(spec: MapSpec, map_: str) -> str:
    return f"""{_INLINE} void {spec.name}_tail_call(void *ctx, u32 index)
{{
	bpf_tail_call_({map_}, ctx, index);
}}
"""


def _sockets(spec: MapSpec, map_: str) -> str:
    key, _ = _types(spec)
    return f"""{_INLINE} struct bpf_sock *{spec.name}_lookup(const {key} *key)
{{
	return (struct bpf_sock *)bpf_map_lookup_elem_({map_}, (void *)key);
}}
"""


def _inner_maps(spec: MapSpec, map_: str) -> str:
    key, _ = _types(spec)
    return f"""{_INLINE} void *{spec.name}_lookup(const {key} *key)
{{
	return bpf_map_lookup_elem_({map_}, (void *)key);
}}
"""


def _redirects(spec: MapSpec, map_: str) -> str:
    key, _ = _types(spec)
    return f"""{_INLINE} long {spec.name}_redirect({key} key, u64 flags)
{{
	return bpf_redirect_map((void *){map_}, key, flags);
}}
"""


def _socket_storage(spec: MapSpec, map_: str) -> str:
    _, value = _types(spec)
    return f"""{_INLINE} {value} *{spec.name}_get(void *sk, {value} *initial, u64 flags)
{{
	return ({value} *)bpf_sk_storage_get((void *){map_}, sk, initial, flags);
}}
{_INLINE} long {spec.name}_delete(void *sk)
{{
	return bpf_sk_storage_delete((void *){map_}, sk);
}}
"""


_WRITERS: dict[MapKind, Callable[[MapSpec, str], str]] = {
    MapKind.HASH: _keyed,
    MapKind.LRU_HASH: _keyed,
    MapKind.PERCPU_HASH: _keyed,
    MapKind.LRU_PERCPU_HASH: _keyed,
    MapKind.LPM_TRIE: _keyed,
    MapKind.ARRAY: _indexed,
    MapKind.PERCPU_ARRAY: _indexed,
    MapKind.RINGBUF: _ring,
    MapKind.PROG_ARRAY: _programs,
    MapKind.SOCKMAP: _sockets,
    MapKind.SOCKHASH: _sockets,
    MapKind.ARRAY_OF_MAPS: _inner_maps,
    MapKind.HASH_OF_MAPS: _inner_maps,
    MapKind.DEVMAP: _redirects,
    MapKind.DEVMAP_HASH: _redirects,
    MapKind.SK_STORAGE: _socket_storage,
}
