"""Provider bytes to deltas: one reader per wire, and what both share."""
