"""Turns a model artifact into a version that can answer: checked, loaded, and proven by its own self-test."""

import functools
import gzip
import hashlib
import io
import re
import tarfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from pydantic import ValidationError

from contract.service import INPUT, METADATA_FILE, MODEL_FILE, ArtifactMetadata, LiveVersion, Tensor
from services.inference.protocol import RequestError, Selection, output_of
from services.inference.tensors import KINDS, Array, Reader, TensorError, encode

_UNPACKED_BYTES, _UNPACKED_TIMES = 64 * 2**20, 20
"""How much an archive may hold, and how many times its own size if that is more: models hardly pack to a tenth."""
_PART_BYTES = 2**20

_SLOW_S = 0.002
_MANY_ROWS = 64  # enough that what a prediction costs whatever its rows hardly counts

# What ONNX Runtime says of a node that failed; a source file, a line and a function may come before the reason.
_find_failed_node = re.compile(
    r"while running (\S+) node\..*?Status Message: (?:/\S+:\d+ .*?\) )?(.+)", re.DOTALL
).search


class ArtifactError(Exception):
    """Why an artifact must not get traffic."""


class Version:
    """A loaded version of a model."""

    def __init__(self, metadata: ArtifactMetadata, number: str, session: onnxruntime.InferenceSession) -> None:
        self.model = metadata.model
        self.number = number
        self.answer_prefix = b'{"model_name":%b,"model_version":"%b","id":' % (encode(self.model), number.encode())
        """The JSON of an answer up to its id."""
        self.capture_prefix = b'"model":%b,"version":%b' % (encode(self.model), number.encode())
        """The JSON of a captured line that says who has answered."""
        self.columns = metadata.columns
        self.inputs = metadata.inputs
        self.output_tensors = metadata.outputs
        self.outputs = {tensor.name: output_of(tensor.name, tensor.datatype) for tensor in metadata.outputs}
        self.everything = Selection(list(self.outputs), list(self.outputs.values()))
        self.reader = Reader(metadata.inputs[0].datatype, metadata.columns)
        self.background: Array = np.empty((0, len(metadata.columns)))
        """Typical rows, which an explanation compares with."""
        self.sensitive = metadata.sensitive
        self.file: bytes | None = None
        """The ONNX file, if clients may have it."""
        self.can_batch = False
        """Whether a row gets the same answer whatever rows are beside it, so that requests can share a prediction."""
        self.is_slow = False
        """Whether a prediction takes so long that it would hold up the event loop."""
        self.quick_rows = 0
        """How many rows a prediction may have before it takes as long as that."""
        self.proven: Array | None = None
        """Rows that the model has answered as it should."""
        self._session = session
        self._run_options = onnxruntime.RunOptions()  # otherwise each run makes one
        self._run_options.log_severity_level = 4  # what fails is raised; it would be on stderr too, and not as JSON

    def predict(self, features: Array, outputs: Sequence[str]) -> list[Array]:
        """Compute the named outputs for rows of features.

        Raises:
            RequestError: if the model itself fails at these features: an index beyond its table, a text that should
                be a number.
        """
        try:
            answers: list[Array] = self._session.run(outputs, {INPUT: features}, self._run_options)
        except (Fail, InvalidArgument, RuntimeException) as error:
            if reason := self._refusal(str(error)):
                raise RequestError(400, f"the model cannot answer these features: {reason}") from None
            raise
        return answers

    def _refusal(self, error: str) -> str:
        """Why the features are to blame for a failed run; empty if they are not.

        They are if a node of the model failed, and the model still answers what it has answered before: after a fault
        of the session, or of the GPU, it does not. Want of memory is the service's own trouble.
        """
        node = _find_failed_node(error)
        if not node or self.proven is None or "alloc" in node[2]:
            return ""
        try:
            self._session.run(None, {INPUT: self.proven}, self._run_options)
        except Exception:  # ONNX Runtime's own errors share no public base class
            return ""
        return f"{node[1]}: {node[2].strip()}"


