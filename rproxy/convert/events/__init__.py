"""Deltas to Responses events: the converter, the kinds of items, the response object."""
