"""Work on parts of a dataset that need not fit in memory: features, neighbors, records.

Each part of the work is a pure function of files and row numbers, which knows no engine. An
`Engine` calls them, in this process or on the workers of a cluster.
"""
