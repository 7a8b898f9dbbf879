"""A Responses request to the request that the provider gets."""
