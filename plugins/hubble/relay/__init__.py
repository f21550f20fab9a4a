"""The relay: one Hubble endpoint over many nodes, in a process of its own that needs no agent."""