def load_archive(archive: bytes, model: str, live: LiveVersion) -> Version:
    """Load a version from its `model.tar.gz`.

    Raises:
        ArtifactError: if it is not what its checksum, its metadata and its self-test promise.
    """
    digest = hashlib.sha256(archive).hexdigest()
    if digest != live.sha256:
        raise ArtifactError(f"its checksum is {digest} ({len(archive)} bytes), but {live.sha256} was promised")
    try:
        files = _unpack(archive)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ArtifactError(f"it cannot be unpacked: {error}") from None
    onnx, metadata = (_file(files, name) for name in (MODEL_FILE, METADATA_FILE))
    return _load(onnx, metadata, model, str(live.version))


def load_directory(folder: Path) -> Version:
    """Load the unpacked artifact that SageMaker puts into the model directory, as version 1.

    Raises:
        ArtifactError: if a file is missing or the model does not pass its self-test.
    """
    try:
        return _load((folder / MODEL_FILE).read_bytes(), (folder / METADATA_FILE).read_bytes(), None, "1")
    except OSError as error:
        raise ArtifactError(str(error)) from None


class _Unpacked(gzip.GzipFile):
    """What gzip unpacks, read no further than a limit: some bytes can unpack to a thousand times as many."""

    def __init__(self, archive: bytes) -> None:
        super().__init__(fileobj=io.BytesIO(archive))
        self.limit = max(_UNPACKED_BYTES, _UNPACKED_TIMES * len(archive))
        self._why = f"of an archive of {len(archive)} bytes, at most {self.limit} are unpacked"
        self._left = self.limit

    def read(self, size: int | None = -1) -> bytes:
        part = super().read(size)
        self._left -= len(part)
        if self._left < 0:
            raise ArtifactError(f"it holds more than {self.limit} bytes: {self._why}")
        return part

    def check(self, member: tarfile.TarInfo) -> None:
        """Refuse a file that says itself that it is over the limit, before there is any memory for it."""
        if member.size > self.limit:
            raise ArtifactError(f"its {member.name} has {member.size} bytes: {self._why}")


def _unpack(archive: bytes) -> dict[str, bytes]:
    """The two files, and the names of the others; only into memory: no path in it ever reaches the file system."""
    files = {}
    with _Unpacked(archive) as unpacked, tarfile.open(fileobj=unpacked, mode="r|", bufsize=_PART_BYTES) as tar:
        for member in tar:
            if not member.isreg():
                continue
            name = member.name.removeprefix("./")
            unpacked.check(member)
            content = tar.extractfile(member) if name in (MODEL_FILE, METADATA_FILE) else None
            files[name] = content.read() if content else b""
        while unpacked.read(_PART_BYTES):  # gzip's own checksum is at the end
            pass
    return files


def _file(files: dict[str, bytes], name: str) -> bytes:
    if name not in files:
        raise ArtifactError(f"it has no {name}; it holds: {', '.join(sorted(files)) or 'nothing'}")
    return files[name]


def _load(onnx: bytes, metadata_json: bytes, model: str | None, number: str) -> Version:
    try:
        metadata = ArtifactMetadata.model_validate_json(metadata_json)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise ArtifactError(f"its {METADATA_FILE} is not valid: {details}") from None
    if model and metadata.model != model:
        raise ArtifactError(f"it is an artifact of model {metadata.model!r}")
    given = [tensor.model_dump() for tensor in metadata.inputs]
    shape = (-1, len(metadata.columns))
    if len(given) != 1 or (metadata.inputs[0].name, metadata.inputs[0].shape) != (INPUT, shape):
        raise ArtifactError(f'its inputs are {given}, but the service feeds one, "{INPUT}" of shape {list(shape)}')
    if unknown := metadata.sensitive.keys() - set(metadata.columns):
        raise ArtifactError(f"its sensitive columns {sorted(unknown)} are none of its columns")
    options = onnxruntime.SessionOptions()
    # Requests are small and many: more threads per request would only fight over the same cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(onnx, options, providers=_processors())
    except Exception as error:  # ONNX Runtime's own errors share no public base class
        raise ArtifactError(f"ONNX Runtime cannot load its {MODEL_FILE}: {error}") from None
    _check_signature("inputs", metadata.inputs, session.get_inputs())
    _check_signature("outputs", metadata.outputs, session.get_outputs())
    version = Version(metadata, number, session)
    version.file = onnx if metadata.browser else None
    _self_test(version, metadata)
    try:
        version.background = version.reader.from_metadata(metadata.background or metadata.self_test.inputs)
    except TensorError as error:
        raise ArtifactError(f"its background rows do not fit: {error}") from None
    return version


