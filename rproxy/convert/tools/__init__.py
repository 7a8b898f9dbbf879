"""Kinds of tools: one module per kind, both directions side by side; the table of the kinds is ``kinds.py``."""
