"""What an environment is made of: reads its settings and wires the layers."""

import pulumi

from contract.manifest import load_manifest, model_names
from infra.audit import Audit, AuditArgs
from infra.batch import Batch, BatchArgs
from infra.catalog import Catalog, CatalogArgs
from infra.checks import check
from infra.cost import Cost, CostArgs
from infra.dashboards.platform import gpu_backends, served
from infra.database import Database, DatabaseArgs
from infra.foundation import Foundation
from infra.identity import Identity, IdentityArgs
from infra.inference import Inference, InferenceArgs
from infra.limits import Limits
from infra.mlflow import Mlflow, MlflowArgs
from infra.naming import Naming, tag_everything
from infra.network import Network, NetworkArgs
from infra.notifications import Notifications, NotificationsArgs
from infra.observability import Observability, ObservabilityArgs
from infra.registry import Registry, RegistryArgs
from infra.scoring import ScheduledScoring, ScheduledScoringArgs
from infra.settings import load
from infra.storage import Storage, StorageArgs
from infra.tracking import Tracking, TrackingArgs
from infra.training import Training, TrainingArgs

settings = load()
models = {name: load_manifest(name) for name in model_names()}
check(settings, models)
naming = Naming.of(settings, models)
tag_everything(naming)

lustre = bool(settings.cluster and settings.cluster.lustre)
storage = Storage("storage", StorageArgs(settings.storage, settings.region, settings.protect, lustre), naming)
network = Network("network", NetworkArgs(settings.network, settings.region, storage.log_delivery_arn), naming)
images = ["inference", "training"] + ["mlflow"] * bool(settings.data.mlflow and settings.data.mlflow.ecs)
registry = Registry(
    "registry",
    RegistryArgs(images, list(models), storage.key_arn, settings.storage.force_destroy, settings.protect),
    naming,
)
foundation = Foundation(
    naming,
    settings.region,
    storage,
    network,
    registry,
    settings.audit.log_retention_days,
    settings.protect,
    settings.permissions_boundary or None,
    managed_mlflow=bool(settings.data.mlflow and not settings.data.mlflow.ecs),
)
identity = Identity("identity", IdentityArgs(models), foundation)
notifications = Notifications(
    "notifications", NotificationsArgs(settings.alerts, settings.observability.prometheus), foundation
)
training = Training("training", TrainingArgs(settings.training, identity.training, notifications.topic_arn), foundation)
batch = None
if settings.training.batch:
    queues = BatchArgs(settings.training.batch, training, settings.training.idle_minutes, notifications.topic_arn)
    batch = Batch("batch", queues, foundation)
compute = None
if settings.cluster:
    from infra.compute import Compute, ComputeArgs  # Kubernetes' package is loaded only where it is used

    args = ComputeArgs(
        settings.cluster,
        settings.network.zones,
        settings.observability.prometheus,
        settings.training.idle_minutes,
        notifications.topic_arn,
    )
    compute = Compute("compute", args, foundation)
catalog = Catalog("catalog", CatalogArgs(models, storage, settings.storage.force_destroy), naming)
database, tracking = None, None
if settings.data.aurora:
    database = Database(
        "database", DatabaseArgs(settings.data.aurora, network, storage.key_arn, settings.protect), naming
    )
if settings.data.mlflow and settings.data.mlflow.ecs:
    assert database, "the settings refuse MLflow on ECS without a database"
    tracking = Mlflow("mlflow", MlflowArgs(settings.data.mlflow.size, settings.data.mlflow.ecs, database), foundation)
elif settings.data.mlflow:
    tracking = Tracking("tracking", TrackingArgs(settings.data.mlflow.size), foundation)
if settings.audit.trail:
    Audit("audit", AuditArgs(storage), naming)
Cost("cost", CostArgs(settings.budget), naming)
observability = Observability(
    "observability",
    ObservabilityArgs(
        settings.observability,
        Limits.of(settings),
        served(models, naming),
        catalog,
        settings.budget.monthly_usd,
        notifications.topic_arn,
        compute.watched if compute else None,
        gpu_backends(settings.training),
    ),
    foundation,
)
inference = Inference(
    "inference",
    InferenceArgs(
        settings.inference,
        settings.alerts,
        models,
        identity.inference,
        notifications.topic_arn,
        observability.prometheus,
    ),
    foundation,
)

# These are the fields of contract.outputs.Outputs: what the pipeline, the service and the command line may know.
outputs = {
    "environment": settings.environment,
    "region": settings.region,
    "buckets": {what: bucket.bucket for what, bucket in storage.buckets.items()},
    "key_arn": storage.key_arn,
    "training_role": identity.training.arn,
    "tracking_uri": tracking.uri if tracking else "",
    "images": {image: repository.repository_url for image, repository in registry.repositories.items()},
    "models": {
        name: {
            "package_group": registry.model_package_groups[name].model_package_group_name,
            "live_parameter": inference.live_parameters[name],
            "endpoint": pulumi.Output.concat(inference.endpoint, f"/v2/models/{name}"),
        }
        for name in models
    },
    "service": inference.service_settings(*models).environment(),
}
if scored := {name: manifest.scoring for name, manifest in models.items() if manifest.scoring}:
    jobs = ScheduledScoringArgs(scored, training.image, outputs, notifications.topic_arn)
    ScheduledScoring("scoring", jobs, foundation)
for field, value in outputs.items():
    pulumi.export(field, value)
pulumi.export("training", training.outputs(batch.outputs() if batch else None, compute.outputs() if compute else None))
