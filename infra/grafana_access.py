"""What any Grafana of the platform reads, managed or on the cluster: its data sources, with their permissions."""

from typing import Any

import pulumi_aws as aws

from contract.metrics import SCRAPE_SECONDS
from infra.catalog import Catalog
from infra.dashboards.queries import ATHENA, CLOUDWATCH, PROMETHEUS
from infra.foundation import Foundation, objects
from infra.policies import allow


def read_statements(on: Foundation, workspace: aws.amp.Workspace, catalog: Catalog) -> list[dict[str, Any]]:
    """Statements that let their holder read the environment's metrics and curated data, and nothing else."""
    curated, queries = on.storage.buckets["curated"], on.storage.buckets["queries"]
    database = on.naming.table("lake")
    database_arns = [on.arn("glue", what) for what in ("catalog", f"database/{database}")]
    table_arns = [*database_arns, on.arn("glue", f"table/{database}/*")]
    return [
        allow(
            ["aps:QueryMetrics", "aps:GetLabels", "aps:GetSeries", "aps:GetMetricMetadata", "aps:ListRules"],
            workspace.arn,
        ),
        # Metrics and alarms have no ARN that reading them could be held to.
        allow(["cloudwatch:GetMetricData", "cloudwatch:ListMetrics", "cloudwatch:DescribeAlarmsForMetric"], "*"),
        allow(
            [
                "athena:GetQueryExecution",
                "athena:GetQueryResults",
                "athena:GetWorkGroup",
                "athena:StartQueryExecution",
                "athena:StopQueryExecution",
            ],
            catalog.workgroup.arn,
        ),
        allow(
            ["athena:GetDatabase", "athena:GetTableMetadata", "athena:ListDatabases", "athena:ListTableMetadata"],
            on.arn("athena", "datacatalog/AwsDataCatalog"),
        ),
        allow(["glue:GetDatabase", "glue:GetDatabases"], database_arns),
        allow(["glue:GetPartitions", "glue:GetTable", "glue:GetTables"], table_arns),
        allow(["s3:GetBucketLocation", "s3:ListBucket"], [curated.arn, queries.arn]),
        allow(["s3:GetObject"], [objects(curated), objects(queries, "athena/")]),
        allow(["s3:PutObject"], objects(queries, "athena/")),
        on.use_key("Decrypt", "GenerateDataKey"),
    ]


def data_sources(on: Foundation, workspace: aws.amp.Workspace, catalog: Catalog, *, auth: str) -> list[dict[str, Any]]:
    """The data sources in the order Prometheus, CloudWatch, Athena, in the form of Grafana's provisioning files.

    Args:
        on: the environment.
        workspace: Prometheus.
        catalog: the lake's tables.
        auth: how Grafana gets its credentials: `ec2_iam_role`, which is the workspace's role in the managed one, or
            `default`, which is the AWS SDK's own way and finds a pod's role.
    """
    aws_access = {"authType": auth, "defaultRegion": on.region}
    return [
        {
            "name": "Prometheus",
            "uid": PROMETHEUS.uid,
            "type": PROMETHEUS.type_val,
            # Without the slash at the end: Grafana appends its paths with one.
            "url": workspace.prometheus_endpoint.apply(lambda endpoint: endpoint.rstrip("/")),
            "jsonData": {
                "sigV4Auth": True,
                "sigV4AuthType": auth,
                "sigV4Region": on.region,
                "httpMethod": "POST",
                "timeInterval": f"{SCRAPE_SECONDS}s",
                "manageAlerts": True,  # shows the rules of the workspace beside Grafana's own
            },
        },
        {"name": "CloudWatch", "uid": CLOUDWATCH.uid, "type": CLOUDWATCH.type_val, "jsonData": aws_access},
        {
            "name": "Athena",
            "uid": ATHENA.uid,
            "type": ATHENA.type_val,
            "jsonData": aws_access
            | {
                "catalog": "AwsDataCatalog",
                "database": catalog.database.name,
                "workgroup": catalog.workgroup.name,
            },
        },
    ]
