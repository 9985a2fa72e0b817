"""Metrics and alerts: encrypted, logged, collected by least privilege; the settings refuse what cannot be."""

import json
import re

import pytest
import yaml

from contract.errors import PlatformError
from contract.metrics import JOBS
from embedded.aws import EmulatedAws
from embedded.project import load_settings
from embedded.resources import ROWS
from embedded.state import State
from infra.collectors import collector, scrape_configuration
from infra.prometheus import alert_manager
from infra.settings.observability import ObservabilitySettings
from tests.conftest import REGION
from tests.infra import observed
from tests.infra.conftest import EVERYTHING_ON, PROD, KnownIds
from tests.infra.observed import TOPIC, observe, one


@pytest.fixture(scope="module")
def managed():
    return observed.managed()


@pytest.fixture(scope="module")
def on_cluster():
    return observed.on_cluster()


def test_the_workspace_is_encrypted_logged_and_keeps_what_the_settings_say(managed):
    workspace = one(managed, "aws:amp/workspace:Workspace")
    assert workspace.inputs["kmsKeyArn"].startswith("arn:aws:kms:")
    assert workspace.inputs["loggingConfiguration"]["logGroupArn"].endswith(":*")
    assert one(managed, "aws:amp/workspaceConfiguration:WorkspaceConfiguration").inputs["retentionPeriodInDays"] == 150


def test_the_workspace_is_protected_in_production(build):
    prod = build("prod", **EVERYTHING_ON)
    assert one(prod, "aws:amp/workspace:Workspace").protect
    assert one(prod, "aws:grafana/workspace:Workspace").protect


def test_alerts_go_to_the_topic_with_their_runbook(managed):
    definition = one(managed, "aws:amp/alertManagerDefinition:AlertManagerDefinition").inputs["definition"]
    manager = yaml.safe_load(yaml.safe_load(definition)["alertmanager_config"])
    (receiver,) = manager["receivers"]
    (sns,) = receiver["sns_configs"]
    assert manager["route"]["receiver"] == receiver["name"]
    assert sns["topic_arn"] == TOPIC
    assert sns["sigv4"] == {"region": "eu-west-1"}  # without it the message is not sent
    assert "runbook" in sns["message"]
    # What AWS's alert manager refuses.
    assert not {"api_url", "http_config"} & sns.keys()
    assert alert_manager(TOPIC, "eu-west-1") == definition


def test_without_a_topic_there_is_no_alert_manager():
    deployment = observe(KnownIds(), topic=None, prometheus=True)
    assert not deployment.of_type("aws:amp/alertManagerDefinition:AlertManagerDefinition")


def test_the_scraper_stands_in_the_private_subnets(on_cluster):
    inputs = one(on_cluster, "aws:amp/scraper:Scraper").inputs
    assert inputs["source"]["eks"]["subnetIds"] == ["acme-test-private-a", "acme-test-private-b"]
    assert inputs["source"]["eks"]["securityGroupIds"] == ["sg-1"]
    assert inputs["destination"]["amp"]["workspaceArn"].startswith("arn:aws:aps:")
    assert yaml.safe_load(inputs["scrapeConfiguration"]) == scrape_configuration()


def test_without_a_cluster_there_is_no_scraper(managed):
    assert not managed.of_type("aws:amp/scraper:Scraper")


def test_only_what_a_dashboard_or_rule_may_know_is_kept():
    jobs = {job["job_name"]: job for job in scrape_configuration()["scrape_configs"]}
    jobs["inference"] = collector("https://aps/", "eu-west-1", 8080)["receivers"]["prometheus"]["config"][
        "scrape_configs"
    ][0]
    assert jobs.keys() == JOBS.keys()
    for name, job in jobs.items():
        (keep,) = job["metric_relabel_configs"]
        assert (keep["action"], keep["source_labels"]) == ("keep", ["__name__"])
        for series in (series for metric in JOBS[name] for series in metric.series):
            assert re.fullmatch(keep["regex"], series)
        assert not re.fullmatch(keep["regex"], "python_gc_objects_collected_total")


