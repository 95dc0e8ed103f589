"""Pictures of what was learned, and search by picture."""
