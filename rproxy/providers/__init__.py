"""Data about providers: their profiles, and what their failures mean."""
