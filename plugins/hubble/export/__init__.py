"""Flows that leave the node by themselves: into files, and to OpenTelemetry collectors."""
