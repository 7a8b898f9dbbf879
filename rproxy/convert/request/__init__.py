"""From a Responses request to the provider's request."""
