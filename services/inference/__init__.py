"""The inference service: one ASGI application for uvicorn, AWS Lambda and SageMaker endpoints."""
