"""The `mlp` command: thin, each sub-command one file."""
