"""Certificates for tests, from an authority of their own, as files."""

from __future__ import annotations

import os
from pathlib import Path

import trustme

from axoneme.plugins.hubble.server.config import ServerTls


class Authority:
    """An authority, and what it signed, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "ca.crt"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """The paths of certificate and key; issued again under the same name, they replace the old ones in one step."""
        made = self._ca.issue_cert(*(hosts or ("localhost", "127.0.0.1")), common_name=name)
        paths = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        for path, blobs in zip(paths, (made.cert_chain_pems, [made.private_key_pem]), strict=True):
            fresh = path.with_suffix(path.suffix + ".new")
            fresh.write_bytes(b"".join(blob.bytes() for blob in blobs))
            os.replace(fresh, path)
        return paths

    def server(self, name: str = "server", *hosts: str, clients: bool = False) -> ServerTls:
        certificate, key = self.issue(name, *hosts)
        return ServerTls(certificate=certificate, key=key, client_ca=(self.file,) if clients else ())
