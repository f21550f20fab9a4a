"""The eBPF half: maps, programs, links, and how they are composed, compiled, loaded and observed."""
