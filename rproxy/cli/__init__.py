"""The command line: ``main`` is the table of commands, with one module per command."""
