"""The microkernel: lifecycle, eBPF loading, state. It knows no feature by name."""
