"""A client of MCP servers: the Model Context Protocol of both eras, over HTTP and over pipes.

:mod:`.protocol` and :mod:`.messages` are the protocol without input and output: generators that yield what is
to be sent and are sent what has arrived.  :mod:`.connection` runs them, :mod:`.http` and :mod:`.process` are
the ways to a server, and :mod:`.servers` is what the rest of rproxy uses.
"""
