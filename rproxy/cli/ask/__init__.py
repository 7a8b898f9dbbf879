"""``rproxy ask``: one question from the command line, its answer on stdout."""
