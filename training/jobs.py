"""Training jobs in the cloud: what a model needs, as the request that SageMaker, Batch or Kubernetes takes.

A request is plain data, so that it can be shown and checked without an account. The container is the same everywhere;
it is told its step and model as arguments, and by variables where its work folder and the stack's outputs are (see
`training.launch`).
"""

import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from contract import kubernetes
from contract.errors import PlatformError
from contract.outputs import EksOutputs, Outputs, TrainingOutputs
from training.fitting import Job, fit, limits_of, pool_of

CHECKPOINTS = "/opt/ml/checkpoints"
"""A folder that SageMaker fetches from S3 when a job starts or starts again, and brings back there as it changes."""
OUTPUTS_FILE = "outputs.json"
LONGEST_NAME = 50
"""Characters of a job's name: SageMaker takes 63, and Kubernetes puts a suffix behind it for each pod."""
SPOT_WAIT_HOURS = 12
"""How long a SageMaker job may wait for spare capacity, all its waits together."""
ENTRYPOINT = ["python", "-m", "training.launch"]


def job_name(training: TrainingOutputs, model: str, step: str) -> str:
    """A name that no other job has: `mlp-dev-digits-train-261121153000-1a2b`."""
    suffix = f"-{step}-{datetime.now(UTC):%y%m%d%H%M%S}-{secrets.token_hex(3)}"
    return f"{training.name}-{model}"[: LONGEST_NAME - len(suffix)].rstrip("-") + suffix


def request(job: Job, outputs: Outputs, backend: str) -> dict[str, Any]:
    """The request that starts a job.

    Args:
        job: what is to run.
        outputs: the stack's.
        backend: one of `BACKENDS`.

    Returns:
        Parameters of SageMaker's CreateTrainingJob or Batch's SubmitJob, or a Kubernetes JobSet.

    Raises:
        PlatformError: if the backend is not on, or the job does not fit on it.
    """
    training = training_of(outputs)
    type_ = fit(job, limits_of(training, backend, outputs.environment), backend, outputs.environment)
    if training.image is None:
        raise no_image(outputs.environment)
    if backend == "sagemaker":
        return _sagemaker(job, outputs, training, type_)
    return _batch(job, training) if backend == "batch" else _jobset(job, training)


def training_of(outputs: Outputs) -> TrainingOutputs:
    """The part of the outputs that is about jobs."""
    if outputs.training is None:
        raise PlatformError(f"{outputs.environment} was brought up before it had training jobs; bring it up again")
    return outputs.training


def no_image(environment: str) -> PlatformError:
    """What to say as long as there is nothing to run."""
    return PlatformError(
        f"{environment} has no training image: build and push it (docs/training-on-sagemaker.md), set "
        f"ml-platform:training.image_digest in Pulumi.{environment}.yaml, and run `mlp up {environment}`"
    )


def work_folder(training: TrainingOutputs, model: str) -> str:
    """S3 prefix of a model's work folder."""
    return f"{training.work}/{model}"


def tags(job: Job, outputs: Outputs) -> dict[str, str]:
    """Tags of a job, by which the cost reports tell environments, models and teams apart."""
    prefix = training_of(outputs).name.removesuffix(f"-{outputs.environment}")
    return {"Project": prefix, "Environment": outputs.environment, "Model": job.model, "Team": job.compute.team}


