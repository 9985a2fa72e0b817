"""What a container runs, once training/launch.py has brought its work folder: one step of one model's pipeline.

    python -m training ingest digits

It is told by its environment: MLP_OUTPUTS holds the stack's outputs as JSON, or names a file that does, and MLP_WORK
names the folder in which the steps leave their results for one another, by default the one that SageMaker Processing
keeps on S3. A SageMaker training job is told in SageMaker's own way instead; see training/job.py. Under torchrun, as in

    torchrun --nproc-per-node 2 --max-restarts 3 -m training train digits

all processes train together. A segment of a tuning is run by the children of a Batch array, or by

    python -m training tune digits 3

Beside the steps there is batch inference, which training/score.py explains:

    python -m training score digits --input s3://... --output s3://...
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from contract.errors import PlatformError, is_from_aws
from contract.manifest import load_manifest
from contract.outputs import Outputs
from contract.strict import parse, read_yaml
from training.steps import STEPS, Context, is_current, run_step

WORK = "/opt/ml/processing/work"
ARRAY_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"
USAGE = (
    f"usage: python -m training STEP MODEL [SEGMENT of tune]\nsteps: {', '.join(STEPS)}\n"
    "or:    python -m training score MODEL --input FILE --output FILE [--version N]"
)
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
    if sys.argv[1:2] == ["score"]:
        score(sys.argv[2:])
        return
    step, model, *segment = sys.argv[1:] if len(sys.argv) > 2 else ("", "")
    if not step or (segment and (step != "tune" or len(segment) > 1 or not segment[0].isdecimal())):
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    if step == "tune" and not segment and ARRAY_INDEX in os.environ:
        segment = [os.environ[ARRAY_INDEX]]
    with explained():
        context = Context(
            load_manifest(model),
            outputs(os.environ),
            Path(os.environ.get("MLP_WORK", WORK)) / model,
            lambda line: print(line, flush=True),
        )
        if step == "train" and int(os.environ.get("RANK", "0")):
            follow(context)
        elif segment:
            tune_segment(context, int(segment[0]))
        else:
            run_step(step, context)


@contextmanager
def explained() -> Iterator[None]:
    """End the process with one message, and no traceback, on what a mistake of ours is not the cause of."""
    try:
        yield
    except (PlatformError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except Exception as error:
        if not is_from_aws(error):
            raise
        sys.exit(f"error: AWS: {error}")


def score(arguments: list[str]) -> None:
    """Score a file; exit with 1 if it fails and 2 if the command line is wrong."""
    from training import score

    with explained():
        score.main(arguments, lambda: outputs(os.environ))


def is_sagemaker(environment: Mapping[str, str], root: Path = Path("/opt/ml")) -> bool:
    """Whether this is a SageMaker training job with its data in channels."""
    return "SM_CHANNEL_TRAIN" in environment or (root / "input" / "data" / "train").exists()


def follow(context: Context) -> None:
    """Train along with the leading process of a torchrun, which alone keeps the books."""
    from training import job, train

    job.run(train.of(context), lambda _: None)


def tune_segment(context: Context, index: int) -> None:
    """Run one segment of a tuning, and nothing else; whoever runs the step `tune` gathers it."""
    from training import tune

    if not is_current("split", context):
        model = context.manifest.name
        raise PlatformError(
            f"a segment of the tuning of {model} needs the results of split in {context.work}; "
            f"run the steps ingest, validate, explore and split first, as in `python -m training split {model}`"
        )
    trials = tune.segment(context, index)
    failed = sum(bool(trial.failed) for trial in trials)
    context.report(f"segment {index}: {len(trials)} trials, {failed} of them failed")


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
            return parse(Outputs, json.loads(given), "MLP_OUTPUTS")
        except ValueError as error:
            raise PlatformError(f"MLP_OUTPUTS is not valid JSON: {error}") from None
    return parse(Outputs, read_yaml(Path(given)), given)  # JSON is YAML


if __name__ == "__main__":
    main()
