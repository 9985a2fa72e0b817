"""What models run on: aliases and deployments of Lambda, ECS, load balancers, scaling, SageMaker endpoints."""

import json
from typing import Any

from embedded.resources.row import Call, Row


def _rule(properties: dict[str, Any]) -> dict[str, Any]:
    """A listener rule as the API has it: its conditions name their field, and it needs a priority."""
    conditions = [
        {"field": "path-pattern", "pathPatternConfig": {"values": each["pathPattern"]["values"]}}
        for each in properties["conditions"]
    ]
    actions = [
        {
            "type": action["type"],
            "forwardConfig": {
                "targetGroups": [
                    {"targetGroupArn": group["arn"], "weight": group["weight"]}
                    for group in action["forward"]["targetGroups"]
                ]
            },
        }
        for action in properties["actions"]
    ]
    return properties | {"conditions": conditions, "actions": actions, "priority": properties.get("priority", 1)}


def _listener(properties: dict[str, Any]) -> dict[str, Any]:
    """A listener as the API has it: a list of certificates, and actions whose parts are called Config."""
    actions = [
        {"fixedResponseConfig" if key == "fixedResponse" else key: value for key, value in action.items()}
        for action in properties["defaultActions"]
    ]
    certificates = [{"certificateArn": properties["certificateArn"]}] if "certificateArn" in properties else []
    return properties | {"defaultActions": actions, "certificates": certificates}


def _container_definitions(properties: dict[str, Any]) -> dict[str, Any]:
    """A task definition's containers, which Pulumi has as JSON."""
    containers = properties["containerDefinitions"]
    return properties | {"containerDefinitions": json.loads(containers) if isinstance(containers, str) else containers}


def _load_balancer(properties: dict[str, Any]) -> dict[str, Any]:
    return properties | {"scheme": "internal" if properties.get("internal") else "internet-facing"}


def _launch_template(properties: dict[str, Any]) -> dict[str, Any]:
    """A template as the API has it: what it launches stands in a structure of its own."""
    outer = {"name", "tags"}
    data = {name: value for name, value in properties.items() if name not in outer}
    # The emulated EC2 looks the image up, and has not the parameter by which AWS names its newest one.
    data.pop("imageId", None)
    data["tagSpecifications"] = [
        {
            "ResourceType": each["resourceType"],
            "Tags": [{"Key": key, "Value": value} for key, value in each["tags"].items()],
        }
        for each in data.get("tagSpecifications", [])
    ]
    return {name: value for name, value in properties.items() if name in outer} | {"launchTemplateData": data}


def _group(properties: dict[str, Any]) -> dict[str, Any]:
    """An auto scaling group as the API has it: its subnets are one text."""
    named = properties["launchTemplate"]
    template = {"launchTemplateId": named["id"], "version": named["version"]}
    return properties | {
        "vpcZoneIdentifier": ",".join(properties["vpcZoneIdentifiers"]),
        "launchTemplate": template,
        "newInstancesProtectedFromScaleIn": properties.get("protectFromScaleIn", False),
    }


def _ingress(kind: str) -> Row:
    """A rule of a security group."""

    def prepare(properties: dict[str, Any]) -> dict[str, Any]:
        permission: dict[str, Any] = {
            name: properties[name] for name in ("ipProtocol", "fromPort", "toPort") if name in properties
        }
        if "cidrIpv4" in properties:
            permission["ipRanges"] = [{"cidrIp": properties["cidrIpv4"]}]
        if group := properties.get("referencedSecurityGroupId"):
            permission["userIdGroupPairs"] = [{"groupId": group}]
        given = {name: value for name, value in properties.items() if name not in ("ipProtocol", "fromPort", "toPort")}
        return given | {"ipPermissions": [permission]}

    return Row(
        "ec2",
        Call(f"AuthorizeSecurityGroup{kind}", rename={"securityGroupId": "GroupId"}),
        id="{securityGroupRuleId}",
        delete=Call(
            f"RevokeSecurityGroup{kind}",
            parameters={"GroupId": "{securityGroupId}", "SecurityGroupRuleIds": ["{id}"]},
            takes=("securityGroupId",),
        ),
        prepare=prepare,
        no_effect=frozenset({"description", "cidrIpv4", "referencedSecurityGroupId", "tags"}),
    )


