"""Rules for what runs: functions, tasks, GPUs, notebooks; and for logs and tags."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from infra.guardrails.rule import UNKNOWN, Resource, Stack, rule, stack_rule, unknown
from infra.guardrails.storage import STATEFUL
from infra.hosts import has_own_disk
from infra.sizes import LAMBDA_MEMORY_MB, LAMBDA_TIMEOUT_S, fargate_mistake

FUNCTION = "aws:lambda/function:Function"
NODES = "aws:eks/nodeGroup:NodeGroup"
SCALING, BATCH = "aws:autoscaling/group:Group", "aws:batch/computeEnvironment:ComputeEnvironment"
TEMPLATE, INSTANCE = "aws:ec2/launchTemplate:LaunchTemplate", "aws:ec2/instance:Instance"
TASK = "aws:ecs/taskDefinition:TaskDefinition"
LOG_GROUP = "aws:cloudwatch/logGroup:LogGroup"
NOTEBOOK, DOMAIN = "aws:sagemaker/notebookInstance:NotebookInstance", "aws:sagemaker/domain:Domain"
ENDPOINT = "aws:sagemaker/endpointConfiguration:EndpointConfiguration"
MODEL = "aws:sagemaker/model:Model"
GPU = re.compile(r"(ml\.)?(g\d|gr\d|p\d|trn\d|inf\d)")
RUNTIMES = re.compile(r"python3\.(1[1-9])|nodejs(2[2-9])\.x|provided\.al2023|java(17|21|25)|dotnet(8|10)|ruby3\.[34]")
TAGS = ("Project", "Environment", "ManagedBy")
TAGGED = (
    *STATEFUL,
    "aws:grafana/workspace:Workspace",
    FUNCTION,
    NODES,
    BATCH,
    TEMPLATE,
    INSTANCE,
    LOG_GROUP,
    NOTEBOOK,
    DOMAIN,
    ENDPOINT,
    MODEL,
    "aws:ec2/vpc:Vpc",
    "aws:ec2/subnet:Subnet",
    "aws:ec2/natGateway:NatGateway",
    "aws:ec2/securityGroup:SecurityGroup",
    "aws:ec2/vpcEndpoint:VpcEndpoint",
    "aws:iam/role:Role",
    "aws:lb/loadBalancer:LoadBalancer",
    "aws:secretsmanager/secret:Secret",
    "aws:sns/topic:Topic",
    "aws:sqs/queue:Queue",
    "aws:ssm/parameter:Parameter",
)


@rule("function-image-by-digest", "Name the image as repository@sha256:...", FUNCTION)
def _(function: Resource, _tier: str) -> Iterator[str]:
    image = function.get("imageUri")
    if image and not unknown(image) and "@sha256:" not in image:
        yield f"{image} may be another image tomorrow"


@rule("job-image-by-digest", "Name the image as repository@sha256:...", "aws:batch/jobDefinition:JobDefinition")
def _(definition: Resource, _tier: str) -> Iterator[str]:
    for path in ("containerProperties", "nodeProperties"):
        document = definition.get(path)
        if isinstance(document, str) and not unknown(document):
            for image in re.findall(r'"image": ?"([^"]*)"', document):
                if "@sha256:" not in image:
                    yield f"{image} may be another image tomorrow"


@rule("function-runtime-supported", "Choose a runtime that AWS still mends, such as python3.13.", FUNCTION)
def _(function: Resource, _tier: str) -> Iterator[str]:
    runtime = function.get("runtime")
    if runtime and not unknown(runtime) and not RUNTIMES.fullmatch(runtime):
        yield f"the runtime {runtime} is out of date, or not known here"


@rule("function-url-authenticated", "Set authorizationType to AWS_IAM.", "aws:lambda/functionUrl:FunctionUrl")
def _(url: Resource, _tier: str) -> Iterator[str]:
    if not url.is_("authorizationType", "AWS_IAM"):
        yield "anybody can call the function"


@rule("function-size", "Choose memorySize from 128 to 10240 (MB) and timeout from 1 to 900 (s).", FUNCTION)
def _(function: Resource, _tier: str) -> Iterator[str]:
    for name, allowed in (("memorySize", LAMBDA_MEMORY_MB), ("timeout", LAMBDA_TIMEOUT_S)):
        value = function.get(name)
        if isinstance(value, int) and value not in allowed:
            yield f"Lambda has no {name} of {value}"


@rule("fargate-size", "Choose a cpu and memory that Fargate offers together; infra/sizes.py has the table.", TASK)
def _(task: Resource, _tier: str) -> Iterator[str]:
    size = [task.get("cpu"), task.get("memory")]
    if "FARGATE" in task.items("requiresCompatibilities") and not any(map(unknown, size)):
        try:
            mistake = fargate_mistake(*(int(each) for each in size))
        except (TypeError, ValueError):
            mistake = f"cpu and memory must be numbers, but they are {size[0]!r} and {size[1]!r}"
        if mistake:
            yield mistake


@rule("task-not-privileged", "Leave privileged false, set readonlyRootFilesystem, and pin the image by digest.", TASK)
def _(task: Resource, _tier: str) -> Iterator[str]:
    text = task.get("containerDefinitions")
    if not isinstance(text, str) or text == UNKNOWN:
        return
    for container in json.loads(text):
        name, image = container.get("name"), str(container.get("image"))
        if container.get("privileged"):
            yield f"the container {name} is privileged"
        if not container.get("readonlyRootFilesystem"):
            yield f"the container {name} can write to its root file system"
        if not unknown(image) and "@sha256:" not in image:
            yield f"{image} may be another image tomorrow"


@rule(
    "launched-tagged",
    f"Give tagSpecifications of instance and volume the tags {', '.join(TAGS)}.",
    TEMPLATE,
)
def _(template: Resource, _tier: str) -> Iterator[str]:
    specifications = template.get("tagSpecifications") or []
    parts = [*specifications, *(part for s in specifications if isinstance(s, Mapping) for part in s.values())]
    if unknown(specifications) or any(map(unknown, parts)):
        return
    tagged = {s["resourceType"] for s in specifications if set(TAGS) <= set(s.get("tags") or {})}
    for kind in {"instance", "volume"} - tagged:
        yield f"the {kind}s that it launches lack the tags that costs are told apart by"


def _gpu(*types: Any) -> bool:
    return any(isinstance(type_, str) and GPU.match(type_) for type_ in types)


@stack_rule("gpu-scales-to-zero", "Set the smallest size (minSize, minVcpus) to 0; no stand-alone GPU instances.")
def _(stack: Stack) -> Iterator[tuple[Resource, str]]:
    templates = [t for t in stack.of_type(TEMPLATE) if _gpu(t.get("instanceType"))]
    smallest = {NODES: "scalingConfig.minSize", SCALING: "minSize", BATCH: "computeResources.minVcpus"}
    for group in stack.of_type(*smallest):
        overrides = group.items("mixedInstancesPolicy.launchTemplate.overrides")
        types = [o.get("instanceType") for o in overrides if isinstance(o, Mapping)]
        types += group.items("instanceTypes") + group.items("computeResources.instanceTypes")
        referred = {urn for urns in group.references.values() for urn in urns}
        gpu = _gpu(*types) or any(template.urn in referred for template in templates)
        if gpu and not group.is_(smallest[group.type], 0, *[None] * (group.type == BATCH)):  # Batch starts at 0
            yield group, f"GPUs would be paid for while nobody uses them: {smallest[group.type]} is not 0"
    for instance in stack.of_type(INSTANCE):
        if _gpu(instance.get("instanceType")):
            yield instance, "a GPU instance of its own never shuts down"


@rule(
    "sagemaker-encrypted",
    "Set kmsKeyId (notebook, domain) or kmsKeyArn (endpoint) to the environment's key.",
    NOTEBOOK,
    DOMAIN,
    ENDPOINT,
)
def _(resource: Resource, _tier: str) -> Iterator[str]:
    # Neither has a volume of EBS, and SageMaker refuses a key for them.
    serverless = resource.has("productionVariants.0.serverlessConfig")
    types = [variant.get("instanceType") for variant in resource.items("productionVariants")]
    own_disks = bool(types) and all(isinstance(type_, str) and has_own_disk(type_) for type_ in types)
    if not serverless and not own_disks and not resource.has("kmsKeyArn" if resource.type == ENDPOINT else "kmsKeyId"):
        yield "its volumes are not encrypted with a key of ours"


@rule(
    "sagemaker-in-vpc",
    "Notebook: directInternetAccess Disabled; domain: appNetworkAccessType VpcOnly; model: vpcConfig.",
    NOTEBOOK,
    DOMAIN,
    MODEL,
)
def _(resource: Resource, _tier: str) -> Iterator[str]:
    inside = {
        NOTEBOOK: resource.is_("directInternetAccess", "Disabled"),
        DOMAIN: resource.is_("appNetworkAccessType", "VpcOnly"),
        MODEL: resource.has("vpcConfig") or resource.is_("enableNetworkIsolation", True),
    }
    if not inside[resource.type]:
        yield "it reaches the internet past the VPC"


@rule("logs-expire", "Set retentionInDays.", LOG_GROUP)
def _(group: Resource, _tier: str) -> Iterator[str]:
    if not group.has("retentionInDays"):
        yield "logs are kept, and paid for, for ever"


@rule("logs-encrypted", "Set kmsKeyId to the environment's key.", LOG_GROUP)
def _(group: Resource, _tier: str) -> Iterator[str]:
    if not group.has("kmsKeyId"):
        yield "logs are not encrypted with a key of ours"


@rule("tagged", f"Set the tags {', '.join(TAGS)}; infra.naming.tag_everything does.", *TAGGED)
def _(resource: Resource, _tier: str) -> Iterator[str]:
    tags = resource.get("tags")
    missing = [] if unknown(tags) else [tag for tag in TAGS if tag not in (tags or {})]
    if missing:
        yield f"no tag {', '.join(missing)}"
