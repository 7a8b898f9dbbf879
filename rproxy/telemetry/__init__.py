"""What happened: the records of turns, attempts and refusals, and where they go.

The service makes a :class:`~rproxy.telemetry.records.TurnRecord` of each turn that has ended, the edges make
a :class:`~rproxy.telemetry.records.RefusalRecord` of each request that never became one.  Records have no
content: no prompt, no answer, no key.  :class:`~rproxy.telemetry.telemetry.Telemetry` hands them to the log,
the metrics and the ledger.  Nothing here runs while an answer streams.
"""
