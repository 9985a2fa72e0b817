"""Every policy document is one that AWS takes: known elements, known actions, and ARNs that those actions apply to."""

import json
import re
from fnmatch import fnmatchcase

import pytest
from policy_sentry.querying.actions import get_action_data, get_actions_for_service

from embedded.monitor import Resource
from tests.infra.conftest import EVERYTHING_ON, MLFLOW_ON_ECS, ON_EKS, as_list
from tests.infra.test_runtimes import INFERENCE, RUNTIMES
from tests.infra.test_scoring import SCORING

SERVED = INFERENCE | {"architecture": "x86_64"}
HASHED = {"runtime": "lambda", "sensitive": {"pixels": "hash"}}
ELEMENTS = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
AS_PUBLISHED = "acme-prod-karpenter policy"
"""A policy whose statements cross actions with resources, of which each needs only one of the other's."""
ONLY_ON_RESOURCES = {"sts:AssumeRole"}


@pytest.fixture
def documents(build) -> dict[str, dict]:
    served = [
        build("prod", serving=serving, **settings | {"inference": SERVED})
        for settings in (EVERYTHING_ON, EVERYTHING_ON | {"data": MLFLOW_ON_ECS})
        for serving in (*RUNTIMES.values(), HASHED)
    ]
    return {
        f"{resource.type} {resource.name} {name}": json.loads(resource.inputs[name])
        for deployment in (*served, build("prod", scoring=SCORING, **EVERYTHING_ON), build("prod", **ON_EKS))
        for resource in deployment.resources.values()
        for name in policy_properties(resource)
    }


def policy_properties(resource: Resource) -> list[str]:
    return [
        name
        for name, value in resource.inputs.items()
        if name.lower().endswith("policy") and isinstance(value, str) and '"Statement"' in value
    ]


def actions(pattern: str) -> list[str]:
    service = pattern.partition(":")[0]
    return [action for action in get_actions_for_service(service) if fnmatchcase(action.lower(), pattern.lower())]


def test_there_are_documents_of_every_kind(documents):
    kinds = {name.split()[0].rpartition(":")[2] for name in documents}
    assert kinds == {"BucketPolicy", "Key", "KeyPolicy", "QueuePolicy", "Role", "RolePolicy", "TopicPolicy"}
    assert len(documents) >= 16


def test_statements_are_well_formed_and_have_ids_of_their_own(documents):
    for name, document in documents.items():
        assert document["Version"] == "2012-10-17", name
        sids = [statement["Sid"] for statement in document["Statement"] if "Sid" in statement]
        assert len(set(sids)) == len(sids), name
        for statement in document["Statement"]:
            assert statement.keys() <= ELEMENTS, name
            assert statement["Effect"] in ("Allow", "Deny"), name
            assert all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids), name


def test_every_action_is_one_that_aws_has(documents):
    for name, document in documents.items():
        for statement in document["Statement"]:
            for pattern in as_list(statement["Action"]):
                assert actions(pattern), f"{name}: {pattern} is no action"


def test_every_arn_is_one_that_its_action_applies_to(documents):
    for name, document in documents.items():
        for statement in document["Statement"]:
            patterns, arns = as_list(statement["Action"]), as_list(statement.get("Resource", "*"))
            fits = {
                (pattern, arn): arn == "*" or any(applies(action, arn) for action in actions(pattern))
                for pattern in patterns
                for arn in arns
            }
            if AS_PUBLISHED in name:
                assert all(any(fits[pattern, arn] for arn in arns) for pattern in patterns), (name, statement)
                # A launch on spot asks for this one too, though AWS's list of actions does not say so.
                listed = [arn for arn in arns if "spot-instances-request" not in arn]
                assert all(any(fits[pattern, arn] for pattern in patterns) for arn in listed), (name, statement)
                continue
            for (pattern, arn), fit in fits.items():
                assert fit, f"{name}: {pattern} does not apply to {arn}"


def applies(action: str, arn: str) -> bool:
    """Whether an ARN, which may hold wildcards, can name a resource of an action."""
    service, _, name = action.partition(":")
    for form in (each["resource_arn_format"] for each in get_action_data(service, name)[service]):
        parts = re.split(r"\$\{\w+\}", form)
        shape = ".*".join(re.escape(part) for part in parts)
        # A wildcard may stand for any later part of the form, such as a log group's streams.
        completed = [arn, *(arn.replace("*", f"{part.strip(':')}:x") for part in parts)]
        if form != "*" and any(re.fullmatch(shape, each) for each in completed):
            return True
    return False


def test_no_document_is_larger_than_its_place_takes(documents):
    limits = {
        "Role": 2048,
        "RolePolicy": 10_240,
        "BucketPolicy": 20_480,
        "Key": 32_768,
        "KeyPolicy": 32_768,
        "TopicPolicy": 30_720,
        "QueuePolicy": 8192,
    }
    for name, document in documents.items():
        limit = limits[name.split()[0].rpartition(":")[2]]
        assert len(json.dumps(document, separators=(",", ":"))) <= limit, name


def test_the_check_finds_what_is_wrong():
    assert not actions("s3:GetObjects")
    assert not applies("s3:GetObject", "arn:aws:sqs:eu-west-1:123456789012:queue")
    assert not applies("s3:ListBucket", "arn:aws:sqs:::bucket")
    assert applies("s3:GetObject", "arn:aws:s3:::bucket/*")
