"""AWS clients, made when they are first needed: loading them takes longer than anything else at a cold start."""

import functools
import os
import threading
from typing import Any

_making = threading.Lock()


def client(service: str) -> Any:
    """A new client of an AWS service, with short patience: whoever calls it tries again anyway."""
    from botocore.config import Config

    config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})
    with _making:  # a session makes one client at a time
        # ECS sets AWS_REGION only, which botocore does not read.
        return _session().create_client(service, region_name=os.environ.get("AWS_REGION"), config=config)


@functools.cache
def _session() -> Any:
    import botocore.session  # all that is needed of boto3, in half the time and memory

    return botocore.session.get_session()
