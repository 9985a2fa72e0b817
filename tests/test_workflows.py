"""The workflows: pinned, with the least permissions, and nothing of a fork's near a credential."""

import re

import pytest
import yaml

from contract.paths import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yml"))}
JOBS = {(file, name): job for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()}


def triggers(workflow):
    return workflow[True]  # "on" is a truth value in YAML 1.1


def runs_code_of_forks(file, job):
    if "pull_request" not in triggers(WORKFLOWS[file]):
        return False
    return "head.repo.full_name == github.repository" not in str(job.get("if", ""))


def test_there_are_the_workflows_that_the_documents_name():
    assert {
        "test.yml",
        "preview.yml",
        "preview-comment.yml",
        "deploy.yml",
        "deploy-environment.yml",
    } <= WORKFLOWS.keys()


@pytest.mark.parametrize("file", WORKFLOWS)
def test_actions_are_pinned_by_commit_and_say_which_version_that_is(file):
    for line in (FOLDER / file).read_text().splitlines():
        if match := re.match(r"\s*(?:- )?uses: (.*)", line):
            local = match[1].startswith("./.github/workflows/")
            assert local or re.match(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", match[1]), line


@pytest.mark.parametrize("file", WORKFLOWS)
def test_permissions_are_least_at_the_top(file):
    assert WORKFLOWS[file]["permissions"] in ({}, {"contents": "read"})


def test_no_workflow_runs_a_forks_code_with_the_repositorys_rights():
    for file, workflow in WORKFLOWS.items():
        assert "pull_request_target" not in triggers(workflow), file


@pytest.mark.parametrize(("file", "name"), JOBS)
def test_a_job_that_checks_out_a_forks_code_has_nothing_to_lose(file, name):
    job = JOBS[file, name]
    if runs_code_of_forks(file, job):
        assert "permissions" not in job
        assert not re.search(r"secrets\.|github\.token|vars\.AWS", yaml.safe_dump(job))
        assert "environment" not in job


@pytest.mark.parametrize(("file", "name"), JOBS)
def test_checkouts_leave_no_token_behind_and_no_secret_is_used(file, name):
    job = JOBS[file, name]
    assert "secrets." not in yaml.safe_dump(job)
    for step in job.get("steps", []):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize(("file", "name"), JOBS)
def test_nothing_that_others_choose_stands_in_a_script(file, name):
    for step in JOBS[file, name].get("steps", []):
        for script in (step.get("run", ""), step.get("with", {}).get("script", "")):
            assert "${{" not in script


def test_who_comments_runs_nothing_of_the_pull_request():
    (job,) = WORKFLOWS["preview-comment.yml"]["jobs"].values()
    assert triggers(WORKFLOWS["preview-comment.yml"]) == {
        "workflow_run": {"workflows": ["preview"], "types": ["completed"]}
    }
    assert job["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert [step["uses"].partition("@")[0] for step in job["steps"]] == [
        "actions/download-artifact",
        "actions/github-script",
    ]


def test_writing_rights_are_where_they_are_needed_only():
    writers = {
        (file, name): {right for right, level in job.get("permissions", {}).items() if level == "write"}
        for (file, name), job in JOBS.items()
    }
    assert {key: rights for key, rights in writers.items() if rights} == {
        ("preview.yml", "pulumi"): {"id-token"},
        ("preview-comment.yml", "comment"): {"pull-requests"},
        ("deploy.yml", "dev"): {"id-token"},
        ("deploy.yml", "staging"): {"id-token"},
        ("deploy.yml", "prod"): {"id-token"},
        ("deploy-environment.yml", "up"): {"id-token"},
    }


def test_the_real_preview_is_for_branches_of_this_repository_and_not_in_an_environment():
    job = JOBS["preview.yml", "pulumi"]
    assert "vars.AWS_PREVIEW_ROLE != ''" in job["if"]
    assert "environment" not in job  # or the token's subject is the environment's, which may deploy


def test_a_running_deployment_is_never_cancelled():
    assert "concurrency" not in WORKFLOWS["deploy.yml"]
    job = JOBS["deploy-environment.yml", "up"]
    assert job["concurrency"] == {"group": "deploy-${{ inputs.environment }}", "cancel-in-progress": False}
    assert job["environment"] == "${{ inputs.environment }}"


def test_staging_follows_dev_and_prod_follows_staging():
    jobs = WORKFLOWS["deploy.yml"]["jobs"]
    assert list(jobs) == ["dev", "staging", "prod"]
    assert (jobs["staging"]["needs"], jobs["prod"]["needs"]) == ("dev", "staging")
    for name, job in jobs.items():
        assert job["with"] == {"environment": name}
        assert (ROOT / f"Pulumi.{name}.yaml").exists()
    assert "refs/heads/main" in jobs["dev"]["if"]
