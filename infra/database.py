"""The database: Aurora Serverless v2 PostgreSQL, for sources and for what needs SQL."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.naming import Naming
from infra.network import Network
from infra.settings.data import AuroraSettings

ENGINE_VERSION = "16.8"


@dataclass
class DatabaseArgs:
    """Where the database is and how large it gets."""

    settings: AuroraSettings
    network: Network
    key_arn: pulumi.Input[str]
    protect: bool


class Database(pulumi.ComponentResource):
    """A cluster in the private subnets, encrypted, that nobody may reach until a rule lets them.

    Its administrator's password is made, kept and rotated by Secrets Manager: neither the program nor its state ever
    holds it. Services log in with IAM.
    """

    cluster: aws.rds.Cluster
    security_group: aws.ec2.SecurityGroup

    def __init__(
        self, name: str, args: DatabaseArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Database", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        subnets = aws.rds.SubnetGroup(naming("database"), subnet_ids=args.network.private_subnet_ids, opts=child)
        group = aws.ec2.SecurityGroup(
            naming("database"),
            vpc_id=args.network.vpc_id,
            description="The database; whoever is to reach it adds a rule for itself",
            tags={"Name": naming("database")},
            opts=child,
        )
        self.cluster = aws.rds.Cluster(
            naming("database"),
            cluster_identifier=naming("database"),
            engine=aws.rds.EngineType.AURORA_POSTGRESQL,
            engine_version=ENGINE_VERSION,
            database_name="lake",
            master_username="administrator",
            manage_master_user_password=True,
            master_user_secret_kms_key_id=args.key_arn,
            iam_database_authentication_enabled=True,
            enable_http_endpoint=True,  # an administrator's SQL, authorised by IAM, with no way into the network
            serverlessv2_scaling_configuration={
                "min_capacity": args.settings.min_acu,
                "max_capacity": args.settings.max_acu,
            },
            db_subnet_group_name=subnets.name,
            vpc_security_group_ids=[group.id],
            storage_encrypted=True,
            kms_key_id=args.key_arn,
            backup_retention_period=args.settings.backup_days,
            copy_tags_to_snapshot=True,
            deletion_protection=args.protect,
            skip_final_snapshot=not args.protect,
            final_snapshot_identifier=naming("database-final") if args.protect else None,
            enabled_cloudwatch_logs_exports=["postgresql"],
            # Minor versions are Amazon's to choose; the program must not roll them back.
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect, ignore_changes=["engineVersion"]),
        )
        aws.rds.ClusterInstance(
            naming("database"),
            identifier=naming("database-1"),
            cluster_identifier=self.cluster.id,
            engine=aws.rds.EngineType.AURORA_POSTGRESQL,
            instance_class="db.serverless",
            publicly_accessible=False,
            auto_minor_version_upgrade=True,
            performance_insights_enabled=True,
            performance_insights_kms_key_id=args.key_arn,
            opts=child,
        )
        self.security_group = group
        self.register_outputs({"endpoint": self.cluster.endpoint, "security_group_id": group.id})
