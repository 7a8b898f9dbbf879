"""The scripted provider behind ``rproxy demo``."""
