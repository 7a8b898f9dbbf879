"""Tools that rproxy runs itself; nothing here is imported unless one is configured."""