def _sagemaker(job: Job, outputs: Outputs, training: TrainingOutputs, type_: str) -> dict[str, Any]:
    compute, limits = job.compute, training.sagemaker
    assert limits, "it was checked that the backend is on"
    work = work_folder(training, job.model)
    spot = compute.spot and limits.spot
    resources: dict[str, Any] = {"InstanceType": f"ml.{type_}", "InstanceCount": compute.instances}
    if not limits.instance_types[type_].local_gb:
        # SageMaker refuses a key, and ignores a size, for a type with disks of its own, which the hardware encrypts.
        resources |= {"VolumeSizeInGB": limits.volume_gb, "VolumeKmsKeyId": outputs.key_arn}
    stopping = {"MaxRuntimeInSeconds": compute.hours * 3600}
    if spot:
        stopping["MaxWaitTimeInSeconds"] = (compute.hours + SPOT_WAIT_HOURS) * 3600
    return {
        "TrainingJobName": job.name,
        "RoleArn": outputs.training_role,
        "AlgorithmSpecification": {
            "TrainingImage": training.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ENTRYPOINT,
            "ContainerArguments": [job.step, job.model],
        },
        "Environment": _environment(job, CHECKPOINTS),
        "OutputDataConfig": {"S3OutputPath": f"{training.work}/_output/{job.model}", "KmsKeyId": outputs.key_arn},
        "ResourceConfig": resources,
        "VpcConfig": {"SecurityGroupIds": [training.security_group], "Subnets": list(training.subnets)},
        "EnableInterContainerTrafficEncryption": True,
        "EnableManagedSpotTraining": spot,
        "CheckpointConfig": {"S3Uri": work, "LocalPath": CHECKPOINTS},
        "StoppingCondition": stopping,
        "RetryStrategy": {"MaximumRetryAttempts": 2},  # of SageMaker's own faults; spot comes back by itself
        "Tags": [{"Key": key, "Value": value} for key, value in tags(job, outputs).items()],
    }


def _environment(job: Job, work: str) -> dict[str, str]:
    return {
        "MLP_WORK": work,
        "MLP_OUTPUTS": f"{work}/{OUTPUTS_FILE}",
        "MLP_PROCESSES": str(max(1, job.compute.gpus)),
    }


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _batch(job: Job, training: TrainingOutputs) -> dict[str, Any]:
    compute, batch = job.compute, training.batch
    assert batch, "it was checked that the backend is on"
    kind = "gpu" if compute.gpus else "cpu"
    # Batch runs no job of several instances on spot.
    queue = f"{kind}-spot" if compute.spot and batch.spot and compute.instances == 1 else kind
    needs = {"VCPU": compute.vcpus, "MEMORY": compute.memory_gib * 1024} | (
        {"GPU": compute.gpus} if compute.gpus else {}
    )
    container = {
        "command": [job.step, job.model],
        "environment": _pairs(_environment(job, work_folder(training, job.model))),
        "resourceRequirements": [{"type": type_, "value": str(value)} for type_, value in needs.items()],
    }
    found: dict[str, Any] = {
        "jobName": job.name,
        "jobQueue": batch.queues[queue],
        "shareIdentifier": compute.team,
        "schedulingPriorityOverride": 0,
        "timeout": {"attemptDurationSeconds": compute.hours * 3600},
        "propagateTags": True,
        "tags": {"Model": job.model, "Team": compute.team},
    }
    if compute.instances > 1:
        overrides = {"targetNodes": f"0:{compute.instances - 1}", "containerOverrides": container}
        return found | {
            "jobDefinition": batch.job_definitions["nodes"],
            "nodeOverrides": {"numNodes": compute.instances, "nodePropertyOverrides": [overrides]},
        }
    array = {"arrayProperties": {"size": job.array}} if job.array else {}
    return found | {"jobDefinition": batch.job_definitions["instance"], "containerOverrides": container} | array


def _jobset(job: Job, training: TrainingOutputs) -> dict[str, Any]:
    """A JobSet of one Job with a pod an instance, which Kueue admits as a whole or not at all."""
    compute, eks = job.compute, training.eks
    assert eks, "it was checked that the backend is on"
    team, found = eks.teams[compute.team], pool_of(compute, eks)
    assert found, "it was checked that a pool fits"
    labels = {"model": job.model, "team": compute.team}
    queued = labels | {kubernetes.QUEUE: team.queue}
    if job.priority:
        queued[kubernetes.PRIORITY] = job.priority
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": job.name, "namespace": team.namespace, "labels": queued},
        "spec": {
            "failurePolicy": {"maxRestarts": 3},  # all pods anew, from the last checkpoint
            "ttlSecondsAfterFinished": 24 * 3600,
            "replicatedJobs": [
                {
                    "name": "worker",
                    "replicas": 1,
                    "template": {
                        "spec": {
                            "completionMode": "Indexed",
                            "parallelism": compute.instances,
                            "completions": compute.instances,
                            "backoffLimit": 0,
                            "activeDeadlineSeconds": compute.hours * 3600,
                            "template": {
                                # Karpenter takes no node from under a job that runs.
                                "metadata": {"labels": labels, "annotations": {kubernetes.KEEP: "true"}},
                                "spec": _pod(job, training, eks, *found),
                            },
                        }
                    },
                }
            ],
        },
    }


