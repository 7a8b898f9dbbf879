"""The scripted provider behind ``--demo``."""
