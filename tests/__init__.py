"""The tests. A package, so that no `tests` of a library is found in its place."""