def _pod(job: Job, training: TrainingOutputs, eks: EksOutputs, pool: str, efa: int) -> dict[str, Any]:
    """The pod of one instance, within the restricted pod security standard.

    Args:
        job: what is to run.
        training: the stack's outputs about jobs.
        eks: those about the cluster.
        pool: where it goes.
        efa: EFA interfaces of a node there.
    """
    compute = job.compute
    # A GPU job's pods have an instance each; what a pod asks for, it gets, and no more.
    resources = {"cpu": str(compute.vcpus), "memory": f"{compute.memory_gib}Gi"}
    if compute.gpus:
        resources[kubernetes.GPU] = str(compute.gpus)
    if compute.instances > 1 and efa:
        resources[kubernetes.EFA] = str(efa)
    environment = _environment(job, work_folder(training, job.model)) | {
        "MLP_NODES": str(compute.instances),
        "MLP_MASTER": f"{job.name}-worker-0-0.{job.name}",  # JobSet gives each pod a name in DNS
    }
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]
    if eks.lake:
        claim = {"claimName": kubernetes.LAKE_CLAIM, "readOnly": True}
        volumes.append({"name": "lake", "persistentVolumeClaim": claim})
        mounts.append({"name": "lake", "mountPath": kubernetes.LAKE})
    container = {
        "name": "training",
        "image": training.image,
        "command": ENTRYPOINT,
        "args": [job.step, job.model],
        "env": _pairs(environment),
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "serviceAccountName": eks.teams[compute.team].service_account,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    } | kubernetes.placement(pool, compute.gpus, spot=compute.spot)


def submit(job: Job, outputs: Outputs, backend: str) -> str:
    """Start a job, by the AWS clients that the environment variables configure, or by kubectl.

    Returns:
        What the backend calls it: an ARN, or the name of a JobSet.

    Raises:
        PlatformError: if the backend is not on, the job does not fit on it, or kubectl does not take it.
    """
    import boto3

    asked = request(job, outputs, backend)
    _put_outputs(job.model, outputs)
    if backend == "sagemaker":
        return str(boto3.client("sagemaker").create_training_job(**asked)["TrainingJobArn"])
    if backend == "batch":
        return str(boto3.client("batch").submit_job(**asked)["jobArn"])
    return _create(asked, training_of(outputs), outputs.region)


def _put_outputs(model: str, outputs: Outputs) -> None:
    """Put the stack's outputs into the model's work folder: they are too long for a variable."""
    import boto3

    bucket, _, folder = work_folder(training_of(outputs), model).removeprefix("s3://").partition("/")
    document = outputs.model_dump_json(indent=1).encode()
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{folder}/{OUTPUTS_FILE}", Body=document)


def _create(manifest: Mapping[str, Any], training: TrainingOutputs, region: str) -> str:
    """Create an object in the environment's own cluster, whatever context kubectl happens to be in."""
    import boto3

    if not shutil.which("kubectl"):
        raise PlatformError(
            "a job on eks is created by kubectl, which is not installed; see kubernetes.io/docs/tasks/tools"
        )
    assert training.eks, "it was checked that the backend is on"
    name = training.eks.cluster
    cluster = boto3.client("eks", region_name=region).describe_cluster(name=name)["cluster"]
    way_in = kubernetes.kubeconfig(name, region, cluster["endpoint"], cluster["certificateAuthority"]["data"])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(way_in, file)
        file.flush()
        command = ["kubectl", "create", f"--kubeconfig={file.name}", "--output=name", "--filename=-"]
        done = subprocess.run(command, input=json.dumps(manifest), capture_output=True, text=True, check=False)
    if done.returncode:
        raise PlatformError(f"kubectl did not create the job: {done.stderr.strip()}")
    return done.stdout.strip()
