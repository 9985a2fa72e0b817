"""The follower: keeps the models true to the SSM parameters that list their live versions."""

import json
import logging
import threading
import time
from concurrent.futures import Future, wait
from functools import cached_property
from typing import Any, NamedTuple

from contract.errors import PlatformError
from contract.service import LiveVersion, LiveVersions, ServiceSettings
from contract.strict import parse
from services.inference.artifacts import ArtifactError, Version, load_archive
from services.inference.aws import client
from services.inference.live import Catalogue, Model, Rule, rule_of
from services.inference.metrics import Metrics

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 300.0
_LONGEST_DOWNLOAD_S = 120.0
_PIECE_BYTES = 1024 * 1024
# How long the other versions and models wait for one that is being loaded, and how long a request on Lambda does.
_TURN_S = 1.0
_PATIENCE_S = 0.2

Source = tuple[str, int, str, str]
"""Model, version, artifact and checksum: what has to be loaded again if it changes."""


class Failure(NamedTuple):
    """Why a version could not be loaded."""

    reason: str
    is_final: bool
    """Whether the artifact itself is wrong, and not the way to it."""


class Pause(NamedTuple):
    """The time after a failure until the next attempt."""

    failure: Failure
    due: float
    seconds: float


class Found(NamedTuple):
    """What has become of the versions that a parameter lists."""

    usable: dict[int, Version]
    refused: dict[str, str]
    awaited: dict[str, str]


