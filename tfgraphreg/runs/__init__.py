"""Run folders: one writer, one reader."""
