"""Opens the artifact of a version as the service does: by its checksum, and proven by its own self-test."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.errors import PlatformError
from contract.service import INPUT, METADATA_FILE, ArtifactMetadata, LiveVersion
from training import registry
from training.onnxfile import open_model

OUTPUTS: Mapping[str, Any] = {"INT64": np.int64, "FP32": np.float32}
"""The datatypes that registered models answer in."""


@dataclass(frozen=True)
class Opened:
    """A version that can answer; several threads may ask it at once."""

    metadata: ArtifactMetadata
    session: onnxruntime.InferenceSession

    def answer(self, features: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The outputs by name, for features of shape [rows, columns]."""
        names = [tensor.name for tensor in self.metadata.outputs]
        return dict(zip(names, self.session.run(names, {INPUT: features}), strict=True))


def open_version(live: LiveVersion, model: str, columns: Sequence[str]) -> Opened:
    """Download, check and load a version.

    Args:
        live: which one, as the service is told of it.
        model: name of the model that it must be of.
        columns: what it must take, in this order.

    Raises:
        PlatformError: if it is not what its checksum, its metadata and its self-test promise.
    """
    content = registry.fetch(live.artifact)
    version = f"version {live.version} of {model} ({live.artifact}) is refused:"
    digest = hashlib.sha256(content).hexdigest()
    if digest != live.sha256:
        raise PlatformError(
            f"{version} its checksum is {digest} ({len(content)} bytes), but {live.sha256} was promised"
        )
    with tempfile.TemporaryDirectory() as folder:
        registry.unpack(content, Path(folder))
        try:
            metadata = ArtifactMetadata.model_validate_json((Path(folder) / METADATA_FILE).read_bytes())
        except ValueError as error:
            raise PlatformError(f"{version} its {METADATA_FILE} is not valid: {error}") from None
        try:
            opened = Opened(metadata, open_model(Path(folder)))
        except Exception as error:  # ONNX Runtime's own errors share no public base class
            raise PlatformError(f"{version} ONNX Runtime cannot load it: {error}") from None
    if metadata.model != model:
        raise PlatformError(f"{version} it is an artifact of model {metadata.model!r}")
    if list(metadata.columns) != list(columns):
        raise PlatformError(
            f"{version} it was made for other columns than those of the manifest in this checkout: it takes "
            f"{len(metadata.columns)}, the manifest has {len(columns)}; use the checkout that it was trained from"
        )
    _repeat_self_test(opened, version)
    return opened


def _repeat_self_test(opened: Opened, version: str) -> None:
    test = opened.metadata.self_test
    try:
        answers = opened.answer(np.array(test.inputs, np.float32))
    except Exception as error:  # as above
        raise PlatformError(f"{version} its self-test fails: {error}") from None
    for name, answer in answers.items():
        expected = np.array(test.outputs[name])
        off = float(np.max(np.abs(answer - expected))) if answer.shape == expected.shape else np.inf
        if not off <= test.tolerance:  # this way round, NaN fails too
            raise PlatformError(f"{version} its self-test fails: {name} is off by {off:g}, allowed: {test.tolerance:g}")
