"""What `mlp new` copies: a folder a task, with NAME and DESCRIPTION to be replaced, and sample data to start with."""