@functools.cache
def _processors() -> list[str]:
    """What computes, by ONNX Runtime's names: the GPU, if the image is made for one, and else the CPU."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return ["CPUExecutionProvider"]
    onnxruntime.preload_dlls()  # CUDA's libraries are packages, where the loader does not look
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _check_signature(what: str, promised: Sequence[Tensor], actual: Sequence[Any]) -> None:
    """Refuse metadata that does not describe the ONNX file: a client would be told the wrong names and types."""
    names = {tensor.name: KINDS[tensor.datatype].onnx for tensor in promised}
    found = {tensor.name: tensor.type for tensor in actual}
    if not names or (names != found if what == "inputs" else not names.items() <= found.items()):
        raise ArtifactError(f"its {METADATA_FILE} promises {what} {names}, but {MODEL_FILE} has {found}")


def _self_test(version: Version, metadata: ArtifactMetadata) -> None:
    """Repeat the rows that the model answered when it was made; this also warms the session up."""
    test = metadata.self_test
    if test.outputs.keys() != version.outputs.keys():
        raise ArtifactError(f"its self-test has outputs {[*test.outputs]}, the model has {[*version.outputs]}")
    try:
        rows = version.reader.from_metadata(test.inputs)
        answers = version.predict(rows, list(test.outputs))
        expectations = [np.array(values) for values in test.outputs.values()]
    except Exception as error:  # as above: whatever goes wrong, this version cannot answer
        raise ArtifactError(f"its self-test fails: {error}") from None
    for name, answer, expected in zip(test.outputs, answers, expectations, strict=True):
        if answer.shape != expected.shape:
            raise ArtifactError(f"its self-test fails: {name} has shape {answer.shape}, expected {expected.shape}")
        if answer.dtype.kind not in "fiu":
            if not np.array_equal(answer, expected):
                raise ArtifactError(f"its self-test fails: {name} is {answer.tolist()}, expected {expected.tolist()}")
            continue
        worst = float(np.max(np.abs(answer - expected)))
        if not worst <= test.tolerance:  # this way round, NaN fails too
            raise ArtifactError(f"its self-test fails: {name} is off by {worst:g}, the tolerance is {test.tolerance:g}")
    version.proven = rows
    try:
        version.can_batch = _ignores_neighbours(
            version, rows, dict(zip(test.outputs, answers, strict=True)), test.tolerance
        )
        version.is_slow = _seconds(version, rows) > _SLOW_S
        if not version.is_slow:  # otherwise it would take long, and perhaps much memory
            many = rows[np.arange(max(_MANY_ROWS, len(rows))) % len(rows)]
            version.quick_rows = int(len(many) * _SLOW_S / _seconds(version, many, runs=2))
    except Exception as error:
        raise ArtifactError(f"it does not take any number of rows, as its {METADATA_FILE} promises: {error}") from None


def _ignores_neighbours(version: Version, rows: Array, answers: dict[str, Array], tolerance: float) -> bool:
    """Whether the rows get alone the answers that they have got together; rows that are all the same do not show it."""
    alone = [version.predict(rows[i : i + 1], list(answers)) for i in range(len(rows))]
    return bool((rows != rows[0]).any()) and all(
        answer.ndim > 0 and len(answer) == len(rows) and _same(np.concatenate(single), answer, tolerance)
        for single, answer in zip(zip(*alone, strict=True), answers.values(), strict=True)
    )


def _same(one: Array, other: Array, tolerance: float) -> bool:
    if one.shape != other.shape or one.dtype.kind not in "fiu":
        return one.shape == other.shape and np.array_equal(one, other)
    return bool(np.max(np.abs(one - other)) <= tolerance)


def _seconds(version: Version, rows: Array, runs: int = 3) -> float:
    """The best of a few runs, because whatever else runs only makes it longer."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        version.predict(rows, list(version.outputs))
        times.append(time.perf_counter() - start)
    return min(times)
