"""Settings: a mistake is refused before any resource is registered, with file, key and what is allowed."""

import json

import pytest

from contract.errors import PlatformError
from contract.manifest import model_names
from embedded.project import environments, read_config
from infra.settings.network import NetworkSettings
from tests.infra.conftest import MLFLOW_ON_ECS, PROD

LONGEST = max(map(len, model_names()))


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        (
            "network",
            {"zone": ["a"]},
            "ml-platform:network: unknown key 'zone'; did you mean 'zones'? allowed: cidr, endpoints, existing",
        ),
        (
            "network",
            {"nat": "double"},
            "ml-platform:network.nat: input should be 'none', 'single' or 'per-zone', but it is",
        ),
        (
            "network",
            {"cidr": "10.0.0.0/24"},
            "ml-platform:network.cidr: must be between /16 and /20, but it is '10.0.0.0/24'",
        ),
        (
            "network",
            {"cidr": "8.8.0.0/16"},
            "must be a private range: inside 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16",
        ),
        ("network", {"cidr": "127.0.0.0/16"}, "must be a private range"),
        ("network", {"cidr": "10.0.0.1/16"}, "ml-platform:network.cidr"),
        ("network", {"zones": ["a"]}, "ml-platform:network: zones must be 2 to 4 different letters, but they are a"),
        ("network", {"zones": ["a", "a"]}, "zones must be 2 to 4 different letters, but they are a, a"),
        ("network", {"zones": ["a", "eu-west-1b"]}, "ml-platform:network.zones.1"),
        (
            "network",
            {"reserved": ["10.0.128.0/20"]},
            "cidr 10.0.0.0/16 overlaps the reserved range 10.0.128.0/20; choose another one",
        ),
        ("network", {"cidr": None}, "give either cidr, for a VPC of its own, or existing"),
        (
            "network",
            {"endpoints": ["s4"]},
            "ml-platform:network.endpoints.0: input should be 'ecr', 'firehose', 'kms', 'logs'",
        ),
        ("network", {"zones": ["a", "f"]}, "ml-platform:network.zones: eu-west-1 has no zone f; its zones are a, b, c"),
        ("data", {"aurora": {"min_acu": 4, "max_acu": 2}}, "min_acu 4.0 is greater than max_acu 2.0"),
        (
            "data",
            {"mlflow": {"size": "Tiny"}},
            "ml-platform:data.mlflow.size: input should be",
        ),
        ("data", {"mlflow": MLFLOW_ON_ECS["mlflow"]}, "ml-platform:data.mlflow.ecs: it keeps its runs in PostgreSQL"),
        ("budget", {"emails": ["nobody"]}, "ml-platform:budget.emails.0"),
        ("version", 2, "ml-platform:version is 2, but this checkout reads version 1"),
        (
            "waivers",
            '[{"rule": "bucket-versioned", "resource": "x", "reason": "long enough to be one", "until": "2020-01-01"}]',
            "ml-platform:waivers.0.until: the waiver from bucket-versioned for x expired on 2020-01-01",
        ),
        ("tier", "production", "ml-platform:tier: input should be 'dev', 'staging' or 'prod'"),
        ("prefix", "Acme", "ml-platform:prefix"),
        (
            "prefix",
            "a" * 60,
            f"which is {20 + LONGEST} character(s) longer than IAM takes; allowed here are {40 - LONGEST}",
        ),
        ("permissions_boundary", "boundary", "ml-platform:permissions_boundary"),
        ("region", "eu-west-9", "aws:region 'eu-west-9' is not a region that botocore knows"),
        ("storage", {"noncurrent_days": 0}, "greater than or equal to 1, but it is 0"),
        ("inference", {"image_digest": "latest"}, "ml-platform:inference.image_digest"),
        ("audit", {"log_retention_days": 15}, "input should be 1, 3, 5, 7, 14"),
        ("inference", {"max_body_mb": 7}, "less than or equal to 6"),
        ("inference", {"throttling": {"rat": 1}}, "ml-platform:inference.throttling: unknown key 'rat'"),
    ],
)
def test_a_mistake_names_file_key_and_what_is_allowed(preview, section, change, said):
    with pytest.raises(PlatformError) as caught:
        preview(**{section: change})
    assert str(caught.value).startswith("Pulumi.test.yaml is not valid:")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("storage", {"force_destroy": True}, "ml-platform:storage.force_destroy"),
        ("storage", {"noncurrent_days": 7}, "ml-platform:storage.noncurrent_days: prod needs at least 30, but it is 7"),
        ("network", {"zones": ["a", "b"]}, "ml-platform:network.zones: prod needs at least 3, but they are a, b"),
        ("network", {"nat": "single"}, "ml-platform:network.nat: prod takes per-zone or none"),
        ("network", {"flow_logs": False}, "ml-platform:network.flow_logs: prod needs them"),
        (
            "data",
            {"aurora": {"backup_days": 1}},
            "ml-platform:data.aurora.backup_days: prod needs at least 7, but it is 1",
        ),
        ("audit", {"log_retention_days": 1}, "ml-platform:audit.log_retention_days: prod needs at least 90"),
    ],
)
def test_production_may_not_ask_for_what_only_dev_may_have(preview, section, change, said):
    preview(**PROD)
    with pytest.raises(PlatformError) as caught:
        preview(**PROD | {section: PROD.get(section, {}) | change})
    assert said in str(caught.value)
    preview(**{section: change})  # allowed in dev


def test_the_shipped_environments_do_not_overlap():
    """They can be connected one day."""
    networks = {
        environment: NetworkSettings.model_validate(json.loads(read_config(environment)["ml-platform:network"]))
        for environment in environments()
        if environment != "local"
    }
    for name, network in networks.items():
        others = {other.cidr for its_name, other in networks.items() if its_name != name}
        assert set(network.reserved) == others
