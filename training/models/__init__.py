"""One folder a model: its manifest, its network and features, a sample request."""
