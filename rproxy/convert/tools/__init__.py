"""Kinds of tools: one module per kind, both directions side by side; ``kinds.py`` has their table."""
