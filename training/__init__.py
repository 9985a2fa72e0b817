"""The pipeline's steps, one a file, and the models that it trains."""
