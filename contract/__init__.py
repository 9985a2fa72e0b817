"""What the infrastructure and the code that runs on it agree on: manifests, settings, names.

Nothing in this package imports Pulumi, torch or FastAPI, so that both sides can import it.
"""
