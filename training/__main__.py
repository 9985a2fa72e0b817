"""The container's entry point: one step of one model's pipeline.

    python -m training ingest digits

It is told by its environment: MLP_OUTPUTS holds the stack's outputs as JSON, or names a file that does, and MLP_WORK
names the folder in which the steps leave their results for one another, by default the one that SageMaker Processing
keeps on S3.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from contract.errors import PlatformError
from contract.manifest import load_manifest
from contract.outputs import Outputs
from contract.strict import parse, read_yaml
from training.steps import STEPS, Context, run_step

WORK = "/opt/ml/processing/work"


def main() -> None:
    """Run the step that the command line names; exit with 1 if it fails and 2 if the command line is wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if sys.argv[1:] == ["train"]:  # how SageMaker starts a training container; its hyperparameters name the model
        from training import train

        train.main()
        return
    if len(sys.argv) != 3:
        print(f"usage: python -m training STEP MODEL\nsteps: {', '.join(STEPS)}", file=sys.stderr)
        sys.exit(2)
    step, model = sys.argv[1:]
    try:
        context = Context(
            load_manifest(model),
            outputs(os.environ),
            Path(os.environ.get("MLP_WORK", WORK)) / model,
            lambda line: print(line, flush=True),
        )
        run_step(step, context)
    except (PlatformError, OSError) as error:
        sys.exit(f"error: {error}")


def outputs(environment: Mapping[str, str]) -> Outputs:
    """The stack's outputs, as the environment tells them.

    Raises:
        PlatformError: if it does not, or they are not valid.
    """
    given = environment.get("MLP_OUTPUTS", "")
    if not given:
        raise PlatformError(
            "the variable MLP_OUTPUTS is not set; it holds the stack's outputs as JSON, or names a file"
        )
    if given.lstrip().startswith("{"):
        try:
            return Outputs.model_validate_json(given)
        except ValueError as error:
            raise PlatformError(f"MLP_OUTPUTS does not hold the stack's outputs: {error}") from None
    return parse(Outputs, read_yaml(Path(given)), given)  # JSON is YAML


if __name__ == "__main__":
    main()
