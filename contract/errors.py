"""The one error that a user is meant to read."""


class PlatformError(Exception):
    """Something the user can mend: the message names what was given, what is allowed and where to change it.

    The `mlp` command prints it as one message, without a traceback, and exits with status 1.
    """


def is_from_aws(error: Exception) -> bool:
    """Whether boto3 or botocore raised it: their errors have no common class, and to import them takes long."""
    return type(error).__module__.startswith(("botocore.", "boto3."))