class Follower:
    """Keeps a catalogue true to the SSM parameters that list the live versions.

    Whatever goes wrong, the catalogue keeps what it has: the reason is logged once, counted each time, and stands
    in the model's `problems` until it is gone. Each version is loaded in a thread of its own, which may take its time.
    """

    def __init__(self, settings: ServiceSettings, catalogue: Catalogue, metrics: Metrics) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._metrics = metrics
        self._loaded: dict[Source, Version] = {}
        self._loads: dict[Source, Future[Version | Failure]] = {}
        self._pauses: dict[Source, Pause] = {}
        self._settled: set[str] = set()
        """The models whose inputs are known: those of their versions that serve."""
        self._refreshed = float("-inf")
        self._is_stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Follow in the background, for a process that lives on between requests."""
        self._thread.start()

    def stop(self) -> None:
        """End the background thread; one that hangs does not hold up the exit."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join(timeout=1)

    def refresh_if_due(self) -> None:
        """Refresh when the last time is long enough ago: for Lambda, which freezes threads between requests.

        The request waits a moment, which is enough on any normal day, but not for an SSM or S3 that hangs: then it
        gets the versions that there are, and the thread goes on when it can. Without any version it waits for one.
        """
        if time.monotonic() - self._refreshed < self._settings.refresh_seconds:
            return
        patience = _PATIENCE_S if self._catalogue.is_ready else None
        if not self._thread.is_alive():
            self._thread = threading.Thread(target=self.refresh, args=(patience,), name="refresh", daemon=True)
            self._thread.start()
        self._thread.join(patience)

    def refresh(self, patience: float | None = None) -> None:
        """Read every model's parameter once, and load what is new.

        Args:
            patience: seconds to wait for each version; one that takes longer is looked at the next time.
        """
        for model in self._catalogue.values():
            try:
                self._refresh(model, patience)
            except Exception as error:  # the follower outlives every fault, foreseen or not
                self._metrics.add("mlp_failed_refreshes", (model.name,))
                reason = f"the live versions cannot be read: {_text(error)}"
                self._report(model, {"parameter": reason} | _without(model.problems, "parameter", "start"))
        self._refreshed = time.monotonic()

    def _follow(self) -> None:
        while not self._is_stopping:
            self.refresh(_TURN_S)
            self._wake.wait(self._settings.refresh_seconds)  # or until a version is loaded
            self._wake.clear()

    def _refresh(self, model: Model, patience: float | None) -> None:
        name = self._settings.parameter(model.name)
        wanted = self._read(name)
        usable, problems, awaited = self._find(model, wanted, patience)
        serving: list[tuple[Version, int]] = []
        versions: dict[str, Version] = {}
        rules: list[Rule] = []
        for live in wanted.versions:
            if version := usable.get(live.version):
                versions[version.number] = version
                serving += [(version, live.weight)] if live.weight else []
                rule = rule_of(live, version, self._settings.cohort_header)
                rules += [rule] if rule else []
        if not wanted.versions:
            problems["parameter"] = f"no version is live: {name} lists none"
        elif not serving:
            # Nothing of what is wanted can serve, so what serves now goes on.
            serving = list(model.shares)
            versions |= {version.number: version for version, _ in serving}
        if not serving:
            self._settled.discard(model.name)
        self._serve(model, versions, tuple(serving), tuple(rules))
        self._report(model, problems, awaited)
        self._forget(model, wanted)

    def _find(self, model: Model, wanted: LiveVersions, patience: float | None) -> Found:
        """Load what is wanted, and take in what has the same inputs, so that clients can send the same to all of them.

        Once a model is settled those are the inputs that its versions have. Before, they are those of the version with
        the largest share, and the others wait for it, unless its artifact is wrong: then the next one stands in for
        it, for as long as it is.
        """
        found = Found({}, {}, {})
        pattern = model.shares[0][0] if model.shares and model.name in self._settled else None
        by_share = sorted(wanted.versions, key=lambda live: -live.weight)
        first: LiveVersion | None = None  # the one that the others wait for
        for live in by_share:
            key = f"version {live.version}"
            loaded = self._load(model.name, live, patience)
            if loaded is None:
                found.awaited[key] = f"{key} is being loaded ({live.artifact})"
                first = first or live
            elif isinstance(loaded, Failure):
                found.refused[key] = f"{key} ({live.artifact}) is refused: {loaded.reason}"
                first = first or (None if loaded.is_final else live)
            elif first and not pattern:
                found.awaited[key] = f"{key} waits for version {first.version}, whose inputs count: its share is larger"
            elif pattern and (difference := _difference(loaded, pattern)):
                found.refused[key] = f"{key} ({live.artifact}) is refused: {difference}"
            else:
                pattern = pattern or loaded
                found.usable[live.version] = loaded
                if live is by_share[0]:
                    self._settled.add(model.name)
        return found

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

    def _load(self, model: str, live: LiveVersion, patience: float | None) -> Version | Failure | None:
        """The version, loaded now or before, or why the last attempt has failed; None while it is being loaded."""
        key = _source(model, live)
        if key in self._loaded:
            return self._loaded[key]
        before = self._pauses.get(key)
        if before and time.monotonic() < before.due:
            return before.failure
        if key not in self._loads:
            self._loads[key] = self._begin(model, live)
            wait([self._loads[key]], patience)
        if not self._loads[key].done():
            return None
        version = self._loads.pop(key).result()
        if isinstance(version, Failure):
            self._metrics.add("mlp_failed_loads", (model,))
            seconds = before.seconds if before else float(self._settings.refresh_seconds)
            self._pauses[key] = Pause(version, time.monotonic() + seconds, min(2 * seconds, _LONGEST_PAUSE_S))
            return version
        self._pauses.pop(key, None)
        self._loaded[key] = version
        logger.info("version loaded", extra={"model": model, "version": version.number, "artifact": live.artifact})
        return version

    def _begin(self, model: str, live: LiveVersion) -> "Future[Version | Failure]":
        """Load a version in a thread that does not hold up the exit."""
        future: Future[Version | Failure] = Future()

        def load() -> None:
            try:
                future.set_result(load_archive(self._download(live.artifact), model, live))
            except Exception as error:  # whatever it is, it must keep nothing else from being served
                future.set_result(Failure(_text(error), isinstance(error, ArtifactError)))
            self._wake.set()

        threading.Thread(target=load, name=f"load {model} {live.version}", daemon=True).start()
        return future

    def _download(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        end = time.monotonic() + _LONGEST_DOWNLOAD_S
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=key)
        except self._s3.exceptions.NoSuchKey as error:
            raise ArtifactError(str(error)) from None
        size, content = answer["ContentLength"], bytearray()
        # boto's own read waits for a whole piece, however slowly it trickles in; read1 takes what there is.
        with answer["Body"] as stream:
            while piece := stream.read1(_PIECE_BYTES):
                content += piece
                if time.monotonic() > end:
                    raise PlatformError(f"{len(content)} of its {size} bytes have come in {_LONGEST_DOWNLOAD_S:g} s")
        if len(content) < size:
            raise PlatformError(f"the connection has ended after {len(content)} of its {size} bytes")
        return bytes(content)

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

    def _report(self, model: Model, problems: dict[str, str], awaited: dict[str, str] | None = None) -> None:
        for reason in problems.values():
            if reason not in model.problems.values():
                logger.error(reason, extra={"model": model.name, "serving": list(model.versions)})
        model.problems = problems | (awaited or {})

    def _forget(self, model: Model, wanted: LiveVersions) -> None:
        """Let go of the versions that are neither wanted nor serving, so that their memory is freed."""
        known = {_source(model.name, live) for live in wanted.versions}
        kept = set(model.versions.values())
        for key in [key for key in self._loaded if key[0] == model.name and key not in known]:
            if self._loaded[key] not in kept:
                del self._loaded[key]
        for attempts in (self._pauses, self._loads):
            for key in [key for key in attempts if key[0] == model.name and key not in known]:
                del attempts[key]

    @cached_property
    def _ssm(self) -> Any:
        return client("ssm")

    @cached_property
    def _s3(self) -> Any:
        return client("s3")


def _source(model: str, live: LiveVersion) -> Source:
    return (model, live.version, live.artifact, live.sha256)


def _difference(version: Version, pattern: Version) -> str:
    """Why a version would refuse what clients send to the others, if it would: other features are another model."""
    if (version.inputs, version.columns) == (pattern.inputs, pattern.columns):
        return ""
    return (
        f"its inputs are not those of version {pattern.number}, which serves: it takes {version.reader.datatype} "
        f"{list(version.columns)[:5]}... ({len(version.columns)} columns); make it another model, or take all "
        f"versions off first"
    )


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _without(problems: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: reason for key, reason in problems.items() if key not in keys}
