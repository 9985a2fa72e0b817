"""AWS Lambda's entry point: the same application behind Mangum. Loading happens at the cold start, on import."""

import os
from typing import Any, cast

from mangum import Mangum

from services.inference.app import create_app
from services.inference.emf import EmfMetrics
from services.inference.lambda_extension import AfterAnswer
from services.inference.logs import configure_logs

configure_logs()
_metrics = EmfMetrics()
_app = create_app(metrics=_metrics)
_metrics.namespace = _app.settings.metrics_namespace or "ml-platform/inference"
_mangum = Mangum(cast(Any, _app), lifespan="off")  # Mangum's type asks for a coroutine where ASGI asks for an awaitable
_after_answer: AfterAnswer | None = None
if _app.streams:
    if "AWS_LAMBDA_RUNTIME_API" in os.environ:
        _after_answer = AfterAnswer(os.environ["AWS_LAMBDA_RUNTIME_API"], _app.flush)
    else:
        _app.start_streams()
if _app.follower:
    _app.follower.refresh()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one API Gateway event."""
    try:
        if _app.follower:
            _app.follower.refresh_if_due()
        answer: dict[str, Any] = _mangum(event, context)
        return answer
    finally:
        if _after_answer:
            _after_answer.answered()
