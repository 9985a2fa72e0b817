"""The container's entry point: one step of one model's pipeline.

    python -m training ingest digits

It is told by its environment: MLP_OUTPUTS holds the stack's outputs as JSON, or names a file that does, and MLP_WORK
names the folder in which the steps leave their results for one another, by default the one that SageMaker Processing
keeps on S3. A SageMaker training job is told in SageMaker's own way instead; see training/job.py. Under torchrun, as in

    torchrun --nproc-per-node 2 --max-restarts 3 -m training train digits

all processes train together.
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
STOPPED = 143
"""Exit status of a process that SIGTERM has stopped, as a shell has it."""


def main() -> None:
    """Run the step that the command line names; exit with 1 if it fails and 2 if the command line is wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    # SageMaker starts a training container with the word `train` alone: a hyperparameter names the model.
    if sys.argv[1:] == ["train"] or (sys.argv[1:2] == ["train"] and is_sagemaker(os.environ)):
        from training import job

        job.main(*sys.argv[2:])
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
        if step == "train" and int(os.environ.get("RANK", "0")):
            follow(context)
        else:
            run_step(step, context)
    except (PlatformError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def is_sagemaker(environment: Mapping[str, str], root: Path = Path("/opt/ml")) -> bool:
    """Whether this is a SageMaker training job with its data in channels."""
    return "SM_CHANNEL_TRAIN" in environment or (root / "input" / "data" / "train").exists()


def follow(context: Context) -> None:
    """Train along with the leading process of a torchrun, which alone keeps the books."""
    from training import job, train

    job.run(train.of(context), lambda _: None)


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
