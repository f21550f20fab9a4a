"""The version of the installed package."""

from __future__ import annotations


def version() -> str:
    """As the package's metadata says; `unknown` when it runs from a folder that was never installed."""
    from importlib import metadata

    try:
        return metadata.version("axoneme")
    except metadata.PackageNotFoundError:
        return "unknown"
