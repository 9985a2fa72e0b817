"""The workflows: pinned, with the least permissions, and nothing of a fork's near a credential."""

import re
import subprocess

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
        "images.yml",
        "image-environment.yml",
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
        ("images.yml", "build"): {"id-token", "attestations"},
        ("images.yml", "deliver"): {"id-token", "contents", "pull-requests"},
        ("image-environment.yml", "push"): {"id-token"},
        ("image-environment.yml", "propose"): {"contents", "pull-requests"},
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


def test_who_builds_an_image_has_no_way_into_an_account_and_who_pushes_it_runs_no_code_of_the_repository():
    build, push = JOBS["images.yml", "build"], JOBS["image-environment.yml", "push"]
    assert not re.search(r"vars\.AWS|environment", yaml.safe_dump(build))
    assert push["environment"] == "${{ inputs.environment }}"
    assert not re.search(
        r"mlp |pip |python", "".join(step.get("run", "") for step in push["steps"]).replace("`mlp up", "")
    )


def test_the_image_is_one_that_lambda_takes_and_is_scanned_before_it_leaves():
    steps = JOBS["images.yml", "build"]["steps"]
    script = next(step["run"] for step in steps if step.get("id") == "image")
    assert "--provenance=false --sbom=false" in script
    assert "--format v2s2" in script
    (scan,) = [at for at, step in enumerate(steps) if step.get("with", {}).get("exit-code")]
    leaves = [
        at for at, step in enumerate(steps) if re.match(r"actions/(attest|upload-artifact)@", step.get("uses", ""))
    ]
    assert len(leaves) == 3
    assert scan < min(leaves)


def test_what_is_built_from_starts_a_build():
    paths = triggers(WORKFLOWS["images.yml"])["push"]["paths"]
    dockerfile = (ROOT / "services/inference/Dockerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE):
        for name in source.split():
            if name not in ("README.md", "LICENSE"):
                assert any(re.match(path.replace("**", ".*"), name) for path in paths), name
    assert {"dev", "staging", "prod"} == set(JOBS["images.yml", "deliver"]["strategy"]["matrix"]["environment"])


def test_every_script_is_one_that_bash_can_read():
    for (file, name), job in JOBS.items():
        for step in job.get("steps", []):
            if "run" in step:
                done = subprocess.run(["bash", "-n"], input=step["run"], capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{file}: {name}: {done.stderr}"
