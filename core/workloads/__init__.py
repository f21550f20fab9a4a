"""Workloads of this node: their network namespaces and addresses, their identities, and who is behind which address."""
