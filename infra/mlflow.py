"""Experiment tracking where SageMaker has no MLflow: its own server on ECS, behind an internal load balancer."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.access import HTTPS, https_listener, internal_balancer, open_to_aws, open_way, security_group
from infra.database import Database
from infra.foundation import Foundation, awslogs, objects
from infra.policies import allow
from infra.settings.data import MlflowOnEcs
from infra.settings.inference import Domain

SIZES = {"Small": (1024, 2048), "Medium": (2048, 4096), "Large": (4096, 8192)}
"""CPU units and MiB of memory, of the combinations that Fargate offers."""
PORT = 5000
POSTGRES = 5432
USER = "mlflow"
"""Of the database; docs/aws.md says how it is made."""
TMP = "tmp"


@dataclass
class MlflowArgs:
    """How large the server is, how it is reached, and where it keeps its runs."""

    size: str
    settings: MlflowOnEcs
    database: Database


class Mlflow(pulumi.ComponentResource):
    """An MLflow server in the private subnets, with its runs in Aurora and its artifacts in the artifact bucket.

    It answers by HTTPS under its domain, within the network alone, and logs into the database with IAM. As long as the
    settings name no image, everything but the service itself is there, so that there is a repository to push it to.
    """

    uri: pulumi.Output[str]
    """What MLFLOW_TRACKING_URI takes."""

    def __init__(
        self, name: str, args: MlflowArgs, foundation: Foundation, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Mlflow", name, None, opts)
        self._on, self._naming, self._args = foundation, foundation.naming, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._balancers = security_group("mlflow-balancer", "HTTPS from the network to MLflow", foundation, self._child)
        description = "MLflow: from its load balancer, to its database and AWS"
        self._tasks = security_group("mlflow", description, foundation, self._child)
        self._open()
        target, listener = self._balancer()
        cluster = aws.ecs.Cluster(
            self._naming("mlflow"),
            name=self._naming("mlflow"),
            settings=[{"name": "containerInsights", "value": "enabled"}],
            opts=self._child,
        )
        if args.settings.image_digest:
            self._service(cluster, target, listener, args.settings.image_digest)
        else:
            pulumi.log.warn(
                "MLflow has no image: nothing runs until ml-platform:data.mlflow.ecs.image_digest is set in "
                f"Pulumi.{self._naming.environment}.yaml"
            )
        self.uri = pulumi.Output.from_input(f"https://{args.settings.domain}")
        self.register_outputs({"uri": self.uri})

    def _open(self) -> None:
        """Open the ways from the clients to the balancer, on to the server, and from there to the database and AWS."""
        clients = self._args.settings.clients or ((self._on.network.cidr,) if self._on.network.cidr else ())
        for index, cidr in enumerate(clients):
            aws.vpc.SecurityGroupIngressRule(
                self._naming(f"mlflow-clients-{index}"),
                security_group_id=self._balancers.id,
                description="HTTPS from the network",
                ip_protocol="tcp",
                from_port=HTTPS,
                to_port=HTTPS,
                cidr_ipv4=str(cidr),
                opts=self._child,
            )
        database = self._args.database.security_group
        open_way("balancer-to-mlflow", self._balancers, self._tasks, PORT, self._on, self._child)
        open_way("mlflow-to-database", self._tasks, database, POSTGRES, self._on, self._child)
        open_to_aws("mlflow-to-aws", self._tasks, self._on, self._child)

    def _balancer(self) -> tuple[aws.lb.TargetGroup, aws.lb.Listener]:
        network, settings = self._on.network, self._args.settings
        balancer = internal_balancer("mlflow", self._balancers, self._on, self._child)
        target = aws.lb.TargetGroup(
            self._naming("mlflow"),
            port=PORT,
            protocol="HTTP",
            target_type="ip",
            vpc_id=network.vpc_id,
            deregistration_delay=30,
            health_check={"path": "/health", "matcher": "200"},
            opts=self._child,
        )
        domain = Domain(name=settings.domain, certificate_arn=settings.certificate_arn)
        forward: aws.lb.ListenerDefaultActionArgsDict = {"type": "forward", "target_group_arn": target.arn}
        listener = https_listener("mlflow", balancer, domain, forward, self._on, self._child)
        zone = aws.route53.Zone(
            self._naming("mlflow"),
            name=settings.domain,
            vpcs=[{"vpc_id": network.vpc_id}],
            opts=self._child,
        )
        aws.route53.Record(
            self._naming("mlflow"),
            zone_id=zone.zone_id,
            name=settings.domain,
            type="A",
            aliases=[{"name": balancer.dns_name, "zone_id": balancer.zone_id, "evaluate_target_health": False}],
            opts=self._child,
        )
        return target, listener

    def _service(
        self, cluster: aws.ecs.Cluster, target: aws.lb.TargetGroup, listener: aws.lb.Listener, digest: str
    ) -> None:
        cpu, memory = SIZES[self._args.size]
        log_group = self._on.log_group("mlflow", self._child)
        execution = self._on.role(
            "mlflow-start",
            "ecs-tasks.amazonaws.com",
            [*self._on.pull("mlflow"), self._on.write_logs(self._naming.path("mlflow"))],
            self._child,
        )
        definition = aws.ecs.TaskDefinition(
            self._naming("mlflow"),
            family=self._naming("mlflow"),
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(cpu),
            memory=str(memory),
            runtime_platform={"operating_system_family": "LINUX", "cpu_architecture": "X86_64"},
            execution_role_arn=execution.arn,
            task_role_arn=self._task_role().arn,
            volumes=[{"name": TMP}],
            container_definitions=pulumi.Output.json_dumps([self._container(digest, log_group.name)]),
            opts=self._child,
        )
        aws.ecs.Service(
            self._naming("mlflow"),
            name=self._naming("mlflow"),
            cluster=cluster.arn,
            task_definition=definition.arn,
            launch_type="FARGATE",
            desired_count=1,
            deployment_circuit_breaker={"enable": True, "rollback": True},
            health_check_grace_period_seconds=120,
            propagate_tags="SERVICE",
            enable_ecs_managed_tags=True,
            network_configuration={
                "subnets": self._on.network.private_subnet_ids,
                "security_groups": [self._tasks.id],
                "assign_public_ip": False,
            },
            load_balancers=[{"target_group_arn": target.arn, "container_name": "mlflow", "container_port": PORT}],
            # ECS refuses a target group that no listener forwards to.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[listener]),
        )

    def _task_role(self) -> aws.iam.Role:
        artifacts, cluster = self._on.storage.buckets["artifacts"], self._args.database.cluster
        log_in_as = cluster.cluster_resource_id.apply(lambda id: f"dbuser:{id}/{USER}")
        statements = [
            allow(["s3:ListBucket"], artifacts.arn, {"StringLike": {"s3:prefix": ["mlflow/*"]}}),
            allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], objects(artifacts, "mlflow/")),
            self._on.use_key("Decrypt", "GenerateDataKey"),
            allow(["rds-db:connect"], pulumi.Output.concat(self._on.arn("rds-db", ""), log_in_as)),
        ]
        return self._on.role("mlflow", "ecs-tasks.amazonaws.com", statements, self._child)

    def _container(self, digest: str, log_group: pulumi.Output[str]) -> dict[str, object]:
        settings, artifacts = self._args.settings, self._on.storage.buckets["artifacts"]
        environment: dict[str, pulumi.Input[str]] = {
            "PGHOST": self._args.database.cluster.endpoint,
            "PGPORT": str(POSTGRES),
            "PGUSER": USER,
            "PGPASSFILE": f"/{TMP}/pgpass",
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": "/opt/rds.pem",
            "AWS_DEFAULT_REGION": self._on.region,
            "HOME": f"/{TMP}",
            "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg:///{USER}",
            "MLFLOW_ARTIFACTS_DESTINATION": pulumi.Output.concat("s3://", artifacts.bucket, "/mlflow"),
            "MLFLOW_HOST": "0.0.0.0",
            "MLFLOW_PORT": str(PORT),
            "MLFLOW_SERVER_ALLOWED_HOSTS": settings.domain,
        }
        health = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{PORT}/health', timeout=3)"
        return {
            "name": "mlflow",
            "image": pulumi.Output.concat(self._on.registry.repositories["mlflow"].repository_url, "@", digest),
            "essential": True,
            "readonlyRootFilesystem": True,
            "user": "10001",
            "linuxParameters": {"initProcessEnabled": True},
            "portMappings": [{"containerPort": PORT, "protocol": "tcp"}],
            "mountPoints": [{"sourceVolume": TMP, "containerPath": f"/{TMP}"}],
            "environment": [{"name": key, "value": value} for key, value in environment.items()],
            "healthCheck": {"command": ["CMD", "python", "-c", health], "startPeriod": 120},
            "logConfiguration": awslogs(log_group, self._on.region, "mlflow"),
        }
