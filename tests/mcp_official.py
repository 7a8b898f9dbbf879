"""A server made with the official package ``mcp`` of either era: TRANSPORT PORT OPTIONS as JSON.

Run by the Python that has the package; it knows nothing of rproxy and of the tests.
"""

import json
import sys


def build(port, options):
    """The server, and how it is run."""
    try:
        from mcp.server.mcpserver import Context, Image, MCPServer
    except ImportError:
        from mcp.server.fastmcp import Context, FastMCP, Image

        server = FastMCP("official", port=port, log_level="ERROR", **options)
        settings = {}
    else:
        server = MCPServer("official", log_level="ERROR")
        settings = {"port": port, **options}

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise ValueError("out of luck")

    @server.tool()
    def picture() -> Image:
        """A picture."""
        return Image(data=b"\x89PNG", format="png")

    @server.tool()
    async def slow(ctx: Context) -> str:
        """Takes a moment, and says so."""
        for n in range(3):
            await ctx.report_progress(n, 3)
            await ctx.info("still here")
        return "done"

    return server, settings


def main():
    transport, port = sys.argv[1], int(sys.argv[2])
    server, settings = build(port, json.loads(sys.argv[3]))
    if transport == "stdio":
        server.run()
    else:
        server.run(transport, **settings)


if __name__ == "__main__":
    main()
