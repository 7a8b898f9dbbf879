"""The configuration: its keys, where it comes from, and errors with their place in the file."""
