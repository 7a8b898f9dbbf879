"""The client's side: HTTP and WebSocket handlers. They move bytes and know no field names."""

from .. import upstream  # noqa: F401 -- before Tornado, which it loads in its way
