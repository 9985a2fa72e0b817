"""Audit, alarms, captures and cost."""

from typing import Any

from embedded.resources.row import Call, Row


def _budget(properties: dict[str, Any]) -> dict[str, Any]:
    """Arrange a budget as the API has it; Pulumi's property names follow Terraform's here."""
    moved = ("limitAmount", "limitUnit", "notifications", "costFilters")
    return {name: value for name, value in properties.items() if name not in moved} | {
        "budgetLimit": {"amount": properties["limitAmount"], "unit": properties["limitUnit"]},
        "costFilters": {each["name"]: each["values"] for each in properties["costFilters"]},
        "notificationsWithSubscribers": [
            {
                "notification": each,
                "subscribers": [
                    {"subscriptionType": "EMAIL", "address": email} for email in each["subscriberEmailAddresses"]
                ],
            }
            for each in properties["notifications"]
        ],
    }


def _metric_alarm(properties: dict[str, Any]) -> dict[str, Any]:
    """An alarm as the API has it: dimensions are pairs, and a query's metric has its statistic beside it."""

    def pairs(dimensions: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"name": name, "value": value} for name, value in dimensions.items()]

    def query(each: dict[str, Any]) -> dict[str, Any]:
        if "metric" not in each:
            return each
        metric = dict(each["metric"])
        beside = {name: metric.pop(name) for name in ("stat", "period") if name in metric}
        metric["dimensions"] = pairs(metric["dimensions"])
        kept = {name: value for name, value in each.items() if name != "metric"}
        return kept | {"metricStat": {"metric": metric} | beside}

    changed = dict(properties)
    if "metricQueries" in changed:
        changed["metricQueries"] = [query(each) for each in changed["metricQueries"]]
    if "dimensions" in changed:
        changed["dimensions"] = pairs(changed["dimensions"])
    return changed


def _firehose(properties: dict[str, Any]) -> dict[str, Any]:
    """A stream as the API has it: how much is buffered stands in a structure of its own."""
    target = dict(properties["extendedS3Configuration"])
    hints = {"intervalInSeconds": target.pop("bufferingInterval"), "sizeInMBs": target.pop("bufferingSize")}
    if key := target.pop("kmsKeyArn", None):
        target["encryptionConfiguration"] = {"kmsEncryptionConfig": {"awskmsKeyArn": key}}
    encryption = {n: v for n, v in properties["serverSideEncryption"].items() if n != "enabled"}
    return properties | {
        "extendedS3Configuration": target | {"bufferingHints": hints},
        "serverSideEncryption": encryption,
    }


ROWS: dict[str, Row] = {
    "aws:cloudtrail/trail:Trail": Row(
        "cloudtrail",
        Call("CreateTrail"),
        id="{name}",
        delete=Call("DeleteTrail", parameters={"Name": "{id}"}),
        then=(Call("PutEventSelectors", parameters={"TrailName": "{id}"}, takes=("advancedEventSelectors",)),),
        outputs={"arn": "{trailARN}"},
    ),
    "aws:budgets/budget:Budget": Row(
        "budgets",
        Call("CreateBudget", parameters={"AccountId": "{account}"}, rename={"name": "BudgetName"}),
        id="{account}:{name}",
        delete=Call("DeleteBudget", parameters={"AccountId": "{account}", "BudgetName": "{name}"}),
        prepare=_budget,
    ),
    "aws:sns/topic:Topic": Row(
        "sns",
        Call("CreateTopic"),
        id="{topicArn}",
        delete=Call("DeleteTopic", parameters={"TopicArn": "{id}"}),
        then=(
            Call(
                "SetTopicAttributes",
                parameters={
                    "TopicArn": "{id}",
                    "AttributeName": "KmsMasterKeyId",
                    "AttributeValue": "{kmsMasterKeyId}",
                },
                takes=("kmsMasterKeyId",),
            ),
        ),
        outputs={"arn": "{topicArn}"},
    ),
    "aws:sns/topicPolicy:TopicPolicy": Row(
        "sns",
        Call(
            "SetTopicAttributes",
            rename={"arn": "TopicArn", "policy": "AttributeValue"},
            parameters={"AttributeName": "Policy"},
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
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": Row(
        "cloudwatch",
        Call("PutMetricAlarm", rename={"name": "AlarmName", "metricQueries": "Metrics"}),
        id="{name}",
        delete=Call("DeleteAlarms", parameters={"AlarmNames": ["{id}"]}),
        put=True,
        identity=frozenset({"name"}),
        outputs={"arn": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}"},
        prepare=_metric_alarm,
    ),
    "aws:cloudwatch/logStream:LogStream": Row(
        "logs",
        Call("CreateLogStream", rename={"name": "logStreamName"}),
        id="{name}",
        delete=Call("DeleteLogStream", rename={"name": "logStreamName"}, takes=("logGroupName", "name")),
    ),
    "aws:kinesis/firehoseDeliveryStream:FirehoseDeliveryStream": Row(
        "firehose",
        Call(
            "CreateDeliveryStream",
            rename={
                "name": "DeliveryStreamName",
                "extendedS3Configuration": "ExtendedS3DestinationConfiguration",
                "serverSideEncryption": "DeliveryStreamEncryptionConfigurationInput",
            },
        ),
        id="{deliveryStreamARN}",
        delete=Call("DeleteDeliveryStream", rename={"name": "DeliveryStreamName"}, takes=("name",)),
        prepare=_firehose,
        outputs={"arn": "{deliveryStreamARN}"},
        no_effect=frozenset({"destination"}),
    ),
}
