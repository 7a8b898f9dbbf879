"""``rproxy doctor``: is everything as it has to be?  Each module looks at one part; nothing is changed."""
