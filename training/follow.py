"""Follows a training job on SageMaker: its status and its log, by SageMaker's Python SDK (the extra `sagemaker`)."""

import logging

from contract.errors import PlatformError


def follow(job: str, poll_s: int = 5) -> str:
    """Show a job's status and log on the screen until it has ended.

    Args:
        job: name of the training job.
        poll_s: seconds between two looks.

    Returns:
        How it ended: Completed or Stopped.

    Raises:
        PlatformError: if the SDK is not installed, there is no such job, or the job fails.
    """
    try:
        import rich
        from botocore.exceptions import ClientError
        from rich.logging import RichHandler
        from sagemaker.core.resources import TrainingJob
        from sagemaker.core.utils.exceptions import FailedStatusError
    except ImportError as error:
        raise PlatformError(
            f"following a job needs SageMaker's Python SDK ({error}): pip install -c constraints.txt -e '.[sagemaker]'"
        ) from None
    rich.reconfigure(stderr=True)  # the SDK draws on the standard output, which is the answer's
    log = logging.getLogger("sagemaker.core.resources")
    log.setLevel(logging.INFO)
    log.handlers = [RichHandler(markup=True, show_level=False, show_path=False)]
    try:
        found = TrainingJob.get(job)
        if found is None:
            raise PlatformError(f"SageMaker tells nothing of a training job {job}")
        found.wait(poll=poll_s, logs=True)
    except ClientError as error:
        raise PlatformError(f"SageMaker cannot tell of the training job {job}: {error}") from None
    except FailedStatusError:
        raise PlatformError(f"the training job {job} failed: {found.failure_reason}") from None
    return str(found.training_job_status)
