"""Runs the part of the program that observes: a service on ECS and one on Lambda, a topic, and a cluster if wanted."""

import functools

import pulumi

from contract.manifest import load_manifest
from embedded.monitor import run
from infra.catalog import Catalog, CatalogArgs
from infra.dashboards.platform import ServedModel
from infra.foundation import Foundation
from infra.naming import Naming
from infra.network import Network, NetworkArgs
from infra.observability import Cluster, Observability, ObservabilityArgs
from infra.prometheus import ScrapedCluster
from infra.registry import Registry, RegistryArgs
from infra.settings.data import StorageSettings
from infra.settings.network import NetworkSettings
from infra.settings.observability import ObservabilitySettings
from infra.storage import Storage, StorageArgs
from tests.infra.conftest import KnownIds

TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
MODELS = (
    ServedModel("digits", "ecs", {"ClusterName": "c", "ServiceName": "s"}),
    ServedModel("anomaly", "lambda", {"FunctionName": "f"}),
)


def observe(provider=None, *, on_cluster=False, topic=TOPIC, **settings):
    """Run the part of the program that this is about, with a service on ECS, a topic and a cluster."""

    def program():
        import pulumi_kubernetes as kubernetes

        naming = Naming("acme", "test")
        storage = Storage("storage", StorageArgs(StorageSettings(), "eu-west-1", False), naming)
        network_settings = NetworkSettings(cidr="10.0.0.0/16")
        network = Network("network", NetworkArgs(network_settings, "eu-west-1", storage.log_delivery_arn), naming)
        registry = Registry("registry", RegistryArgs(["inference"], ["digits"], storage.key_arn, True, False), naming)
        on = Foundation(naming, "eu-west-1", storage, network, registry, 14, False)
        catalog = Catalog("catalog", CatalogArgs({"digits": load_manifest("digits")}, storage, True), naming)
        cluster = None
        if on_cluster:
            kube = kubernetes.Provider("cluster", kubeconfig="{}")
            arn = "arn:aws:eks:eu-west-1:123456789012:cluster/acme-test"
            cluster = Cluster("acme-test", ScrapedCluster(arn, "sg-1"), kube)
        args = ObservabilityArgs(ObservabilitySettings(**settings), MODELS, catalog, 100, topic, cluster)
        prometheus = Observability("observability", args, on).prometheus
        if prometheus:
            pulumi.export("container", prometheus.ecs_collector("/acme/test/inference/digits", 8080))
            pulumi.export("may", prometheus.write())

    deployment = run(program, project="ml-platform", stack="test", config={}, provider=provider)
    deployment.outputs["environment"] = "test"
    return deployment


@functools.cache
def managed():
    """With the managed Grafana, everything having an id."""
    admins = ["12345678-1234-1234-1234-123456789012"]
    return observe(KnownIds(), prometheus=True, grafana="managed", admins=admins)


@functools.cache
def on_cluster():
    """With a cluster that has Grafana on it."""
    return observe(KnownIds(), on_cluster=True, prometheus=True, grafana="cluster")


def one(deployment, type_):
    (resource,) = deployment.of_type(type_)
    return resource
