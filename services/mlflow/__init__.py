"""Experiment tracking where SageMaker offers none: MLflow's own server, as a container."""
