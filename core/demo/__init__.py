"""`axoneme demo`: an agent, real workloads, an article's policies, and a table that shows that the kernel enforces them.

    article      what the article says: the workloads, the resources, and what must be allowed or dropped
    services     the services by which they call each other and the world, and who has to answer how often
    machine      namespaces that play the node and a host outside; the real machine is not touched
    place        the demo's folder, its configuration, its lock, and how all of it goes away again
    plan         which requests are sent, from where to which address
    traffic      servers and requests in network namespaces
    verdicts     what became of a request, from its answer and from what the kernel reported
    tallies      who answered for a service, how often
    observed     what Hubble saw of it
    running      the demo itself, from start to end
    rows         what the tables say; `display` shows them to people, `report` is for programs, `advice` says what is next
    page         a door from the machine to Hubble's page

The article is "Cilium Service Mesh: Building and Operating Sidecarless Service Mesh with eBPF"; its five resources are in
the folder `resources`, unchanged; `services.yaml` beside them is ours.
"""
