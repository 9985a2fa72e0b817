"""Structured logs: one JSON object a line on standard error, with whatever a caller passes as `extra`."""

import datetime
import json
import logging

_STANDARD = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record, its extra fields and its traceback."""
        line = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logs() -> None:
    """Send the logs of this process, uvicorn's included, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Mangum writes a line per request and botocore one per credential look-up; both say nothing that metrics do not.
    for name in ("mangum", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
