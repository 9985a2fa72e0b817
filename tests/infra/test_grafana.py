"""Grafana, managed and on the cluster: sign-in, least privilege, the same dashboards and data sources in both."""

import json
import re
from datetime import date

import pytest

from infra.grafana import week
from tests.infra import observed
from tests.infra.conftest import KnownIds, as_list, only, statements
from tests.infra.observed import TOPIC, observe, one


@pytest.fixture(scope="module")
def managed():
    return observed.managed()


@pytest.fixture(scope="module")
def on_cluster():
    return observed.on_cluster()


def test_people_sign_in_with_identity_center(managed):
    workspace = one(managed, "aws:grafana/workspace:Workspace").inputs
    assert workspace["authenticationProviders"] == ["AWS_SSO"]
    assert workspace["accountAccessType"] == "CURRENT_ACCOUNT"
    assert workspace["kmsKeyId"].startswith("arn:aws:kms:")
    association = one(managed, "aws:grafana/roleAssociation:RoleAssociation").inputs
    assert association["role"] == "ADMIN"
    assert association["groupIds"] == ["12345678-1234-1234-1234-123456789012"]
    assert not managed.of_type("aws:grafana/workspaceSamlConfiguration:WorkspaceSamlConfiguration")


def test_or_by_saml():
    saml = {"metadata_url": "https://idp.example.com/metadata", "admin_values": ["ml-admin"]}
    deployment = observe(KnownIds(), prometheus=True, grafana="managed", saml=saml)
    assert one(deployment, "aws:grafana/workspace:Workspace").inputs["authenticationProviders"] == ["SAML"]
    inputs = one(deployment, "aws:grafana/workspaceSamlConfiguration:WorkspaceSamlConfiguration").inputs
    assert inputs["idpMetadataUrl"] == "https://idp.example.com/metadata"
    assert inputs["adminRoleValues"] == ["ml-admin"]
    assert not deployment.of_type("aws:grafana/roleAssociation:RoleAssociation")


def test_the_token_is_secret_short_lived_and_replaced_every_week(managed):
    token = one(managed, "aws:grafana/workspaceServiceAccountToken:WorkspaceServiceAccountToken")
    assert token.inputs["secondsToLive"] <= 14 * 24 * 3600
    assert "key" in token.secret_outputs
    assert week(date(2026, 11, 20)) == week(date(2026, 11, 16)) == "2026-W47"
    assert week(date(2026, 11, 23)) == "2026-W48"
    assert week(date(2027, 1, 1)) == "2026-W53"


def test_a_preview_knows_neither_address_nor_token_and_shows_the_content():
    deployment = observe(prometheus=True, grafana="managed")
    names = {r.name for r in deployment.of_type("grafana:oss/dashboard:Dashboard")}
    assert names == {f"acme-test-{what}" for what in ("overview", "model-digits", "model-anomaly", "cost")}
    provider = one(deployment, "pulumi:providers:grafana")
    assert provider.inputs["auth"] != ""
    assert len(deployment.of_type("grafana:oss/dataSource:DataSource")) == 3


def test_dashboards_are_in_the_environments_folder_and_use_its_provider(managed):
    folder = one(managed, "grafana:oss/folder:Folder")
    assert folder.inputs["uid"] == "acme-test"
    content = [r for r in managed.resources.values() if r.type.startswith("grafana:")]
    provider = one(managed, "pulumi:providers:grafana")
    assert len(content) >= 9
    assert all(resource.provider.startswith(provider.urn) for resource in content)
    for dashboard in managed.of_type("grafana:oss/dashboard:Dashboard"):
        assert json.loads(dashboard.inputs["configJson"])["uid"].startswith("acme-test-")
        assert dashboard.inputs["overwrite"] is True


def test_the_data_sources_are_those_that_the_dashboards_use(managed):
    sources = {r.inputs["uid"]: r.inputs for r in managed.of_type("grafana:oss/dataSource:DataSource")}
    used = set()
    for dashboard in managed.of_type("grafana:oss/dashboard:Dashboard"):
        for panel in json.loads(dashboard.inputs["configJson"])["panels"]:
            used |= {(t["datasource"]["uid"], t["datasource"]["type"]) for t in panel.get("targets", [])}
    assert used <= {(uid, source["type"]) for uid, source in sources.items()}
    assert json.loads(sources["prometheus"]["jsonDataEncoded"])["sigV4Region"] == "eu-west-1"
    assert not sources["prometheus"]["url"].endswith("/")
    assert json.loads(sources["athena"]["jsonDataEncoded"])["workgroup"] == "acme-test-lake"