def test_the_collector_on_ecs_writes_signed_and_tells_the_tasks_apart(managed):
    container = managed.outputs["container"]
    assert container["essential"] is False
    assert container["readonlyRootFilesystem"] is True
    assert re.search(r":v\d+\.\d+\.\d+@sha256:[0-9a-f]{64}$", container["image"])
    (variable,) = container["environment"]
    configuration = yaml.safe_load(variable["value"])
    exporter = configuration["exporters"]["prometheusremotewrite"]
    endpoint = one(managed, "aws:amp/workspace:Workspace").outputs["prometheusEndpoint"]
    assert exporter["endpoint"] == f"{endpoint}api/v1/remote_write"
    assert exporter["auth"]["authenticator"] in configuration["service"]["extensions"]
    assert configuration["extensions"]["sigv4auth"] == {"region": "eu-west-1", "service": "aps"}
    (instance,) = configuration["processors"]["resource"]["attributes"]
    assert (instance["key"], instance["from_attribute"]) == ("service.instance.id", "aws.ecs.task.arn")
    for pipeline in configuration["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= configuration[kind].keys()


def test_the_task_may_write_metrics_and_nothing_else(managed):
    workspace = one(managed, "aws:amp/workspace:Workspace").outputs["arn"]
    assert managed.outputs["may"] == {"Effect": "Allow", "Action": ["aps:RemoteWrite"], "Resource": workspace}


def test_without_grafana_each_model_has_a_dashboard_in_cloudwatch():
    deployment = observe(KnownIds())
    boards = {
        r.inputs["dashboardName"]: json.loads(r.inputs["dashboardBody"])
        for r in deployment.of_type("aws:cloudwatch/dashboard:Dashboard")
    }
    assert boards.keys() == {"acme-test-model-digits", "acme-test-model-anomaly"}
    assert not deployment.of_type("aws:amp/workspace:Workspace")
    assert all(board["widgets"] for board in boards.values())


def test_with_grafana_there_is_none(managed):
    assert not managed.of_type("aws:cloudwatch/dashboard:Dashboard")


def test_what_costs_is_off_in_dev_and_on_in_prod():
    assert load_settings("dev").observability == ObservabilitySettings()
    for environment in ("staging", "prod"):
        settings = load_settings(environment).observability
        assert (settings.prometheus, settings.grafana) == (True, "managed")


def test_what_the_emulator_has_is_really_created_there(emulated_aws, tmp_path):
    provider = EmulatedAws(emulated_aws.url, REGION, State.load(tmp_path / "state.json", emulated_aws.identity))
    observe(provider, prometheus=True)
    held = provider.state.resources.values()
    recorded = {resource.type for resource in held if resource.recorded_only}
    assert {type_ for type_ in recorded if type_.startswith("aws:")} == {
        "aws:amp/workspaceConfiguration:WorkspaceConfiguration",
        "aws:amp/alertManagerDefinition:AlertManagerDefinition",
    }
    amp = provider.client("amp")
    (workspace,) = amp.list_workspaces()["workspaces"]
    assert workspace["alias"] == "acme-test-metrics"
    logging = amp.describe_logging_configuration(workspaceId=workspace["workspaceId"])["loggingConfiguration"]
    assert logging["logGroupArn"].endswith(":*")
    for name in ("recordings", "alerts"):
        found = amp.describe_rule_groups_namespace(workspaceId=workspace["workspaceId"], name=name)
        assert yaml.safe_load(found["ruleGroupsNamespace"]["data"])["groups"]
    board = provider.client("cloudwatch").get_dashboard(DashboardName="acme-test-model-digits")
    assert json.loads(board["DashboardBody"])["widgets"]
    again = EmulatedAws(emulated_aws.url, REGION, State.load(tmp_path / "state.json", emulated_aws.identity))
    observe(again, prometheus=True)
    assert {step.action for step in again.steps if not step.note} == {"same"}


def test_a_changed_rule_is_changed_in_place(emulated_aws, tmp_path):
    state = State.load(tmp_path / "state.json", emulated_aws.identity)
    observe(EmulatedAws(emulated_aws.url, REGION, state), prometheus=True)
    changed = EmulatedAws(emulated_aws.url, REGION, state)
    observe(changed, prometheus=True, error_percent=7)
    assert [step.action for step in changed.steps if "acme-test-alerts" in step.urn and "ruleGroup" in step.type] == [
        "update"
    ]
    amp = changed.client("amp")
    (workspace,) = amp.list_workspaces()["workspaces"]
    found = amp.describe_rule_groups_namespace(workspaceId=workspace["workspaceId"], name="alerts")
    assert b"> 0.07" in found["ruleGroupsNamespace"]["data"]


def test_every_type_is_created_or_known_to_be_recorded_only(managed, on_cluster):
    used = {
        r.type for d in (managed, on_cluster) for r in d.resources.values() if r.custom and r.type.startswith("aws:")
    }
    assert used - ROWS.keys() == {
        "aws:amp/alertManagerDefinition:AlertManagerDefinition",
        "aws:amp/scraper:Scraper",
        "aws:amp/workspaceConfiguration:WorkspaceConfiguration",
        "aws:eks/podIdentityAssociation:PodIdentityAssociation",
        "aws:grafana/roleAssociation:RoleAssociation",
        "aws:grafana/workspace:Workspace",
        "aws:grafana/workspaceServiceAccount:WorkspaceServiceAccount",
        "aws:grafana/workspaceServiceAccountToken:WorkspaceServiceAccountToken",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"grafana": "cloud"},
            "observability.grafana: input should be 'managed', 'cluster' or 'none', but it is 'cloud'",
        ),
        (
            {"grafana": "managed"},
            "observability: grafana: managed shows what Prometheus holds, so it needs prometheus: true",
        ),
        ({"prometheus": True, "grafana": "managed", "grafana_version": "9.4"}, "input should be '12.4' or '13.2'"),
        (
            {"admins": ["12345678-1234-1234-1234-123456789012"]},
            "admins: only grafana: managed has a sign-in of its own",
        ),
        ({"prometheus": True, "grafana": "managed", "admins": ["ml-admins"]}, "observability.admins.0"),
        (
            {"latency_ms": 70},
            "latency_ms is 70, which the service does not count; allowed: 0.25, 0.5, 1, 2.5, 5, 10, 25",
        ),
        ({"retention_days": 2000}, "observability.retention_days: input should be less than or equal to 1095"),
        ({"idle_gpu_minutes": 1}, "observability.idle_gpu_minutes: input should be greater than or equal to 5"),
        ({"grafanna": "none"}, "unknown key 'grafanna'; did you mean 'grafana'?"),
        (
            {"prometheus": True, "grafana": "managed", "saml": {"metadata_url": "http://idp", "admin_values": ["a"]}},
            "observability.saml.metadata_url",
        ),
        (
            {
                "prometheus": True,
                "grafana": "managed",
                "viewers": ["12345678-1234-1234-1234-123456789012"],
                "saml": {"metadata_url": "https://idp", "admin_values": ["a"]},
            },
            "viewers: with saml, the identity provider's attribute says who may do what",
        ),
    ],
)
def test_a_mistake_names_file_key_and_what_is_allowed(preview, change, said):
    with pytest.raises(PlatformError) as caught:
        preview(observability=change)
    assert str(caught.value).startswith("Pulumi.test.yaml is not valid:")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("region", "change", "said"),
    [
        (
            "eu-north-1",
            {"prometheus": True, "grafana": "managed"},
            "grafana: eu-north-1 has no Managed Grafana; take cluster or none, or one of ap-northeast-1",
        ),
        ("cn-north-1", {"prometheus": True}, "prometheus: cn-north-1 has no Managed Prometheus"),
    ],
)
def test_a_region_that_lacks_the_service_is_refused(preview, region, change, said):
    zones = {"network": {"zones": ["a", "b"]}}
    preview(region=region, **zones)
    with pytest.raises(PlatformError) as caught:
        preview(region=region, observability=change, **zones)
    assert said in str(caught.value)


def test_nothing_of_the_workspace_breaks_a_guardrail_in_production(build):
    from cli.preview import check

    config = PROD | {"observability": EVERYTHING_ON["observability"]}
    deployment = build("prod", **config)
    broken = check("prod", deployment).violations
    assert [str(violation) for violation in broken if "grafana" in str(violation) or "metrics" in str(violation)] == []
