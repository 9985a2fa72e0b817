"""What training jobs run on, and what tells of them: Batch, launch templates, alarms and their topic."""

import json
from typing import Any

from embedded.resources.row import Call, Row


def _documents(*names: str) -> Any:
    """Read the properties that Pulumi takes as JSON texts, which the API takes as they are."""

    def read(properties: dict[str, Any]) -> dict[str, Any]:
        return properties | {
            name: json.loads(properties[name]) for name in names if isinstance(properties.get(name), str)
        }

    return read


def _launch_template(properties: dict[str, Any]) -> dict[str, Any]:
    """Put what instances are launched with where the API wants it."""
    outer = {name: value for name, value in properties.items() if name in ("name", "tags")}
    data = {name: value for name, value in properties.items() if name not in outer}
    data["tagSpecifications"] = [
        {
            "ResourceType": each["resourceType"],
            "Tags": [{"Key": key, "Value": value} for key, value in sorted(each["tags"].items())],
        }
        for each in properties.get("tagSpecifications", [])
    ]
    return outer | {"launchTemplateData": data}


ROWS: dict[str, Row] = {
    "aws:iam/instanceProfile:InstanceProfile": Row(
        "iam",
        Call("CreateInstanceProfile", rename={"name": "InstanceProfileName"}, takes=("name", "tags")),
        id="{name}",
        delete=(
            Call("RemoveRoleFromInstanceProfile", parameters={"InstanceProfileName": "{id}", "RoleName": "{role}"}),
            Call("DeleteInstanceProfile", parameters={"InstanceProfileName": "{id}"}),
        ),
        answer="InstanceProfile",
        auto_name="name",
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
        delete=Call("DeleteLaunchTemplate", parameters={"LaunchTemplateId": "{id}"}),
        answer="LaunchTemplate",
        auto_name="name",
        prepare=_launch_template,
        outputs={"latestVersion": "{latestVersionNumber}"},
    ),
    "aws:batch/schedulingPolicy:SchedulingPolicy": Row(
        "batch",
        Call("CreateSchedulingPolicy", rename={"fairSharePolicy": "fairsharePolicy"}),
        id="{arn}",
        delete=Call("DeleteSchedulingPolicy", parameters={"arn": "{id}"}),
        auto_name="name",
    ),
    "aws:batch/computeEnvironment:ComputeEnvironment": Row(
        "batch",
        Call("CreateComputeEnvironment", rename={"name": "computeEnvironmentName"}),
        id="{name}",
        delete=Call("DeleteComputeEnvironment", parameters={"computeEnvironment": "{id}"}),
        auto_name="name",
        outputs={"arn": "{computeEnvironmentArn}"},
        linked_role="batch.amazonaws.com",
        no_effect=frozenset({"updatePolicy"}),
    ),
    "aws:batch/jobQueue:JobQueue": Row(
        "batch",
        Call(
            "CreateJobQueue",
            rename={"name": "jobQueueName", "computeEnvironmentOrders": "computeEnvironmentOrder"},
        ),
        id="{jobQueueArn}",
        delete=(
            Call("UpdateJobQueue", parameters={"jobQueue": "{id}", "state": "DISABLED"}, takes=("id",)),
            Call("DeleteJobQueue", parameters={"jobQueue": "{id}"}),
        ),
        auto_name="name",
        outputs={"arn": "{jobQueueArn}"},
    ),
    "aws:batch/jobDefinition:JobDefinition": Row(
        "batch",
        Call("RegisterJobDefinition", rename={"name": "jobDefinitionName"}),
        id="{jobDefinitionArn}",
        delete=Call("DeregisterJobDefinition", parameters={"jobDefinition": "{id}"}),
        prepare=_documents("containerProperties", "nodeProperties"),
        outputs={"arn": "{jobDefinitionArn}"},
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": Row(
        "cloudwatch",
        Call("PutMetricAlarm", rename={"name": "AlarmName", "metricQueries": "Metrics"}),
        id="{name}",
        delete=Call("DeleteAlarms", parameters={"AlarmNames": ["{id}"]}),
        put=True,
        identity=frozenset({"name"}),
        outputs={"arn": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}"},
    ),
    "aws:sns/topic:Topic": Row(
        "sns",
        Call(
            "CreateTopic",
            parameters={"Attributes": {"KmsMasterKeyId": "{kmsMasterKeyId}"}},
            takes=("name", "tags"),
        ),
        id="{topicArn}",
        delete=Call("DeleteTopic", parameters={"TopicArn": "{id}"}),
        outputs={"arn": "{topicArn}"},
    ),
    "aws:sns/topicPolicy:TopicPolicy": Row(
        "sns",
        Call(
            "SetTopicAttributes",
            parameters={"TopicArn": "{arn}", "AttributeName": "Policy", "AttributeValue": "{policy}"},
        ),
        id="{arn}",
        put=True,
        identity=frozenset({"arn"}),
    ),
    "aws:sns/topicSubscription:TopicSubscription": Row(
        "sns",
        Call("Subscribe", rename={"topic": "TopicArn"}),
        id="{subscriptionArn}",
        delete=Call("Unsubscribe", parameters={"SubscriptionArn": "{id}"}),
        outputs={"arn": "{subscriptionArn}"},
    ),
}
