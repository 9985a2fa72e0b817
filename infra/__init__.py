"""Building blocks: one file, one component. What an environment is made of them stands in `stacks/`."""
