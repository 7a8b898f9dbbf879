"""Kinds of tools: one module per kind, both directions side by side; ``kinds.py`` is the table of them."""
