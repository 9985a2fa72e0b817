"""What an environment costs a month by AWS's list prices, read off its resources."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from contract.paths import ROOT
from contract.strict import Strict, parse, read_yaml
from infra.hosts import vcpus_of
from infra.instances import INSTANCES, family
from infra.settings.cluster import SYSTEM_DISK_GB

HOURS = 730
"""Of a month, on average."""
FILE = ROOT / "infra" / "prices.yaml"


class Prices(Strict):
    """`infra/prices.yaml`."""

    region: str
    date: str = Field(pattern=r"^\d{4}-\d{2}$")
    prices: dict[str, float]


@dataclass(frozen=True)
class Load:
    """What is asked of an environment in a month, beside its being there."""

    requests: int = 0
    """Predictions, a row each."""
    milliseconds: int = 20
    """How long one takes."""
    kilobytes: int = 2
    """What is logged and captured of one."""
    stored_gb: int = 0
    """Data in the lake."""
    nat_gb: int = 0
    """Traffic out of the private subnets."""


@dataclass(frozen=True)
class Resource:
    """A resource of a preview: its type and name, its top-level component, and its inputs."""

    type: str
    name: str
    component: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a component costs a month, in US dollars."""

    component: str
    idle: float
    loaded: float


TASK, SERVICE = "aws:ecs/taskDefinition:TaskDefinition", "aws:ecs/service:Service"
HOSTS = "aws:ec2/launchTemplate:LaunchTemplate"
STREAM = "aws:kinesis/firehoseDeliveryStream:FirehoseDeliveryStream"
OF_A_MODEL = {STREAM, "aws:lambda/function:Function"}

Price = Callable[[Mapping[str, Any], Load, Mapping[str, float]], float | None]


def read_prices() -> Prices:
    """Read the list of prices.

    Raises:
        PlatformError: if the file is not valid.
    """
    raw = read_yaml(FILE)
    return parse(Prices, raw | {"date": str(raw.get("date"))}, FILE)


