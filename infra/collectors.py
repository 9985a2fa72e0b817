"""Collectors: who reads the exporters' metrics, and which of them are kept."""

from typing import Any

import pulumi
import yaml

from contract.metrics import JOBS, SCRAPE_SECONDS
from infra.foundation import awslogs

# AWS Distro for OpenTelemetry; releases: github.com/aws-observability/aws-otel-collector.
COLLECTOR_IMAGE = (
    "public.ecr.aws/aws-observability/aws-otel-collector:v0.48.0"
    "@sha256:9b28046359054b414f4ba76056ba4e8cffda2d53fbcee06171d7eeecd71326c3"
)


def kept(job: str) -> str:
    """A regular expression of the series of a job that a dashboard or a rule knows; others are not paid for."""
    return "|".join(name for metric in JOBS[job] for name in metric.series)


def sidecar(
    remote_write: pulumi.Input[str], region: str, log_group: pulumi.Input[str], metrics_port: int
) -> dict[str, Any]:
    """The container definition of a collector that stands beside the service in its ECS task.

    It is not essential: predictions go on without it.

    Args:
        remote_write: the workspace's endpoint, ending in a slash.
        region: the environment's.
        log_group: name of the log group for its own log.
        metrics_port: where the service answers `/metrics`, in the same task.
    """
    configuration = pulumi.Output.from_input(remote_write).apply(
        lambda endpoint: yaml.safe_dump(collector(endpoint, region, metrics_port), sort_keys=False)
    )
    return {
        "name": "collector",
        "image": COLLECTOR_IMAGE,
        "essential": False,
        "cpu": 32,
        "memoryReservation": 64,
        "memory": 256,
        "readonlyRootFilesystem": True,
        "linuxParameters": {"initProcessEnabled": False, "capabilities": {"drop": ["ALL"]}},
        "environment": [{"name": "AOT_CONFIG_CONTENT", "value": configuration}],
        "healthCheck": {"command": ["CMD", "/healthcheck"], "interval": 30, "timeout": 5, "retries": 3},
        "logConfiguration": awslogs(log_group, region, "collector"),
    }


def collector(endpoint: str, region: str, metrics_port: int) -> dict[str, Any]:
    """The OpenTelemetry collector's configuration: scrape the service, name the task, write to Prometheus."""
    job = {
        "job_name": "inference",
        "scrape_interval": f"{SCRAPE_SECONDS}s",
        "static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}],
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": kept("inference"), "action": "keep"}],
    }
    return {
        "extensions": {"health_check": {}, "sigv4auth": {"region": region, "service": "aps"}},
        "receivers": {"prometheus": {"config": {"scrape_configs": [job]}}},
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_mib": 200},
            "resourcedetection": {"detectors": ["ecs"]},
            # Every task scrapes its own 127.0.0.1: told apart by the task, or they would overwrite each other.
            "resource": {
                "attributes": [{"key": "service.instance.id", "from_attribute": "aws.ecs.task.arn", "action": "upsert"}]
            },
            "batch": {"timeout": "10s"},
        },
        "exporters": {
            "prometheusremotewrite": {
                "endpoint": f"{endpoint}api/v1/remote_write",
                "auth": {"authenticator": "sigv4auth"},
                # Names as the service has them, and no series about the collector itself.
                "add_metric_suffixes": False,
                "disable_scope_info": True,
                "target_info": {"enabled": False},
            }
        },
        "service": {
            "extensions": ["health_check", "sigv4auth"],
            "pipelines": {
                "metrics": {
                    "receivers": ["prometheus"],
                    "processors": ["memory_limiter", "resourcedetection", "resource", "batch"],
                    "exporters": ["prometheusremotewrite"],
                }
            },
        },
    }


def scrape_configuration() -> dict[str, Any]:
    """What the scraper of an EKS cluster collects: the GPUs from NVIDIA's exporter, the queues from Kueue."""
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s"},
        "scrape_configs": [
            _pods("dcgm", "dcgm-exporter", 9400),
            _pods("kueue", "kueue", 8443)
            | {
                # Kueue shows its metrics to those whom the API server knows and lets read /metrics.
                "scheme": "https",
                "authorization": {"credentials_file": "/var/run/secrets/kubernetes.io/serviceaccount/token"},
                "tls_config": {"insecure_skip_verify": True},  # its certificate is its own
            },
        ],
    }


def _pods(job: str, application: str, port: int) -> dict[str, Any]:
    """Scrape the pods that a chart labels with an application's name, at one port."""
    label = "__meta_kubernetes_pod_label_app_kubernetes_io_name"
    return {
        "job_name": job,
        "honor_labels": True,  # the exporter says whose pod holds a GPU; its own pod does not matter
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": [
            {"source_labels": [label], "regex": application, "action": "keep"},
            {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running", "action": "keep"},
            # A pod is found once for every port that it names; all of them become the same target.
            {
                "source_labels": ["__meta_kubernetes_pod_ip"],
                "target_label": "__address__",
                "replacement": f"$1:{port}",
            },
        ],
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": kept(job), "action": "keep"}],
    }
