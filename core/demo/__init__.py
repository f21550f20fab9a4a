"""`axoneme demo`: an agent, real workloads, an article's policies, and a table that shows that the kernel enforces them.

    article      what the article says: the workloads, the resources, and what must be allowed or dropped
    place        where a demo lives: its folder, its configuration, its lock, and how all of it goes away again
    traffic      servers and requests in the workloads' namespaces
    verdicts     what became of a request, from its answer and from what the kernel reported
    running      the demo itself, from start to end
    display      tables for people, rows for programs

The article is "Cilium Service Mesh: Building and Operating Sidecarless Service Mesh with eBPF"; its five resources are in
the folder `resources`, unchanged.
"""
