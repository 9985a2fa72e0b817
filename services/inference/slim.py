"""Takes out of the image's environment what the service never opens: `python services/inference/slim.py /opt/venv`.

Less to store, to pull and to page in at a cold start. Packages stay as their wheels have them, but for the following,
none of which `import` asks for: other libraries' tests and type stubs, ONNX Runtime's library for C programs (the
Python module has its own copy inside) with its tools for making models, and the descriptions of AWS services that
nothing here calls. A test runs the image's entry point in an environment that has been through this.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Those that the service calls, and those that botocore may get its credentials from.
_AWS = {"firehose", "kms", "s3", "ssm", "sso", "sso-oidc", "sts"}

_UNUSED = (
    "**/*.pyi",
    "numpy/**/tests",
    "numpy/distutils",
    "numpy/f2py",
    "onnxruntime/backend",
    "onnxruntime/capi/libonnxruntime.so.*",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)


def slim(environment: Path) -> None:
    """Remove the unused parts of the packages in a virtual environment; doing it again changes nothing."""
    for packages in environment.glob("lib/python*/site-packages"):
        for path in [*_unused(packages)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)  # it may have gone with its folder


def size_mb(environment: Path) -> float:
    """What the files of an environment's packages hold, in millions of bytes."""
    files = [path for path in environment.glob("lib/python*/site-packages/**/*") if path.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def _unused(packages: Path) -> Iterator[Path]:
    for pattern in _UNUSED:
        yield from packages.glob(pattern)
    for service in packages.glob("botocore/data/*/"):
        if service.name not in _AWS:
            yield service


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    before = size_mb(folder)
    slim(folder)
    print(f"packages: {size_mb(folder):.0f} MB, {before:.0f} MB before")