def test_alerts_made_in_grafana_go_to_the_topic_too(managed):
    point = one(managed, "grafana:alerting/contactPoint:ContactPoint")
    assert [sns["topic"] for sns in point.inputs["sns"]] == [TOPIC]
    assert one(managed, "grafana:alerting/notificationPolicy:NotificationPolicy").inputs["contactPoint"] == "topic"


@pytest.mark.parametrize("where", ["managed", "on_cluster"])
def test_grafana_reads_and_writes_nothing_but_query_results(where, request):
    deployment = request.getfixturevalue(where)
    policy = only(deployment, "aws:iam/rolePolicy:RolePolicy", "grafana").inputs["policy"]
    writing = {}
    for statement in statements(policy):
        for action in as_list(statement["Action"]):
            if not re.match(r"\w+:(Get|List|Describe|Query|StartQuery|StopQuery)", action):
                writing[action] = as_list(statement["Resource"])
        if "*" in as_list(statement["Resource"]):
            assert all(action.startswith("cloudwatch:") for action in statement["Action"])
    assert writing.pop("s3:PutObject") == ["arn:aws:s3:::acme-test-queries/athena/*"]
    assert set(writing) <= {"kms:Decrypt", "kms:GenerateDataKey", "sns:Publish"}
    assert "acme-test-raw" not in policy
    assert "acme-test-artifacts" not in policy


def test_on_the_cluster_each_dashboard_is_a_config_map_that_the_sidecar_finds(on_cluster, managed):
    maps = on_cluster.of_type("kubernetes:core/v1:ConfigMap")
    values = one(on_cluster, "kubernetes:helm.sh/v3:Release").inputs["values"]
    sidecar = values["sidecar"]["dashboards"]
    content = {}
    for each in maps:
        assert each.inputs["metadata"]["labels"] == {sidecar["label"]: sidecar["labelValue"]}
        assert each.inputs["metadata"]["namespace"] == sidecar["searchNamespace"] == "grafana"
        assert each.inputs["metadata"]["annotations"] == {sidecar["folderAnnotation"]: "acme-test"}
        (text,) = each.inputs["data"].values()
        content[json.loads(text)["uid"]] = text
    assert "acme-test-gpu" in content
    for dashboard in managed.of_type("grafana:oss/dashboard:Dashboard"):
        uid = json.loads(dashboard.inputs["configJson"])["uid"]
        if uid.startswith("acme-test-model-"):  # the others show the GPUs as well
            assert content[uid] == dashboard.inputs["configJson"]


def test_on_the_cluster_the_data_sources_are_the_same(on_cluster):
    release = one(on_cluster, "kubernetes:helm.sh/v3:Release").inputs
    sources = release["values"]["datasources"]["datasources.yaml"]["datasources"]
    assert [source["uid"] for source in sources] == ["prometheus", "cloudwatch", "athena"]
    assert {source["type"] for source in sources} - {"cloudwatch"} == set(release["values"]["plugins"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", release["version"])


def test_on_the_cluster_pods_have_a_role_of_their_own(on_cluster):
    association = one(on_cluster, "aws:eks/podIdentityAssociation:PodIdentityAssociation").inputs
    release = one(on_cluster, "kubernetes:helm.sh/v3:Release").inputs
    assert association["namespace"] == release["namespace"]
    assert association["serviceAccount"] == release["values"]["serviceAccount"]["name"]
    role = only(on_cluster, "aws:iam/role:Role", "grafana")
    (trust,) = statements(role.inputs["assumeRolePolicy"])
    assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    namespace_ = one(on_cluster, "kubernetes:core/v1:Namespace").inputs
    assert namespace_["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_there_is_no_password_in_the_program(on_cluster):
    release = one(on_cluster, "kubernetes:helm.sh/v3:Release").inputs
    assert "password" not in json.dumps(release, default=str).lower()
