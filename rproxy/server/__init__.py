"""The client's side: HTTP and WebSocket handlers. They move bytes and know no field names."""
