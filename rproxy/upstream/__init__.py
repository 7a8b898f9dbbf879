"""The provider's side: one request out, the bytes of its response back."""