def monthly(resources: Sequence[Resource], load: Load, prices: Mapping[str, float]) -> tuple[list[Cost], set[str]]:
    """What each component costs.

    Args:
        resources: of a preview.
        load: what is asked of the environment; the models share the requests alike.
        prices: by the names of `infra/prices.yaml`.

    Returns:
        The components that cost something, by name, and the types of resources that have no price here.
    """
    models = sum(resource.type == STREAM and "-predictions-" in resource.name for resource in resources) or 1
    of_each = replace(load, requests=load.requests // models)
    tasks = {resource.name: int(resource.inputs["desiredCount"]) for resource in resources if resource.type == SERVICE}
    found: dict[str, list[float]] = {}
    unpriced = set()
    for resource in resources:
        if resource.type in FREE or resource.type.startswith(WITHIN):
            continue
        if resource.type not in PRICED:
            unpriced.add(resource.type)
            continue
        price = PRICED[resource.type]
        asked = of_each if resource.type in OF_A_MODEL else load
        idle, loaded = price(resource.inputs, Load(), prices), price(resource.inputs, asked, prices)
        if idle is None or loaded is None:
            unpriced.add(resource.type)
            continue
        count = tasks.get(resource.name, 0 if resource.type == HOSTS else 1) if resource.type in (TASK, HOSTS) else 1
        sums = found.setdefault(resource.component, [0, 0])
        sums[0] += count * idle
        sums[1] += count * loaded
    return [Cost(name, idle, loaded) for name, (idle, loaded) in sorted(found.items()) if loaded > 0], unpriced


def _kms(_: Mapping[str, Any], __: Load, price: Mapping[str, float]) -> float:
    return price["kms_key_month"]


def _nat(_: Mapping[str, Any], load: Load, price: Mapping[str, float]) -> float:
    return HOURS * price["nat_gateway_hour"] + load.nat_gb * price["nat_gateway_gb"]


def _address(_: Mapping[str, Any], __: Load, price: Mapping[str, float]) -> float:
    return HOURS * price["public_address_hour"]


def _endpoint(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float:
    if inputs["vpcEndpointType"] != "Interface":
        return 0
    return len(inputs["subnetIds"]) * HOURS * price["interface_endpoint_hour"]


def _aurora(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float:
    units = float(inputs["serverlessv2ScalingConfiguration"]["minCapacity"])
    return HOURS * units * price["aurora_acu_hour"] + 10 * price["aurora_gb_month"] + price["secret_month"]


def _mlflow(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float:
    return HOURS * price[f"mlflow_{inputs['trackingServerSize'].lower()}_hour"]


def _function(inputs: Mapping[str, Any], load: Load, price: Mapping[str, float]) -> float:
    kind = "arm" if inputs["architectures"] == ["arm64"] else "x86"
    seconds = load.requests * load.milliseconds / 1000
    compute = seconds * int(inputs["memorySize"]) / 1024 * price[f"lambda_{kind}_gb_second"]
    return compute + load.requests / 1e6 * price["lambda_request_million"]


def _provisioned(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float:
    """Instances kept warm; reckoned with a gigabyte each, as their memory is in the function's row."""
    return int(inputs["provisionedConcurrentExecutions"]) * HOURS * 3600 * price["lambda_provisioned_arm_gb_second"]


def _task(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float:
    """One task."""
    if "FARGATE" not in inputs["requiresCompatibilities"]:
        return 0
    kind = "arm" if inputs["runtimePlatform"]["cpuArchitecture"] == "ARM64" else "x86"
    cpu, memory = int(inputs["cpu"]) / 1024, int(inputs["memory"]) / 1024
    return HOURS * (cpu * price[f"fargate_{kind}_vcpu_hour"] + memory * price[f"fargate_{kind}_gb_hour"])


def _api(_: Mapping[str, Any], load: Load, price: Mapping[str, float]) -> float:
    return load.requests / 1e6 * price["api_http_million"]


def _tokens(_: Mapping[str, Any], load: Load, price: Mapping[str, float]) -> float:
    """A token an hour, while anybody asks."""
    return HOURS * price["cognito_token"] if load.requests else 0


def _alarm(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float:
    metrics = sum("metric" in query for query in inputs.get("metricQueries", [])) or 1
    return metrics * price["alarm_metric_month"]


def _capture(inputs: Mapping[str, Any], load: Load, price: Mapping[str, float]) -> float:
    return _gigabytes(load) * price["firehose_gb"] if "-predictions-" in inputs["name"] else 0


def _grafana(_: Mapping[str, Any], __: Load, price: Mapping[str, float]) -> float:
    """One person who edits, and the token with which Pulumi does; everybody else is on top."""
    return 2 * price["grafana_editor_month"]


def _logs(inputs: Mapping[str, Any], load: Load, price: Mapping[str, float]) -> float:
    """What is logged of the requests goes to the log group of the API."""
    return _gigabytes(load) * price["logs_ingested_gb"] if "/api/" in inputs["name"] else 0


def _gigabytes(load: Load) -> float:
    return load.requests * load.kilobytes / 1e6


def _bucket(_: Mapping[str, Any], load: Load, price: Mapping[str, float]) -> float:
    return load.stored_gb / BUCKETS * price["s3_gb_month"]


def _firewall(inputs: Mapping[str, Any], load: Load, price: Mapping[str, float]) -> float:
    rules = len(inputs["rules"]) * price["waf_rule_month"]
    return price["waf_acl_month"] + rules + load.requests / 1e6 * price["waf_request_million"]


def _nodes(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float:
    """A node group at its smallest size, with the disks of its launch template."""
    (type_,) = inputs["instanceTypes"]
    hourly = INSTANCES[type_].vcpus * price[f"ec2_{family(type_)}_vcpu_hour"]
    return int(inputs["scalingConfig"]["minSize"]) * (HOURS * hourly + SYSTEM_DISK_GB * price["ebs_gb_month"])


def _hourly(type_: str, price: Mapping[str, float]) -> float | None:
    """What an instance of EC2 costs an hour, None if the list has no price for it: then the preview says so."""
    if (known := price.get(f"ec2_{type_}_hour")) is not None:
        return known
    rate, vcpus = price.get(f"ec2_{family(type_)}_vcpu_hour"), vcpus_of(type_)
    return rate * vcpus if rate and vcpus else None


def _hosts(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float | None:
    """One instance of a launch template that names its type: the GPU hosts of a model on ECS, one for each task."""
    if "instanceType" not in inputs:
        return 0  # what it launches is priced where it is asked for, or comes with a job
    hourly = _hourly(inputs["instanceType"], price)
    disks = sum(int(disk["ebs"]["volumeSize"]) for disk in inputs["blockDeviceMappings"])
    return None if hourly is None else HOURS * hourly + disks * price["ebs_gb_month"]


def _variants(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float | None:
    """The instances of an endpoint at its smallest."""
    total = 0.0
    for variant in inputs["productionVariants"]:
        type_ = variant["instanceType"].removeprefix("ml.")
        hourly = _hourly(type_, price)
        if hourly is None:
            return None
        factor = price["sagemaker_gpu_factor" if type_[0] in "gp" else "sagemaker_cpu_factor"]
        total += int(variant["initialInstanceCount"]) * HOURS * hourly * factor
    return total


def _lustre(inputs: Mapping[str, Any], _: Load, price: Mapping[str, float]) -> float:
    return int(inputs["storageCapacity"]) * price[f"fsx_lustre_{inputs['perUnitStorageThroughput']}_gb_month"]


BUCKETS = 5
"""Over which the stored data are spread; it does not matter how, as all cost the same."""

PRICED: dict[str, Price] = {
    "aws:amp/scraper:Scraper": lambda _, __, price: HOURS * price["prometheus_collector_hour"],
    "aws:apigatewayv2/api:Api": _api,
    "aws:cloudtrail/trail:Trail": lambda _, load, price: load.requests / 1e9 * price["trail_million_events"],
    "aws:cloudwatch/compositeAlarm:CompositeAlarm": lambda _, __, price: price["alarm_composite_month"],
    "aws:cloudwatch/dashboard:Dashboard": lambda _, __, price: price["dashboard_month"],
    "aws:cloudwatch/logGroup:LogGroup": _logs,
    "aws:cloudwatch/metricAlarm:MetricAlarm": _alarm,
    "aws:cognito/userPool:UserPool": _tokens,
    "aws:ec2/eip:Eip": _address,
    "aws:ec2/launchTemplate:LaunchTemplate": _hosts,
    "aws:ec2/natGateway:NatGateway": _nat,
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
    "aws:ecr/repository:Repository": lambda _, __, price: price["ecr_gb_month"],
    "aws:ecs/taskDefinition:TaskDefinition": _task,
    "aws:eks/cluster:Cluster": lambda _, __, price: HOURS * price["eks_cluster_hour"],
    "aws:eks/nodeGroup:NodeGroup": _nodes,
    "aws:fsx/lustreFileSystem:LustreFileSystem": _lustre,
    "aws:grafana/workspace:Workspace": _grafana,
    "aws:kinesis/firehoseDeliveryStream:FirehoseDeliveryStream": _capture,
    "aws:kms/key:Key": _kms,
    "aws:lambda/function:Function": _function,
    "aws:lambda/provisionedConcurrencyConfig:ProvisionedConcurrencyConfig": _provisioned,
    "aws:lb/loadBalancer:LoadBalancer": lambda _, __, price: HOURS * price["load_balancer_hour"],
    "aws:rds/cluster:Cluster": _aurora,
    "aws:route53/zone:Zone": lambda _, __, price: price["zone_month"],
    "aws:s3/bucket:Bucket": _bucket,
    "aws:sagemaker/endpointConfiguration:EndpointConfiguration": _variants,
    "aws:sagemaker/mlflowTrackingServer:MlflowTrackingServer": _mlflow,
    "aws:wafv2/webAcl:WebAcl": _firewall,
}
"""By type of resource; a gigabyte of images is reckoned to each repository."""

FREE = frozenset(
    {
        # Of a workspace of Prometheus one pays for samples, which only what is collected on ECS and EKS makes.
        "aws:amp/alertManagerDefinition:AlertManagerDefinition",
        "aws:amp/ruleGroupNamespace:RuleGroupNamespace",
        "aws:amp/workspace:Workspace",
        "aws:amp/workspaceConfiguration:WorkspaceConfiguration",
        "aws:apigatewayv2/apiMapping:ApiMapping",
        "aws:apigatewayv2/authorizer:Authorizer",
        "aws:apigatewayv2/domainName:DomainName",
        "aws:apigatewayv2/integration:Integration",
        "aws:apigatewayv2/route:Route",
        "aws:apigatewayv2/stage:Stage",
        "aws:apigatewayv2/vpcLink:VpcLink",
        # Of what scales one pays for the tasks and instances.
        "aws:appautoscaling/policy:Policy",
        "aws:appautoscaling/target:Target",
        "aws:athena/workgroup:Workgroup",
        "aws:autoscaling/group:Group",
        # Of training one pays for what jobs run on, while they run: not for the queues they wait in.
        "aws:batch/computeEnvironment:ComputeEnvironment",
        "aws:batch/jobDefinition:JobDefinition",
        "aws:batch/jobQueue:JobQueue",
        "aws:batch/schedulingPolicy:SchedulingPolicy",
        "aws:budgets/budget:Budget",
        "aws:cloudwatch/eventRule:EventRule",
        "aws:cloudwatch/eventTarget:EventTarget",
        "aws:cloudwatch/logStream:LogStream",
        "aws:codedeploy/application:Application",
        "aws:codedeploy/deploymentConfig:DeploymentConfig",
        "aws:codedeploy/deploymentGroup:DeploymentGroup",
        "aws:cognito/resourceServer:ResourceServer",
        "aws:cognito/userPoolClient:UserPoolClient",
        "aws:cognito/userPoolDomain:UserPoolDomain",
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
        "aws:ec2/flowLog:FlowLog",
        "aws:ec2/internetGateway:InternetGateway",
        "aws:ec2/placementGroup:PlacementGroup",
        "aws:ec2/route:Route",
        "aws:ec2/routeTable:RouteTable",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:ec2/securityGroup:SecurityGroup",
        "aws:ec2/subnet:Subnet",
        "aws:ec2/vpc:Vpc",
        "aws:ecr/lifecyclePolicy:LifecyclePolicy",
        "aws:ecs/capacityProvider:CapacityProvider",
        "aws:ecs/cluster:Cluster",
        "aws:ecs/clusterCapacityProviders:ClusterCapacityProviders",
        "aws:ecs/service:Service",
        "aws:eks/accessEntry:AccessEntry",
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        # What the agents among the add-ons send is paid for by what jobs print and how many nodes there are.
        "aws:eks/addon:Addon",
        "aws:eks/podIdentityAssociation:PodIdentityAssociation",
        "aws:fsx/dataRepositoryAssociation:DataRepositoryAssociation",
        "aws:glue/catalogDatabase:CatalogDatabase",
        "aws:glue/catalogTable:CatalogTable",
        "aws:grafana/roleAssociation:RoleAssociation",
        "aws:grafana/workspaceServiceAccount:WorkspaceServiceAccount",
        "aws:grafana/workspaceServiceAccountToken:WorkspaceServiceAccountToken",
        "aws:iam/instanceProfile:InstanceProfile",
        "aws:iam/role:Role",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:kms/alias:Alias",
        "aws:kms/keyPolicy:KeyPolicy",
        "aws:lambda/alias:Alias",
        "aws:lambda/permission:Permission",
        "aws:lb/listener:Listener",
        "aws:lb/listenerRule:ListenerRule",
        "aws:lb/targetGroup:TargetGroup",
        "aws:rds/clusterInstance:ClusterInstance",
        "aws:rds/subnetGroup:SubnetGroup",
        "aws:route53/record:Record",
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "aws:s3/bucketLogging:BucketLogging",
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls",
        "aws:s3/bucketPolicy:BucketPolicy",
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "aws:s3/bucketVersioning:BucketVersioning",
        # Fourteen million runs a month are free; each pays for what its job takes, as training does.
        "aws:scheduler/schedule:Schedule",
        "aws:sagemaker/endpoint:Endpoint",
        "aws:sagemaker/model:Model",
        "aws:sagemaker/modelPackageGroup:ModelPackageGroup",
        "aws:sns/topic:Topic",
        "aws:sns/topicPolicy:TopicPolicy",
        "aws:sns/topicSubscription:TopicSubscription",
        "aws:sqs/queue:Queue",
        "aws:sqs/queuePolicy:QueuePolicy",
        "aws:ssm/parameter:Parameter",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        "aws:wafv2/webAclAssociation:WebAclAssociation",
        "aws:wafv2/webAclLoggingConfiguration:WebAclLoggingConfiguration",
        "grafana:alerting/contactPoint:ContactPoint",
        "grafana:alerting/notificationPolicy:NotificationPolicy",
        "grafana:oss/dashboard:Dashboard",
        "grafana:oss/dataSource:DataSource",
        "grafana:oss/folder:Folder",
        "pulumi:providers:grafana",
        "pulumi:providers:kubernetes",
    }
)
"""What costs nothing by itself, or so little that it shows in no cent."""
WITHIN = "kubernetes:"
"""What is in the cluster runs on its nodes, which are paid for; those of the pools while jobs run."""
