"""The recipes: the one room that composes all others."""
