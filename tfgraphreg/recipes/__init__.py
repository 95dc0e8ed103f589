"""Recipes: each composes the rooms below it into one command."""
