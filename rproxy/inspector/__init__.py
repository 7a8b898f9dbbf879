"""The inspector: a page that shows the turns of this process, and the JSON behind it.

It reads what :mod:`rproxy.telemetry` has and changes nothing.  :mod:`rproxy.server.inspector` has the routes;
``page.html`` is the whole page, and :mod:`.page` says what a browser may do with it.
"""
