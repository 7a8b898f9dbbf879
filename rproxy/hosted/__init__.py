"""Tools that rproxy runs itself; nothing of it is imported while none is configured."""
