"""ECS: tasks behind an internal load balancer, on Fargate, or on GPU instances if the model asks for GPUs."""

import base64
from typing import Any

import pulumi
import pulumi_aws as aws

from contract.serving import EcsServing
from infra.alarms import Metric, Signals
from infra.balancer import Balancer
from infra.foundation import Foundation, awslogs
from infra.policies import allow, document
from infra.prometheus import Prometheus
from infra.runtimes.runtime import Runtime, RuntimeArgs
from infra.waf import CLIENT_HEADER

PORT = 8080
USER = "10001"
"""As the image has it (services/inference/Dockerfile)."""
TMP = "tmp"

Share = aws.ecs.ServiceCapacityProviderStrategyArgsDict
Scaling = aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationArgsDict
ScalingMetric = (
    aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationMetricArgsDict
)


class Ecs(Runtime):
    """A service of tasks, which grows with requests and CPU, and takes on a new image by way of a canary.

    ECS itself moves the traffic: a share to the new tasks, the rest after a while, and back when an alarm goes off or
    the new tasks do not become healthy. As long as there is no image, there is no task.
    """

    def __init__(
        self,
        name: str,
        args: RuntimeArgs,
        balancer: Balancer,
        prometheus: Prometheus | None,
        foundation: Foundation,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("ml-platform:infra:Ecs", name, None, opts)
        assert isinstance(args.manifest.serving, EcsServing)
        self._on, self._args, self._serving, self._balancer = foundation, args, args.manifest.serving, balancer
        self._child = pulumi.ResourceOptions(parent=self)
        self._prometheus = prometheus
        self._called = foundation.naming(f"inference-{args.model}")
        self._group = balancer.lead_to(args.model, PORT, self._child)
        self._targets = [self._target(colour) for colour in ("blue", "green")]
        self._rule = self._listen()
        self._cluster, self._capacity_provider = self._make_cluster()
        self.signals = self._signals()
        self.register_outputs({"cluster": self._cluster.arn})

    def _target(self, colour: str) -> aws.lb.TargetGroup:
        return aws.lb.TargetGroup(
            self._on.naming(f"{self._args.model}-{colour}"),
            port=PORT,
            protocol="HTTP",
            target_type="ip",
            vpc_id=self._on.network.vpc_id,
            deregistration_delay=30,
            health_check={"path": "/v2/health/ready", "matcher": "200", "interval": 10, "healthy_threshold": 2},
            opts=self._child,
        )

    def _listen(self) -> aws.lb.ListenerRule:
        """The rule by which the balancer finds the model; ECS changes where it forwards to."""
        path = f"/v2/models/{self._args.model}"
        forward: aws.lb.ListenerRuleActionArgsDict = {
            "type": "forward",
            "forward": {
                "target_groups": [
                    {"arn": target.arn, "weight": weight}
                    for target, weight in zip(self._targets, (100, 0), strict=True)
                ]
            },
        }
        return aws.lb.ListenerRule(
            self._called,
            listener_arn=self._balancer.listener.arn,
            conditions=[{"path_pattern": {"values": [path, f"{path}/*"]}}],
            actions=[forward],
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["actions"]),
        )

    def _make_cluster(self) -> tuple[aws.ecs.Cluster, aws.ecs.CapacityProvider | None]:
        cluster = aws.ecs.Cluster(
            self._called,
            name=self._called,
            settings=[{"name": "containerInsights", "value": "enhanced"}],
            opts=self._child,
        )
        provider = self._gpu_capacity() if self._serving.gpus else None
        names = [provider.name] if provider else ["FARGATE", "FARGATE_SPOT"]
        aws.ecs.ClusterCapacityProviders(
            self._called,
            cluster_name=cluster.name,
            capacity_providers=names,
            default_capacity_provider_strategies=[{"capacity_provider": names[0], "weight": 1}],
            opts=self._child,
        )
        return cluster, provider

    def _gpu_capacity(self) -> aws.ecs.CapacityProvider:
        """GPU instances that come with the tasks, and go with the last of them."""
        naming = self._on.naming
        role = self._on.role(
            f"{self._args.model}-hosts",
            "ec2.amazonaws.com",
            [
                allow(
                    [
                        "ecs:DeregisterContainerInstance",
                        "ecs:RegisterContainerInstance",
                        "ecs:SubmitContainerStateChange",
                        "ecs:SubmitTaskStateChange",
                    ],
                    self._on.arn("ecs", f"cluster/{self._called}"),
                ),
                allow(
                    ["ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"],
                    self._on.arn("ecs", f"container-instance/{self._called}/*"),
                ),
                allow(["ecs:DiscoverPollEndpoint"], "*"),  # AWS knows no narrower resource for it
            ],
            self._child,
        )
        profile = aws.iam.InstanceProfile(naming(f"{self._args.model}-hosts"), role=role.name, opts=self._child)
        image = "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"
        template = aws.ec2.LaunchTemplate(
            self._called,
            image_id=image,
            instance_type=self._serving.instance_type,
            iam_instance_profile={"arn": profile.arn},
            vpc_security_group_ids=[self._group.id],
            metadata_options={"http_tokens": "required", "http_endpoint": "enabled", "http_put_response_hop_limit": 1},
            block_device_mappings=[
                {
                    "device_name": "/dev/xvda",
                    "ebs": {"volume_size": 100, "volume_type": "gp3", "encrypted": "true"},
                }
            ],
            tag_specifications=[{"resource_type": kind, "tags": naming.tags} for kind in ("instance", "volume")],
            user_data=_base64(f"#!/bin/sh\necho ECS_CLUSTER={self._called} >> /etc/ecs/ecs.config\n"),
            opts=self._child,
        )
        group = aws.autoscaling.Group(
            self._called,
            min_size=0,
            max_size=self._serving.max_tasks,
            vpc_zone_identifiers=self._on.network.private_subnet_ids,
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            protect_from_scale_in=True,
            force_delete=True,
            tags=[
                {"key": key, "value": value, "propagate_at_launch": True}
                for key, value in (naming.tags | {"AmazonECSManaged": "true"}).items()
            ],
            # ECS sets the size.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["desiredCapacity"]),
        )
        return aws.ecs.CapacityProvider(
            self._called,
            name=self._called,
            auto_scaling_group_provider={
                "auto_scaling_group_arn": group.arn,
                "managed_termination_protection": "ENABLED",
                "managed_draining": "ENABLED",
                "managed_scaling": {"status": "ENABLED", "target_capacity": 100},
            },
            opts=self._child,
        )

    def _signals(self) -> Signals:
        dimensions = [
            {"LoadBalancer": self._balancer.balancer.arn_suffix, "TargetGroup": target.arn_suffix}
            for target in self._targets
        ]
        return Signals(
            "AWS/ApplicationELB",
            requests=Metric("RequestCount", dimensions),
            errors=Metric("HTTPCode_Target_5XX_Count", dimensions),
            latency=Metric("TargetResponseTime", dimensions, scale=0.001),
        )

    def integrate(self, api: aws.apigatewayv2.Api) -> aws.apigatewayv2.Integration:
        """The balancer, by a private link into the network."""
        return aws.apigatewayv2.Integration(
            self._called,
            api_id=api.id,
            integration_type="HTTP_PROXY",
            integration_method="ANY",
            connection_type="VPC_LINK",
            connection_id=self._balancer.link.id,
            integration_uri=self._balancer.listener.arn,
            tls_config={"server_name_to_verify": self._balancer.domain},
            # Whatever the client says of itself is overwritten.
            request_parameters={f"overwrite:header.{CLIENT_HEADER}": "$context.identity.sourceIp"},
            opts=self._child,
        )

    def roll_back_on(self, alarms: list[pulumi.Output[str]]) -> None:
        """Start the service, whose deployments these alarms undo."""
        image = self._args.image(self._on)
        if image is None:
            pulumi.log.warn(
                f"{self._called} has no image: no task runs until ml-platform:inference.image_digest is set in "
                f"Pulumi.{self._on.naming.environment}.yaml"
            )
            return
        service = self._service(self._task(image), alarms)
        self._scale(service)

    def _task(self, image: pulumi.Output[str]) -> aws.ecs.TaskDefinition:
        group = f"inference/{self._args.model}"
        log_group = self._on.log_group(group, self._child)
        execution = self._on.role(
            f"start-{self._args.model}",
            "ecs-tasks.amazonaws.com",
            [*self._on.pull("inference"), self._on.write_logs(self._on.naming.path(group))],
            self._child,
        )
        serving = self._serving
        architecture = {"arm64": "ARM64", "x86_64": "X86_64"}[self._args.settings.architecture]
        return aws.ecs.TaskDefinition(
            self._called,
            family=self._called,
            requires_compatibilities=["EC2" if serving.gpus else "FARGATE"],
            network_mode="awsvpc",
            cpu=None if serving.gpus else str(serving.cpu),
            memory=str(serving.memory_mb),
            runtime_platform={"operating_system_family": "LINUX", "cpu_architecture": architecture},
            execution_role_arn=execution.arn,
            task_role_arn=self._args.role.arn,
            volumes=[{"name": TMP}],
            container_definitions=pulumi.Output.json_dumps(
                [self._container(image, log_group.name), *self._collector(log_group.name)]
            ),
            opts=self._child,
        )

    def _collector(self, log_group: pulumi.Output[str]) -> list[dict[str, Any]]:
        """What reads the service's metrics, beside it, where they are collected."""
        if not self._prometheus:
            return []
        aws.iam.RolePolicy(
            f"{self._called}-metrics",
            role=self._args.role.id,
            policy=document(self._prometheus.write()),
            opts=self._child,
        )
        return [self._prometheus.ecs_collector(log_group, PORT)]

    def _container(self, image: pulumi.Output[str], log_group: pulumi.Output[str]) -> dict[str, Any]:
        live = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{PORT}/v2/health/live', timeout=3)"
        gpus = [{"type": "GPU", "value": str(self._serving.gpus)}] if self._serving.gpus else []
        return {
            "name": "inference",
            "image": image,
            "essential": True,
            "readonlyRootFilesystem": True,
            "user": USER,
            "linuxParameters": {"initProcessEnabled": True},
            "portMappings": [{"containerPort": PORT, "protocol": "tcp"}],
            "mountPoints": [{"sourceVolume": TMP, "containerPath": f"/{TMP}"}],
            "environment": [{"name": key, "value": value} for key, value in self._args.environment.items()],
            "resourceRequirements": gpus,
            "healthCheck": {"command": ["CMD", "python", "-c", live], "interval": 10, "startPeriod": 30},
            "stopTimeout": 60,
            "logConfiguration": awslogs(log_group, self._on.region, "task"),
        }

    def _service(self, task: aws.ecs.TaskDefinition, alarms: list[pulumi.Output[str]]) -> aws.ecs.Service:
        canary = self._serving.canary
        blue, green = self._targets
        return aws.ecs.Service(
            self._called,
            name=self._called,
            cluster=self._cluster.arn,
            task_definition=task.arn,
            desired_count=self._serving.min_tasks,
            capacity_provider_strategies=self._capacity(),
            availability_zone_rebalancing="ENABLED",
            propagate_tags="SERVICE",
            enable_ecs_managed_tags=True,
            health_check_grace_period_seconds=60,
            deployment_circuit_breaker={"enable": True, "rollback": True},
            deployment_configuration={
                "strategy": "CANARY",
                "bake_time_in_minutes": str(canary.minutes),
                "canary_configuration": {
                    "canary_percent": canary.percent,
                    "canary_bake_time_in_minutes": str(canary.minutes),
                },
            },
            alarms={"enable": True, "rollback": True, "alarm_names": alarms},
            network_configuration={
                "subnets": self._on.network.private_subnet_ids,
                "security_groups": [self._group.id],
                "assign_public_ip": False,
            },
            load_balancers=[
                {
                    "target_group_arn": blue.arn,
                    "container_name": "inference",
                    "container_port": PORT,
                    "advanced_configuration": {
                        "alternate_target_group_arn": green.arn,
                        "production_listener_rule": self._rule.arn,
                        "role_arn": self._shifting_role().arn,
                    },
                }
            ],
            # The scaling sets the count.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["desiredCount"], depends_on=[self._rule]),
        )

    def _capacity(self) -> list[Share]:
        if self._capacity_provider:
            return [{"capacity_provider": self._capacity_provider.name, "weight": 1}]
        spot = self._serving.spot_percent
        # The first tasks are on demand unless all are to be on spare capacity, which AWS may take back.
        on_demand: Share = {"capacity_provider": "FARGATE", "weight": 100 - spot, "base": min(1, 100 - spot)}
        return [on_demand, {"capacity_provider": "FARGATE_SPOT", "weight": spot}] if spot else [on_demand]

    def _shifting_role(self) -> aws.iam.Role:
        """What lets ECS move the traffic between the two target groups."""
        groups = [target.arn for target in self._targets]
        return self._on.role(
            f"shift-{self._args.model}",
            "ecs.amazonaws.com",
            [
                allow(
                    [
                        "elasticloadbalancing:DescribeListeners",
                        "elasticloadbalancing:DescribeRules",
                        "elasticloadbalancing:DescribeTargetGroups",
                        "elasticloadbalancing:DescribeTargetHealth",
                    ],
                    "*",
                ),
                allow(["elasticloadbalancing:ModifyRule"], self._rule.arn),
                allow(["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"], groups),
            ],
            self._child,
        )

    def _scale(self, service: aws.ecs.Service) -> None:
        target = aws.appautoscaling.Target(
            self._called,
            service_namespace="ecs",
            scalable_dimension="ecs:service:DesiredCount",
            resource_id=pulumi.Output.concat("service/", self._cluster.name, "/", service.name),
            min_capacity=self._serving.min_tasks,
            max_capacity=self._serving.max_tasks,
            opts=self._child,
        )
        # Not ALBRequestCountPerTarget: it names one target group, and a canary leaves the traffic in the other.
        requests: Scaling = {
            "target_value": self._serving.requests_per_task,
            "customized_metric_specification": {
                "metrics": [
                    *self._count("blue", 0),
                    *self._count("green", 1),
                    {
                        "id": "tasks",
                        "return_data": False,
                        "metric_stat": {
                            "stat": "Average",
                            "metric": {
                                "namespace": "ECS/ContainerInsights",
                                "metric_name": "RunningTaskCount",
                                "dimensions": [
                                    {"name": "ClusterName", "value": self._called},
                                    {"name": "ServiceName", "value": self._called},
                                ],
                            },
                        },
                    },
                    {
                        "id": "each",
                        "label": "requests a minute and task",
                        "expression": "(FILL(blue, 0) + FILL(green, 0)) / tasks",
                        "return_data": True,
                    },
                ]
            },
        }
        cpu: Scaling = {
            "target_value": self._serving.cpu_percent,
            "predefined_metric_specification": {"predefined_metric_type": "ECSServiceAverageCPUUtilization"},
        }
        for what, configuration in (("requests", requests), ("cpu", cpu)):
            aws.appautoscaling.Policy(
                f"{self._called}-{what}",
                name=f"{self._called}-{what}",
                policy_type="TargetTrackingScaling",
                service_namespace=target.service_namespace,
                scalable_dimension=target.scalable_dimension,
                resource_id=target.resource_id,
                target_tracking_scaling_policy_configuration=configuration,
                opts=self._child,
            )

    def _count(self, id_: str, index: int) -> list[ScalingMetric]:
        dimensions = self.signals.requests.dimensions[index]
        return [
            {
                "id": id_,
                "return_data": False,
                "metric_stat": {
                    "stat": "Sum",
                    "metric": {
                        "namespace": self.signals.namespace,
                        "metric_name": "RequestCount",
                        "dimensions": [{"name": key, "value": value} for key, value in dimensions.items()],
                    },
                },
            }
        ]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
