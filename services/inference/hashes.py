"""The hashes that stand for sensitive features, and their key: it is in no file and no variable, only in memory."""

import hashlib
import hmac
import logging
import threading

from services.inference.aws import client

logger = logging.getLogger(__name__)

_MESSAGE = b"ml-platform: hashes of sensitive features"
_RETRY_S = 30.0


class HashKey:
    """A secret that KMS derives from a key that never leaves it: the same for whoever may ask, and told to nobody else.

    If KMS does not answer, it is asked again in the background, and until then there are no hashes: predictions go on,
    and captures leave the values out.
    """

    def __init__(self, kms_key: str | None) -> None:
        self._kms_key = kms_key
        self._secret = b""

    def fetch(self) -> None:
        """Get the secret, now or later."""
        if self._kms_key and not self._derive():
            threading.Thread(target=self._keep_trying, name="hash key", daemon=True).start()

    def hash(self, model: str, column: str, value: object) -> str | None:
        """HMAC-SHA256 of `<model>/<column>/<value>`, or None without the secret: few values could be tried out."""
        if not self._secret:
            return None
        return hmac.new(self._secret, f"{model}/{column}/{value}".encode(), hashlib.sha256).hexdigest()

    def _keep_trying(self) -> None:
        wake = threading.Event()
        while not wake.wait(_RETRY_S) and not self._derive():
            pass

    def _derive(self) -> bool:
        try:
            answer = client("kms").generate_mac(KeyId=self._kms_key, MacAlgorithm="HMAC_SHA_256", Message=_MESSAGE)
        except Exception as error:  # whatever boto3 raises, there is no secret
            logger.error("sensitive features are not hashed but left out", extra={"reason": str(error)})
            return False
        self._secret = answer["Mac"]
        return True
