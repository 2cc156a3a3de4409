"""Certificates as an operator has them: files of a CA, of a process, and of strangers."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from taskrunner.settings import Settings

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Office:
    """A CA, and what it hands out."""

    folder: Path
    ca: trustme.CA

    @classmethod
    def opened(cls, folder: Path) -> "Office":
        folder.mkdir(exist_ok=True)
        ca = trustme.CA()
        ca.cert_pem.write_to_path(folder / "ca.pem")
        return cls(folder, ca)

    def issue(self, name: str, *names: str, expired: bool = False) -> tuple[Path, Path]:
        """The certificate ``name`` for ``names``, and its key."""
        begin, end = (LONG_AGO, LONG_AGO + dt.timedelta(days=1)) if expired else (None, None)
        leaf = self.ca.issue_cert(*(names or ("localhost",)), not_before=begin, not_after=end)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        leaf.private_key_pem.write_to_path(key)
        cert.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
        return cert, key

    def settings(self, name: str, *names: str, expired: bool = False, ca: bool = True, **more: Any) -> Settings:
        """Settings of a process with such a certificate, on ports of its own."""
        cert, key = self.issue(name, *names, expired=expired)
        trusted = self.folder / "ca.pem" if ca else None
        return Settings(**{"tls_cert": cert, "tls_key": key, "tls_ca": trusted, "worker_port": 0, "scheduler_port": 0, **more})
