"""Which versions are live: what each model serves now, and the follower that keeps this true to its SSM parameter."""

import hashlib
import json
import logging
import os
import threading
import time
from functools import cached_property
from typing import Any

from contract.errors import PlatformError
from contract.service import LiveVersion, LiveVersions, ServiceSettings
from contract.strict import parse
from services.inference.artifacts import Version, load_archive
from services.inference.metrics import Metrics

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 300.0


class Model:
    """One model: its loaded versions and their shares of the traffic.

    The follower's thread replaces the attributes as wholes and never changes them in place, so a request reads a
    consistent picture without a lock, and keeps the version that it has begun with.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[str, Version] = {}
        self.shares: tuple[tuple[Version, int], ...] = ()
        self.problems: dict[str, str] = {"start": "its live versions have not been read yet"}

    @property
    def is_ready(self) -> bool:
        """Whether a version takes traffic."""
        return bool(self.shares)

    @property
    def why(self) -> str:
        """What is wrong, in words."""
        return "; ".join(self.problems.values())

    def choose(self, key: str) -> Version:
        """The version for a request: the same key gets the same version for as long as the shares stay as they are.

        With shares s1, s2, ... in the order of their parameter, the first 4 bytes of the SHA-256 of `<model>/<key>`,
        as a big-endian fraction of 2**32, times the sum of the shares, say on whose stretch the request falls. The
        model's name is in the hash so that experiments on two models are independent.
        """
        shares = self.shares
        if len(shares) > 1:
            digest = hashlib.sha256(f"{self.name}/{key}".encode(errors="surrogatepass")).digest()
            point = int.from_bytes(digest[:4], "big") / 2**32 * sum(share for _, share in shares)
            for version, share in shares:
                point -= share
                if point < 0:
                    return version
        return shares[-1][0]

    def serve(self, versions: dict[str, Version], shares: tuple[tuple[Version, int], ...]) -> None:
        """Serve these versions from the next request on."""
        self.versions, self.shares = versions, shares


class Catalogue(dict[str, Model]):
    """The models of this service by name."""

    @property
    def is_ready(self) -> bool:
        """Whether every model has a version that takes traffic."""
        return all(model.is_ready for model in self.values())


class Follower:
    """Keeps a catalogue true to the SSM parameters that list the live versions.

    Whatever goes wrong, the catalogue keeps what it has: the reason is logged once, counted each time, and stands
    in the model's `problems` until it is gone.
    """

    def __init__(self, settings: ServiceSettings, catalogue: Catalogue, metrics: Metrics) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._metrics = metrics
        self._loaded: dict[tuple[str, LiveVersion], Version] = {}
        self._pauses: dict[tuple[str, LiveVersion], tuple[float, float]] = {}
        self._refreshed = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Follow in the background, for a process that lives on between requests."""
        self._thread.start()

    def stop(self) -> None:
        """End the background thread; one that hangs in a download does not hold up the exit."""
        self._stop.set()
        self._thread.join(timeout=1)

    def refresh_if_due(self) -> None:
        """Refresh when the last time is long enough ago: for Lambda, which freezes threads between requests."""
        if time.monotonic() - self._refreshed >= self._settings.refresh_seconds:
            self.refresh()

    def refresh(self) -> None:
        """Read every model's parameter once, and load what is new."""
        for model in self._catalogue.values():
            try:
                self._refresh(model)
            except Exception as error:  # the follower outlives every fault, foreseen or not
                self._metrics.failed_refreshes.labels(model.name).inc()
                reason = f"the live versions cannot be read: {_text(error)}"
                self._report(model, {"parameter": reason} | _without(model.problems, "parameter", "start"))
        self._refreshed = time.monotonic()

    def _follow(self) -> None:
        while not self._stop.is_set():
            self.refresh()
            self._stop.wait(self._settings.refresh_seconds)

    def _refresh(self, model: Model) -> None:
        name = self._settings.parameter(model.name)
        wanted = self._read(name)
        problems = {}
        serving: list[tuple[Version, int]] = []
        versions: dict[str, Version] = {}
        for live in wanted.versions:
            try:
                version = self._load(model.name, live)
            except Exception as error:  # one bad version must not keep the others from being served
                reason = f"version {live.version} ({live.artifact}) is refused: {_text(error)}"
                problems[f"version {live.version}"] = reason
                continue
            if version:
                versions[version.number] = version
                serving += [(version, live.weight)] if live.weight else []
            elif problem := model.problems.get(f"version {live.version}"):
                problems[f"version {live.version}"] = problem  # it pauses before the next attempt
        if not wanted.versions:
            problems["parameter"] = f"no version is live: {name} lists none"
        elif not serving:
            # Nothing of what is wanted can serve, so what serves now goes on.
            serving = list(model.shares)
            versions |= {version.number: version for version, _ in serving}
        self._serve(model, versions, tuple(serving))
        self._report(model, problems)
        self._forget(model, wanted)

    def _read(self, name: str) -> LiveVersions:
        try:
            value = self._ssm.get_parameter(Name=name)["Parameter"]["Value"]
        except self._ssm.exceptions.ParameterNotFound:
            raise PlatformError(f"there is no parameter {name}") from None
        try:
            document = json.loads(value)
        except ValueError as error:
            raise PlatformError(f"parameter {name} is not JSON: {error}") from None
        return parse(LiveVersions, document, f"parameter {name}")

    def _load(self, model: str, live: LiveVersion) -> Version | None:
        """The version, loaded now or before; None while a refused one pauses before it is tried again."""
        key = (model, live.model_copy(update={"weight": 0}))  # a change of weight is no reason to load it again
        if key in self._loaded:
            return self._loaded[key]
        due, pause = self._pauses.get(key, (0.0, float(self._settings.refresh_seconds)))
        if time.monotonic() < due:
            return None
        try:
            version = load_archive(self._download(live.artifact), model, live)
        except Exception:
            self._metrics.failed_loads.labels(model).inc()
            self._pauses[key] = (time.monotonic() + pause, min(2 * pause, _LONGEST_PAUSE_S))
            raise
        self._pauses.pop(key, None)
        self._loaded[key] = version
        logger.info("version loaded", extra={"model": model, "version": version.number, "artifact": live.artifact})
        return version

    def _download(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        content: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def _serve(self, model: Model, versions: dict[str, Version], serving: tuple[tuple[Version, int], ...]) -> None:
        if (versions, serving) == (model.versions, model.shares):
            return
        model.serve(versions, serving)
        total = sum(share for _, share in serving)
        shares = dict.fromkeys(versions, 0.0) | {version.number: 100 * share / total for version, share in serving}
        self._metrics.show_shares(model.name, shares)
        logger.info("live versions changed", extra={"model": model.name, "shares": shares})

    def _report(self, model: Model, problems: dict[str, str]) -> None:
        for reason in problems.values():
            if reason not in model.problems.values():
                logger.error(reason, extra={"model": model.name, "serving": list(model.versions)})
        model.problems = problems

    def _forget(self, model: Model, wanted: LiveVersions) -> None:
        """Let go of the versions that are neither wanted nor serving, so that their memory is freed."""
        known = {(model.name, live.model_copy(update={"weight": 0})) for live in wanted.versions}
        kept = set(model.versions.values())
        for key in [key for key in self._loaded if key[0] == model.name and key not in known]:
            if self._loaded[key] not in kept:
                del self._loaded[key]
        for key in [key for key in self._pauses if key[0] == model.name and key not in known]:
            del self._pauses[key]

    @cached_property
    def _ssm(self) -> Any:
        return _client("ssm")

    @cached_property
    def _s3(self) -> Any:
        return _client("s3")


def _client(service: str) -> Any:
    import boto3  # a tenth of a second that a service with a model directory does not need
    from botocore.config import Config

    # Short patience: on Lambda a refresh stands before a request, and the next one tries again anyway.
    config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})
    # ECS sets AWS_REGION only, which boto3 does not read.
    return boto3.client(service, region_name=os.environ.get("AWS_REGION"), config=config)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _without(problems: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: reason for key, reason in problems.items() if key not in keys}
