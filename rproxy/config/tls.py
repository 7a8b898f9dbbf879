"""The certificate of the server: the section ``server.tls``."""

from __future__ import annotations

import ssl
from typing import Optional

from ..errors import ConfigError
from ..types import light_dataclass
from . import checks as c
from .checks import REQUIRED, Place

MISMATCH = "KEY_VALUES_MISMATCH"


@light_dataclass(frozen=True)
class Tls:
    """The certificate that clients see, and its key."""

    cert: str = c.key(c.existing_file, REQUIRED, "the certificate and its chain (PEM)")
    key: Optional[str] = c.key(c.existing_file, None, "its key (PEM), if that is in a file of its own")

    def context(self) -> ssl.SSLContext:
        """The TLS context for new connections, from the files as they are now.

        :raises ConfigError: the files cannot be read, or do not fit together
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A client could renegotiate again and again on one connection; OpenSSL 3 forbids it by default.
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.cert, self.key, password=self._no_password)
        except OSError as error:
            raise ConfigError(f"server.tls: {self._reason(error)}") from error
        return context

    def _no_password(self) -> str:
        raise ConfigError(
            f"server.tls: the key in {self.key or self.cert} is encrypted; rproxy cannot ask for its password"
        )

    def _reason(self, error: OSError) -> str:
        if not isinstance(error, ssl.SSLError):
            return f"cannot read {error.filename or self.cert}: {error.strerror}"
        if error.reason == MISMATCH:
            return f"the key in {self.key or self.cert} does not belong to the certificate in {self.cert}"
        return f"there must be a certificate in {self.cert} and a key in {self.key or self.cert}, in PEM form"


def read_tls(place: Place) -> Tls:
    """A section ``server.tls`` whose files fit together."""
    tls = c.section(Tls)(place)
    try:
        tls.context()
    except ConfigError as error:
        raise place.error(str(error).partition(": ")[2]) from None
    return tls