ROWS: dict[str, Row] = {
    "aws:lambda/alias:Alias": Row(
        "lambda",
        Call("CreateAlias"),
        id="{name}",
        delete=Call("DeleteAlias", parameters={"Name": "{id}"}, takes=("functionName",)),
        outputs={
            "arn": "{aliasArn}",
            "invokeArn": "arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{aliasArn}/invocations",
        },
    ),
    "aws:codedeploy/application:Application": Row(
        "codedeploy",
        Call("CreateApplication", rename={"name": "applicationName"}),
        id="{name}",
        delete=Call("DeleteApplication", parameters={"applicationName": "{id}"}),
    ),
    "aws:codedeploy/deploymentGroup:DeploymentGroup": Row(
        "codedeploy",
        Call("CreateDeploymentGroup", rename={"appName": "applicationName"}),
        id="{deploymentGroupName}",
        delete=Call(
            "DeleteDeploymentGroup", rename={"appName": "applicationName"}, takes=("appName", "deploymentGroupName")
        ),
    ),
    "aws:ecs/cluster:Cluster": Row(
        "ecs",
        Call("CreateCluster", rename={"name": "clusterName"}),
        id="{clusterArn}",
        answer="cluster",
        delete=Call("DeleteCluster", parameters={"cluster": "{id}"}),
        outputs={"arn": "{clusterArn}", "name": "{clusterName}"},
    ),
    "aws:ecs/clusterCapacityProviders:ClusterCapacityProviders": Row(
        "ecs", Call("PutClusterCapacityProviders", rename={"clusterName": "cluster"}), id="{clusterName}", put=True
    ),
    "aws:ecs/capacityProvider:CapacityProvider": Row(
        "ecs",
        Call("CreateCapacityProvider"),
        id="{capacityProviderArn}",
        answer="capacityProvider",
        delete=Call("DeleteCapacityProvider", parameters={"capacityProvider": "{id}"}),
        outputs={"arn": "{capacityProviderArn}"},
    ),
    "aws:ecs/taskDefinition:TaskDefinition": Row(
        "ecs",
        Call("RegisterTaskDefinition"),
        id="{taskDefinitionArn}",
        answer="taskDefinition",
        delete=Call("DeregisterTaskDefinition", parameters={"taskDefinition": "{id}"}),
        prepare=_container_definitions,
        outputs={"arn": "{taskDefinitionArn}"},
    ),
    "aws:ecs/service:Service": Row(
        "ecs",
        Call("CreateService", rename={"name": "serviceName"}),
        id="{serviceArn}",
        answer="service",
        delete=Call("DeleteService", parameters={"service": "{id}", "force": True}, takes=("cluster",)),
    ),
    "aws:iam/instanceProfile:InstanceProfile": Row(
        "iam",
        Call("CreateInstanceProfile", rename={"name": "InstanceProfileName"}),
        id="{instanceProfileName}",
        answer="InstanceProfile",
        auto_name="name",
        delete=(
            Call("RemoveRoleFromInstanceProfile", parameters={"InstanceProfileName": "{id}", "RoleName": "{role}"}),
            Call("DeleteInstanceProfile", parameters={"InstanceProfileName": "{id}"}),
        ),
        then=(
            Call(
                "AddRoleToInstanceProfile",
                parameters={"InstanceProfileName": "{id}", "RoleName": "{role}"},
                takes=("role",),
            ),
        ),
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": Row(
        "ec2",
        Call("CreateLaunchTemplate", rename={"name": "LaunchTemplateName"}),
        id="{launchTemplateId}",
        answer="LaunchTemplate",
        auto_name="name",
        delete=Call("DeleteLaunchTemplate", parameters={"LaunchTemplateId": "{id}"}),
        prepare=_launch_template,
        outputs={"latestVersion": "{latestVersionNumber}"},
        left_out={"imageId": "imageId"},
    ),
    "aws:autoscaling/group:Group": Row(
        "autoscaling",
        Call("CreateAutoScalingGroup", rename={"name": "AutoScalingGroupName"}),
        id="{name}",
        auto_name="name",
        delete=Call("DeleteAutoScalingGroup", parameters={"AutoScalingGroupName": "{id}", "ForceDelete": True}),
        prepare=_group,
        outputs={"arn": "arn:aws:autoscaling:{region}:{account}:autoScalingGroup:1:autoScalingGroupName/{name}"},
        no_effect=frozenset({"forceDelete", "vpcZoneIdentifiers", "protectFromScaleIn"}),
    ),
    "aws:lb/loadBalancer:LoadBalancer": Row(
        "elbv2",
        Call("CreateLoadBalancer", rename={"loadBalancerType": "Type"}),
        id="{loadBalancerArn}",
        auto_name="name",
        delete=Call("DeleteLoadBalancer", parameters={"LoadBalancerArn": "{id}"}),
        prepare=_load_balancer,
        outputs={
            "arn": "{id}",
            "arnSuffix": "{id}",
            "zoneId": "{canonicalHostedZoneId}",
        },
    ),
    "aws:lb/targetGroup:TargetGroup": Row(
        "elbv2",
        Call("CreateTargetGroup"),
        id="{targetGroupArn}",
        auto_name="name",
        delete=Call("DeleteTargetGroup", parameters={"TargetGroupArn": "{id}"}),
        outputs={"arn": "{id}", "arnSuffix": "{id}"},
    ),
    "aws:lb/listener:Listener": Row(
        "elbv2",
        Call("CreateListener"),
        id="{listenerArn}",
        delete=Call("DeleteListener", parameters={"ListenerArn": "{id}"}),
        prepare=_listener,
        outputs={"arn": "{id}"},
    ),
    "aws:lb/listenerRule:ListenerRule": Row(
        "elbv2",
        Call("CreateRule"),
        id="{ruleArn}",
        delete=Call("DeleteRule", parameters={"RuleArn": "{id}"}),
        prepare=_rule,
        outputs={"arn": "{id}"},
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _ingress("Ingress"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _ingress("Egress"),
    "aws:appautoscaling/target:Target": Row(
        "application-autoscaling",
        Call("RegisterScalableTarget"),
        id="{resourceId}",
        delete=Call("DeregisterScalableTarget", takes=("serviceNamespace", "resourceId", "scalableDimension")),
    ),
    "aws:appautoscaling/policy:Policy": Row(
        "application-autoscaling",
        Call("PutScalingPolicy", rename={"name": "PolicyName"}),
        id="{name}",
        delete=Call(
            "DeleteScalingPolicy",
            rename={"name": "PolicyName"},
            takes=("name", "serviceNamespace", "resourceId", "scalableDimension"),
        ),
    ),
    "aws:sagemaker/model:Model": Row(
        "sagemaker",
        Call("CreateModel", rename={"name": "ModelName"}),
        id="{name}",
        auto_name="name",
        delete=Call("DeleteModel", parameters={"ModelName": "{id}"}),
        outputs={"arn": "{modelArn}"},
    ),
    "aws:sagemaker/endpointConfiguration:EndpointConfiguration": Row(
        "sagemaker",
        Call("CreateEndpointConfig", rename={"name": "EndpointConfigName", "kmsKeyArn": "KmsKeyId"}),
        id="{name}",
        auto_name="name",
        delete=Call("DeleteEndpointConfig", parameters={"EndpointConfigName": "{id}"}),
        outputs={"arn": "{endpointConfigArn}"},
    ),
    "aws:sagemaker/endpoint:Endpoint": Row(
        "sagemaker",
        Call("CreateEndpoint", rename={"name": "EndpointName"}),
        id="{name}",
        delete=Call("DeleteEndpoint", parameters={"EndpointName": "{id}"}),
        outputs={"arn": "{endpointArn}"},
    ),
}
