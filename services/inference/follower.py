"""The follower: keeps the models true to the SSM parameters that list their live versions."""

import json
import logging
import threading
import time
from functools import cached_property
from typing import Any

from contract.errors import PlatformError
from contract.service import LiveVersion, LiveVersions, ServiceSettings
from contract.strict import parse
from services.inference.artifacts import ArtifactError, Version, load_archive
from services.inference.aws import client
from services.inference.live import Catalogue, Model, Rule, rule_of
from services.inference.metrics import Metrics

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 300.0
_PATIENCE_S = 0.2

Source = tuple[str, int, str, str]
"""Model, version, artifact and checksum: what has to be loaded again if it changes."""


class Follower:
    """Keeps a catalogue true to the SSM parameters that list the live versions.

    Whatever goes wrong, the catalogue keeps what it has: the reason is logged once, counted each time, and stands
    in the model's `problems` until it is gone.
    """

    def __init__(self, settings: ServiceSettings, catalogue: Catalogue, metrics: Metrics) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._metrics = metrics
        self._loaded: dict[Source, Version] = {}
        self._pauses: dict[Source, tuple[float, float]] = {}
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
        """Refresh when the last time is long enough ago: for Lambda, which freezes threads between requests.

        The request waits a moment, which is enough on any normal day, but not for an SSM or S3 that hangs: then it
        gets the versions that there are, and the thread goes on when it can. Without any version it waits for one.
        """
        if time.monotonic() - self._refreshed < self._settings.refresh_seconds:
            return
        if not self._thread.is_alive():
            self._thread = threading.Thread(target=self.refresh, name="refresh", daemon=True)
            self._thread.start()
        self._thread.join(_PATIENCE_S if self._catalogue.is_ready else None)

    def refresh(self) -> None:
        """Read every model's parameter once, and load what is new."""
        for model in self._catalogue.values():
            try:
                self._refresh(model)
            except Exception as error:  # the follower outlives every fault, foreseen or not
                self._metrics.add("mlp_failed_refreshes", (model.name,))
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
        rules: list[Rule] = []
        pattern = model.shares[0][0] if model.shares else None
        for live in wanted.versions:
            try:
                version = self._load(model.name, live)
                pattern = pattern or version
                _check_inputs(version, pattern)
            except Exception as error:  # one bad version must not keep the others from being served
                reason = f"version {live.version} ({live.artifact}) is refused: {_text(error)}"
                problems[f"version {live.version}"] = reason
                continue
            if version:
                versions[version.number] = version
                serving += [(version, live.weight)] if live.weight else []
                rule = rule_of(live, version, self._settings.cohort_header)
                rules += [rule] if rule else []
            elif problem := model.problems.get(f"version {live.version}"):
                problems[f"version {live.version}"] = problem  # it pauses before the next attempt
        if not wanted.versions:
            problems["parameter"] = f"no version is live: {name} lists none"
        elif not serving:
            # Nothing of what is wanted can serve, so what serves now goes on.
            serving = list(model.shares)
            versions |= {version.number: version for version, _ in serving}
        self._serve(model, versions, tuple(serving), tuple(rules))
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
        key = _source(model, live)
        if key in self._loaded:
            return self._loaded[key]
        due, pause = self._pauses.get(key, (0.0, float(self._settings.refresh_seconds)))
        if time.monotonic() < due:
            return None
        try:
            version = load_archive(self._download(live.artifact), model, live)
        except Exception:
            self._metrics.add("mlp_failed_loads", (model,))
            self._pauses[key] = (time.monotonic() + pause, min(2 * pause, _LONGEST_PAUSE_S))
            raise
        self._pauses.pop(key, None)
        self._loaded[key] = version
        if "hash" in version.sensitive.values() and not self._settings.hash_key:
            logger.warning(
                "hashes of sensitive features can be guessed without a key: set MLP_HASH_KEY", extra={"model": model}
            )
        logger.info("version loaded", extra={"model": model, "version": version.number, "artifact": live.artifact})
        return version

    def _download(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        content: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def _serve(
        self,
        model: Model,
        versions: dict[str, Version],
        serving: tuple[tuple[Version, int], ...],
        rules: tuple[Rule, ...],
    ) -> None:
        if (versions, serving, rules) == (model.versions, model.shares, model.rules):
            return
        model.serve(versions, serving, rules)
        self._catalogue.note_rules()
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
        known = {_source(model.name, live) for live in wanted.versions}
        kept = set(model.versions.values())
        for key in [key for key in self._loaded if key[0] == model.name and key not in known]:
            if self._loaded[key] not in kept:
                del self._loaded[key]
        for key in [key for key in self._pauses if key[0] == model.name and key not in known]:
            del self._pauses[key]

    @cached_property
    def _ssm(self) -> Any:
        return client("ssm")

    @cached_property
    def _s3(self) -> Any:
        return client("s3")


def _source(model: str, live: LiveVersion) -> Source:
    return (model, live.version, live.artifact, live.sha256)


def _check_inputs(version: Version | None, pattern: Version | None) -> None:
    """Refuse a version that would refuse what clients send to the others: other features are another model."""
    if version and pattern and (version.inputs, version.columns) != (pattern.inputs, pattern.columns):
        raise ArtifactError(
            f"its inputs are not those of version {pattern.number}, which serves: it takes {version.reader.datatype} "
            f"{list(version.columns)[:5]}... ({len(version.columns)} columns); make it another model, or take all "
            f"versions off first"
        )


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _without(problems: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: reason for key, reason in problems.items() if key not in keys}
