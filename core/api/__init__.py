"""The local API: what the agent answers on its unix socket, and how to ask it."""
