"""A gRPC client as each of ours is: with limits, and TLS where the settings say so."""

import ssl

from grpclib.client import Channel, Handler
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.protocol import H2Protocol

from taskrunner.settings import Settings
from taskrunner.wire.limits import CappedProtocol
from taskrunner.wire.tls import Files, verified_name


class _Channel(Channel):
    def _protocol_factory(self) -> H2Protocol:
        return CappedProtocol(Handler(), self._config, self._h2_config)


def open_channel(host: str, port: int, settings: Settings, *, name: str | None = None, codec: CodecBase | None = None) -> Channel:
    """A channel to that address, to be closed by whoever uses it. ``name`` is what its certificate must be for, where that is not ``host``.

    Certificates are read anew each time. Raises ConfigurationError for files that cannot be used.
    """
    files = Files.of(settings)
    context = None if files is None else files.context(ssl.Purpose.SERVER_AUTH)
    config = Configuration(ssl_target_name_override=verified_name(name or host))
    return _Channel(host, port, codec=codec, ssl=context, config=config)
