"""The commands under `axoneme hubble` that ask a Hubble server."""
