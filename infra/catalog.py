"""The catalog: each model's curated data as a table in Glue, to be asked with Athena."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from contract.manifest import Manifest
from infra.naming import Naming
from infra.storage import Storage

TYPES = {
    "float": "double",
    "integer": "bigint",
    "boolean": "boolean",
    "category": "string",
    "text": "string",
    "time": "timestamp",
}
"""Glue's names of the types that a manifest's columns may have."""


@dataclass
class CatalogArgs:
    """What the catalog describes."""

    models: Mapping[str, Manifest]
    storage: Storage
    force_destroy: bool


class Catalog(pulumi.ComponentResource):
    """A Glue database with one table a model, and the Athena workgroup that may ask it.

    A snapshot is a partition of its model's table. Partitions are not registered: a query names its snapshot, and
    Athena works out the folder (partition projection), so that no crawler has to run after an ingest. The workgroup
    enforces where results go and that they are encrypted, whatever a client asks for.
    """

    database: aws.glue.CatalogDatabase
    workgroup: aws.athena.Workgroup

    def __init__(
        self, name: str, args: CatalogArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Catalog", name, None, opts)
        self._args = args
        child = pulumi.ResourceOptions(parent=self)
        self.database = aws.glue.CatalogDatabase(naming("lake"), name=naming.table("lake"), opts=child)
        for model, manifest in args.models.items():
            self._table(model, manifest, naming)
        self.workgroup = aws.athena.Workgroup(
            naming("lake"),
            name=naming("lake"),
            force_destroy=args.force_destroy,
            configuration={
                "enforce_workgroup_configuration": True,
                "publish_cloudwatch_metrics_enabled": True,
                "bytes_scanned_cutoff_per_query": 100 * 2**30,
                "result_configuration": {
                    "output_location": pulumi.Output.concat(
                        "s3://", args.storage.buckets["queries"].bucket, "/athena/"
                    ),
                    "encryption_configuration": {
                        "encryption_option": "SSE_KMS",
                        "kms_key_arn": args.storage.key_arn,
                    },
                },
            },
            opts=child,
        )
        self.register_outputs({"database": self.database.name, "workgroup": self.workgroup.name})

    def _table(self, model: str, manifest: Manifest, naming: Naming) -> None:
        location = pulumi.Output.concat("s3://", self._args.storage.buckets["curated"].bucket, f"/{model}")
        aws.glue.CatalogTable(
            naming(model),
            name=model,
            database_name=self.database.name,
            description=manifest.description,
            table_type="EXTERNAL_TABLE",
            parameters={
                "EXTERNAL": "TRUE",
                "classification": "parquet",
                "projection.enabled": "true",
                "projection.snapshot.type": "injected",
                "storage.location.template": location.apply(lambda uri: f"{uri}/snapshot=${{snapshot}}"),
            },
            partition_keys=[{"name": "snapshot", "type": "string"}],
            storage_descriptor=aws.glue.CatalogTableStorageDescriptorArgs(
                location=location,
                input_format="org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                output_format="org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                ser_de_info=aws.glue.CatalogTableStorageDescriptorSerDeInfoArgs(
                    serialization_library="org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
                ),
                columns=[
                    aws.glue.CatalogTableStorageDescriptorColumnArgs(name=column, type=TYPES[described.type])
                    for column, described in manifest.data.all_columns.items()
                ],
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
