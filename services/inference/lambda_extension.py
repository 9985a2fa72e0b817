"""Work after the answer on AWS Lambda, which freezes a function as soon as it has answered.

An internal extension is a thread that Lambda waits for: the client has its answer, and only when the thread asks for
the next event does the freeze come. The captured lines are sent in between.
"""

import http.client
import json
import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

_API = "/2020-01-01/extension"
_LONGEST_ANSWER_S = 30.0  # API Gateway has given up by then


class AfterAnswer:
    """Does `work` after each answer.

    Args:
        runtime_api: host and port that the variable AWS_LAMBDA_RUNTIME_API names.
        work: what to do; whatever it raises is logged.
    """

    def __init__(self, runtime_api: str, work: Callable[[], None]) -> None:
        self._runtime_api = runtime_api
        self._work = work
        self._answered = threading.Event()
        self._id = self._register()
        threading.Thread(target=self._follow, name="extension", daemon=True).start()

    def answered(self) -> None:
        """Say that the handler has finished with an event."""
        self._answered.set()

    def _register(self) -> str:
        headers = {"Lambda-Extension-Name": "ml-platform-capture", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self._runtime_api, timeout=10)
        connection.request("POST", f"{_API}/register", json.dumps({"events": ["INVOKE"]}), headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if not (identifier := answer.headers["Lambda-Extension-Identifier"]):
            raise RuntimeError(f"Lambda refuses the extension that sends captured lines: status {answer.status}")
        return identifier

    def _follow(self) -> None:
        connection = http.client.HTTPConnection(self._runtime_api)  # no timeout: the next event may be hours away
        while True:
            connection.request("GET", f"{_API}/event/next", headers={"Lambda-Extension-Identifier": self._id})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                logger.error("Lambda gives the extension no events any more", extra={"status": answer.status})
                return
            self._answered.wait(_LONGEST_ANSWER_S)
            self._answered.clear()
            try:
                self._work()
            except Exception:
                logger.exception("the work after an answer failed")
