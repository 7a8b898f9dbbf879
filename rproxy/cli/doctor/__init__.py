"""``rproxy doctor``: is anything wrong?  Each module looks at one part; nothing is changed."""
