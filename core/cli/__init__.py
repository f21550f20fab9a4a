"""The `axoneme` program."""
