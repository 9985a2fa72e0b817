#!/bin/sh
# Lambda sets AWS_LAMBDA_RUNTIME_API; SageMaker passes the argument `serve`; anywhere else it is a plain web server.
if [ -n "$AWS_LAMBDA_RUNTIME_API" ]; then
    exec python -m awslambdaric services.inference.lambda_handler.handler
fi
exec python -m services.inference --host 0.0.0.0 --port "${PORT:-8080}" "$@"
