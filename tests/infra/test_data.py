"""Catalog, database, tracking, audit and cost: there if the settings name them, and then private and encrypted."""

import json

import polars as pl
import pytest

from contract.manifest import load_manifest, model_names
from tests.infra.conftest import DIGEST, PROD, only, statements
from training.schema import TYPES

AURORA = {"data": {"aurora": {"min_acu": 0, "max_acu": 2, "backup_days": 7}}}


def test_each_model_has_a_table_whose_snapshots_are_partitions(build, tmp_path):
    deployment = build()
    tables = {table.inputs["name"]: table for table in deployment.of_type("aws:glue/catalogTable:CatalogTable")}
    assert sorted(tables) == model_names()
    table = tables["digits"]
    assert table.inputs["partitionKeys"] == [{"name": "snapshot", "type": "string"}]
    template = table.inputs["parameters"]["storage.location.template"]
    assert template == "s3://acme-test-curated/digits/snapshot=${snapshot}"
    columns = {column["name"]: column["type"] for column in table.inputs["storageDescriptor"]["columns"]}
    assert columns == {"digit": "bigint"} | {f"pixels_{i}": "bigint" for i in range(64)}


@pytest.mark.parametrize("model", model_names())
def test_a_table_has_the_columns_and_types_of_the_snapshots(build, model):
    columns = load_manifest(model).data.all_columns
    (table,) = [t for t in build().of_type("aws:glue/catalogTable:CatalogTable") if t.inputs["name"] == model]
    hive = {"double": pl.Float64(), "bigint": pl.Int64(), "boolean": pl.Boolean(), "string": pl.String()}
    described = {column["name"]: hive[column["type"]] for column in table.inputs["storageDescriptor"]["columns"]}
    assert described == {name: TYPES[column.type] for name, column in columns.items()}


def test_queries_cannot_choose_where_their_results_go_or_leave_them_unencrypted(build):
    (workgroup,) = build().of_type("aws:athena/workgroup:Workgroup")
    configuration = workgroup.inputs["configuration"]
    assert configuration["enforceWorkgroupConfiguration"] is True
    assert configuration["resultConfiguration"]["outputLocation"] == "s3://acme-test-queries/athena/"
    assert configuration["resultConfiguration"]["encryptionConfiguration"]["encryptionOption"] == "SSE_KMS"


def test_there_is_no_database_unless_the_settings_name_one(build):
    deployment = build()
    assert not [r for r in deployment.resources.values() if r.type.startswith("aws:rds/")]


def test_the_database_is_private_encrypted_and_keeps_its_password_to_itself(build):
    deployment = build(**AURORA)
    cluster = only(deployment, "aws:rds/cluster:Cluster", "database").inputs
    assert cluster["storageEncrypted"] is True
    assert cluster["manageMasterUserPassword"] is True
    assert "masterPassword" not in cluster
    assert cluster["iamDatabaseAuthenticationEnabled"] is True
    (subnets,) = deployment.of_type("aws:rds/subnetGroup:SubnetGroup")
    assert all("private" in subnet for subnet in subnets.inputs["subnetIds"])
    (instance,) = deployment.of_type("aws:rds/clusterInstance:ClusterInstance")
    assert instance.inputs["publiclyAccessible"] is False
    assert instance.inputs["instanceClass"] == "db.serverless"
    group = only(deployment, "aws:ec2/securityGroup:SecurityGroup", "database").inputs
    assert not group.get("ingress")


def test_the_database_is_protected_in_production_only(build):
    production = only(build("prod", **PROD, **AURORA), "aws:rds/cluster:Cluster", "database")
    assert production.protect
    assert production.inputs["deletionProtection"] is True
    assert production.inputs["skipFinalSnapshot"] is False
    development = only(build(**AURORA), "aws:rds/cluster:Cluster", "database")
    assert not development.protect
    assert development.inputs["skipFinalSnapshot"] is True


def test_the_tracking_server_reaches_its_own_prefix_only(build):
    deployment = build(data={"mlflow": {}})
    (server,) = deployment.of_type("aws:sagemaker/mlflowTrackingServer:MlflowTrackingServer")
    assert server.inputs["artifactStoreUri"] == "s3://acme-test-artifacts/mlflow"
    policy = statements(only(deployment, "aws:iam/rolePolicy:RolePolicy", "mlflow").inputs["policy"])
    assert "arn:aws:s3:::acme-test-artifacts/mlflow/*" in json.dumps(policy)
    assert "arn:aws:s3:::acme-test-artifacts/*" not in json.dumps(policy)


def test_jobs_may_write_to_the_managed_mlflow_where_there_is_one(build):
    def granted(**changes):
        deployment = build(training={"backend": "batch", "image_digest": DIGEST}, network={"nat": "single"}, **changes)
        policies = [only(deployment, "aws:iam/rolePolicy:RolePolicy", name) for name in ("training", "batch-job")]
        found = [s for p in policies for s in statements(p.inputs["policy"]) if "mlflow" in json.dumps(s["Action"])]
        return deployment.outputs["tracking_uri"], found

    uri, found = granted(data={"mlflow": {}})
    assert len(found) == 2
    for statement in found:
        assert statement["Resource"].endswith(":mlflow-tracking-server/acme-test-mlflow")
        assert "sagemaker-mlflow:LogBatch" in statement["Action"]
        assert not any("Delete" in action for action in statement["Action"])
    assert uri
    assert granted() == ("", [])


def test_the_trail_records_access_to_the_artifacts(build):
    deployment = build(audit={"trail": True})
    (trail,) = deployment.of_type("aws:cloudtrail/trail:Trail")
    assert trail.inputs["enableLogFileValidation"] is True
    assert trail.inputs["s3BucketName"] == "acme-test-logs"
    fields = {f["field"]: f for f in trail.inputs["advancedEventSelectors"][0]["fieldSelectors"]}
    assert fields["resources.ARN"]["startsWiths"] == ["arn:aws:s3:::acme-test-artifacts/"]
    assert only(deployment, "aws:s3/bucketPolicy:BucketPolicy", "logs").urn in trail.dependencies
    assert not build().of_type("aws:cloudtrail/trail:Trail")


def test_the_budget_counts_what_has_the_environments_tags_and_warns(build):
    (budget,) = build().of_type("aws:budgets/budget:Budget")
    assert budget.inputs["limitAmount"] == "10"
    (tags,) = budget.inputs["costFilters"]
    assert tags == {"name": "TagKeyValue", "values": ["user:Project$acme", "user:Environment$test"]}
    assert [(n["notificationType"], n["threshold"]) for n in budget.inputs["notifications"]] == [
        ("ACTUAL", 50),
        ("ACTUAL", 80),
        ("FORECASTED", 100),
    ]
    assert all(n["subscriberEmailAddresses"] == ["team@example.com"] for n in budget.inputs["notifications"])
