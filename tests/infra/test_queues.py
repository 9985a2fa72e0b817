"""Kueue: a queue for each team, with its quota, what it lends and borrows, and jobs that start whole or not at all."""

import pytest
import yaml

from tests.infra.conftest import CLUSTER, ON_EKS, only
from tests.infra.test_cluster import SMALL

QUEUE = "kubernetes:kueue.x-k8s.io/v1beta2:ClusterQueue"


@pytest.fixture
def deployment(build):
    return build("prod", **ON_EKS)


def queue(deployment, team):
    return only(deployment, QUEUE, f"queue-{team}").inputs["spec"]


def quotas(deployment, team):
    (group,) = queue(deployment, team)["resourceGroups"]
    assert group["coveredResources"] == ["nvidia.com/gpu", "cpu"]
    return {
        flavor["name"]: {each["name"]: each["nominalQuota"] for each in flavor["resources"]}
        for flavor in group["flavors"]
    }


def configuration(deployment):
    values = only(deployment, "kubernetes:helm.sh/v3:Release", "kueue").inputs["values"]
    return yaml.safe_load(values["managerConfig"]["controllerManagerConfigYaml"])


def test_each_team_has_a_queue_with_its_quota(deployment):
    assert {each.inputs["metadata"]["name"] for each in deployment.of_type(QUEUE)} == CLUSTER["teams"].keys()
    # A p4d.24xlarge has 12 vCPUs beside each GPU, a g5.16xlarge 64.
    assert quotas(deployment, "default") == {
        "a100": {"nvidia.com/gpu": "16", "cpu": "192"},
        "a10g": {"nvidia.com/gpu": "8", "cpu": "512"},
        "cpu": {"nvidia.com/gpu": "0", "cpu": "96"},
    }
    assert quotas(deployment, "ops") == {"cpu": {"nvidia.com/gpu": "0", "cpu": "32"}}


def test_teams_lend_what_is_idle_and_borrow_if_they_may(deployment):
    assert {queue(deployment, team)["cohortName"] for team in CLUSTER["teams"]} == {"teams"}
    limits = {
        team: {
            resource.get("borrowingLimit")
            for group in queue(deployment, team)["resourceGroups"]
            for flavor in group["flavors"]
            for resource in flavor["resources"]
        }
        for team in CLUSTER["teams"]
    }
    assert limits == {"default": {None}, "vision": {None}, "ops": {"0"}}
    assert queue(deployment, "vision")["fairSharing"] == {"weight": "2.5"}


def test_what_was_lent_comes_back_and_a_job_of_higher_priority_goes_first(deployment):
    for team in CLUSTER["teams"]:
        assert queue(deployment, team)["preemption"] == {
            "reclaimWithinCohort": "Any",
            "withinClusterQueue": "LowerPriority",
        }
    priorities = deployment.of_type("kubernetes:kueue.x-k8s.io/v1beta2:WorkloadPriorityClass")
    assert {each.inputs["metadata"]["name"]: each.inputs["value"] for each in priorities} == {
        "low": -1000,
        "high": 1000,
    }


def test_a_large_job_starts_with_all_its_gpus_while_small_ones_keep_flowing(deployment):
    waiting = configuration(deployment)["waitForPodsReady"]
    assert waiting["timeout"] == "20m"  # or all of its pods go, and it back to its queue
    assert waiting["recoveryTimeout"] == "20m"
    assert waiting["blockAdmission"] is False
    assert all(queue(deployment, team)["queueingStrategy"] == "BestEffortFIFO" for team in CLUSTER["teams"])


def test_nothing_runs_past_the_queue_in_a_teams_namespace(deployment):
    found = configuration(deployment)
    assert found["manageJobsWithoutQueueName"] is True
    (selector,) = found["managedJobsNamespaceSelector"]["matchExpressions"]
    spaces = deployment.of_type("kubernetes:core/v1:Namespace")
    managed = {s.name for s in spaces if selector["key"] in s.inputs["metadata"]["labels"]}
    assert managed == {f"team-{team}" for team in CLUSTER["teams"]}
    assert {"batch/job", "jobset.x-k8s.io/jobset", "pod"} <= set(found["integrations"]["frameworks"])


def test_the_time_to_start_is_a_setting(build):
    assert configuration(build("dev", **SMALL))["waitForPodsReady"]["timeout"] == "45m"


def test_the_queues_controllers_keep_to_the_restricted_standard(deployment):
    for name in ("kueue-system", "jobset-system"):
        (space,) = [s for s in deployment.of_type("kubernetes:core/v1:Namespace") if s.name == name]
        assert space.inputs["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
