"""What training and scoring jobs run on, AWS Batch, and the schedules that start them."""

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


ROWS: dict[str, Row] = {
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
    "aws:scheduler/schedule:Schedule": Row(
        "scheduler",
        Call("CreateSchedule"),
        id="{name}",
        delete=Call("DeleteSchedule", parameters={"Name": "{id}"}),
        outputs={"arn": "{scheduleArn}"},
    ),
}
