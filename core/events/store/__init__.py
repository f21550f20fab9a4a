"""Connections and drops on the disk, for questions about hours and days ago, and what is needed to understand them then.

    for stretch in scan(folder, since=time.time_ns() - 3_600_000_000_000):
        stretch.records["daddr"], stretch.names.endpoints, …

The agent writes (`recorder`); everybody who may read the folder reads, with or without an agent (`reader`).

A store is a folder of **segments**, append-only files that are deleted oldest first. A segment is a row of **frames** with
length and checksums (`frames`): what it is made of, then **records** by columns, compressed, and before the first
record that mentions an endpoint, an identity, a rule or a drop reason, a **journal** frame that says what it was. So each segment can
be read alone, and years later. A frame that was torn by a crash, or damaged, is left out, and only it.
"""
