"""Catalog and databases."""

from typing import Any

from embedded.resources.row import Call, Row


def _glue_table(properties: dict[str, Any]) -> dict[str, Any]:
    """Put what describes a table where the API wants it."""
    outer = {name: value for name, value in properties.items() if name == "databaseName"}
    return outer | {"tableInput": {name: value for name, value in properties.items() if name not in outer}}


ROWS: dict[str, Row] = {
    "aws:glue/catalogDatabase:CatalogDatabase": Row(
        "glue",
        Call("CreateDatabase"),
        id="{name}",
        delete=Call("DeleteDatabase", parameters={"Name": "{id}"}),
        outputs={"arn": "arn:aws:glue:{region}:{account}:database/{name}"},
    ),
    "aws:glue/catalogTable:CatalogTable": Row(
        "glue",
        Call("CreateTable"),
        id="{databaseName}:{name}",
        delete=Call("DeleteTable", rename={"name": "Name"}),
        outputs={"arn": "arn:aws:glue:{region}:{account}:table/{databaseName}/{name}"},
        prepare=_glue_table,
    ),
    "aws:athena/workgroup:Workgroup": Row(
        "athena",
        Call("CreateWorkGroup"),
        id="{name}",
        delete=Call("DeleteWorkGroup", parameters={"WorkGroup": "{id}", "RecursiveDeleteOption": True}),
        outputs={"arn": "arn:aws:athena:{region}:{account}:workgroup/{name}"},
    ),
    "aws:rds/subnetGroup:SubnetGroup": Row(
        "rds",
        Call(
            "CreateDBSubnetGroup",
            rename={"name": "DBSubnetGroupName", "description": "DBSubnetGroupDescription"},
            parameters={"DBSubnetGroupDescription": "Managed by Pulumi"},
        ),
        id="{name}",
        delete=Call("DeleteDBSubnetGroup", parameters={"DBSubnetGroupName": "{id}"}),
        answer="DBSubnetGroup",
        auto_name="name",
    ),
    "aws:rds/cluster:Cluster": Row(
        "rds",
        Call(
            "CreateDBCluster",
            rename={
                "clusterIdentifier": "DBClusterIdentifier",
                "enabledCloudwatchLogsExports": "EnableCloudwatchLogsExports",
                "iamDatabaseAuthenticationEnabled": "EnableIAMDatabaseAuthentication",
            },
        ),
        id="{clusterIdentifier}",
        delete=Call("DeleteDBCluster", parameters={"DBClusterIdentifier": "{id}", "SkipFinalSnapshot": True}),
        answer="DBCluster",
        outputs={"arn": "arn:aws:rds:{region}:{account}:cluster:{clusterIdentifier}"},
        no_effect=frozenset({"skipFinalSnapshot", "finalSnapshotIdentifier"}),
    ),
    "aws:rds/clusterInstance:ClusterInstance": Row(
        "rds",
        Call(
            "CreateDBInstance",
            rename={
                "identifier": "DBInstanceIdentifier",
                "clusterIdentifier": "DBClusterIdentifier",
                "instanceClass": "DBInstanceClass",
                "performanceInsightsEnabled": "EnablePerformanceInsights",
            },
        ),
        id="{identifier}",
        delete=Call("DeleteDBInstance", parameters={"DBInstanceIdentifier": "{id}", "SkipFinalSnapshot": True}),
        answer="DBInstance",
    ),
}
