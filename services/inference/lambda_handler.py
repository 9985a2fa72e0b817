"""AWS Lambda's entry point: the same application behind Mangum. Loading happens at the cold start, on import."""

from typing import Any, cast

from mangum import Mangum

from services.inference.app import create_app
from services.inference.logs import configure_logs

configure_logs()
_app = create_app()
_mangum = Mangum(cast(Any, _app), lifespan="off")  # Mangum's type asks for a coroutine where ASGI asks for an awaitable
if _app.follower:
    _app.follower.refresh()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one API Gateway event."""
    if _app.follower:
        _app.follower.refresh_if_due()
    answer: dict[str, Any] = _mangum(event, context)
    return answer
