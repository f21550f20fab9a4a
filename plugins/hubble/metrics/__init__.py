"""Metrics of flows, under Cilium's names: handlers with context options, fed in bulk, served on a port of their own."""
