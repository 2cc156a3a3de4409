"""TLS of our gRPC connections: one certificate a process, for both directions, read again when its files change."""

import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import structlog

from taskrunner.domain.errors import ConfigurationError
from taskrunner.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Files:
    """Where the certificate is, its key, and the CA of the other side, if that has to show one."""

    cert: Path
    key: Path
    ca: Path | None

    @classmethod
    def of(cls, settings: Settings) -> "Files | None":
        """The files that the settings name; None without TLS."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key, settings.tls_ca)

    def context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        """TLS 1.3 with these files. ``CLIENT_AUTH`` is a server's, ``SERVER_AUTH`` a client's. Raises ConfigurationError."""
        server = purpose is ssl.Purpose.CLIENT_AUTH
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        try:
            self.load_into(context)
            if self.ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
            elif not server:
                context.load_default_certs(purpose)
        except (OSError, ssl.SSLError) as error:
            reason = (error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None) or error
            raise ConfigurationError(f"TASKRUNNER_TLS_CERT, _KEY, _CA ({self}) cannot be used: {reason}") from None
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Give ``context`` what the files hold now. Raises OSError or SSLError."""
        context.load_cert_chain(self.cert, self.key, password=lambda: b"")  # without it a key with a password asks the terminal
        if self.ca is not None:
            context.load_verify_locations(self.ca)

    def stamp(self) -> tuple[int, ...]:
        """What changes with the files."""
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in (self.cert, self.key, self.ca) if path is not None)

    def __str__(self) -> str:
        return ", ".join(str(path) for path in (self.cert, self.key, self.ca) if path is not None)


class Renewed:
    """A server's context, whose certificate is that of the files at each new connection. Raises ConfigurationError when it is made."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._stamp = files.stamp()
        self.context = files.context(ssl.Purpose.CLIENT_AUTH)

    def look(self) -> None:
        """Take new files in. What cannot be read, or does not fit together yet, is left for the next connection."""
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return
        try:
            self._files.context(ssl.Purpose.CLIENT_AUTH)  # a failure must not touch the one in use
            self._files.load_into(self.context)
        except (OSError, ssl.SSLError, ConfigurationError) as error:
            log.warning("the new certificate cannot be used yet: the one before stays", error=str(error))
        else:
            self._stamp = stamp
            log.info("certificate renewed", files=str(self._files))


def verified_name(host: str) -> str:
    """The name that the certificate of a server called ``host`` must hold: for this machine, however it is called, ``localhost``."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host
    return "localhost" if address.is_loopback or address.is_unspecified else str(address)
