"""`mlp bootstrap`: explain what an account needs before its first environment, and make it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.handover import require_credentials, require_pulumi, run_up
from cli.output import AsJson, results
from contract.errors import PlatformError
from contract.paths import ROOT
from contract.strict import read_yaml
from embedded.local import Local

FOLDER = ROOT / "stacks" / "bootstrap"
PROJECT = "ml-platform-bootstrap"


@dataclass(frozen=True)
class BootstrapStep:
    """One thing to do, with the commands that do it."""

    title: str
    why: str
    commands: list[str]
    creates: list[str]
    usd_per_month: float


def bootstrap(
    account: Annotated[
        str, typer.Option(help="Name of the account: the <account> in stacks/bootstrap/Pulumi.<account>.yaml.")
    ] = "main",
    apply: Annotated[bool, typer.Option("--apply", help="Run the first `pulumi up`; otherwise only explain.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Explain what an AWS account needs once, before its first environment; with --apply, make it.

    That is a bucket for Pulumi's state, two keys, and the roles with which GitHub's workflows preview and deploy.
    Without --apply nothing is called and nothing changes.
    """
    config = _config(account)
    steps = explain(account, config)
    if apply:
        _apply(account, config, ask=not yes)
        return
    if as_json:
        print(json.dumps({"account": account, "steps": [asdict(step) for step in steps]}, indent=2))
        return
    for number, step in enumerate(steps, 1):
        results.print(f"[bold]{number}. {step.title}[/bold]  [dim]{step.why}[/dim]")
        for command in step.commands:
            results.print(f"     {command}", markup=False, soft_wrap=True)
        for thing in step.creates:
            results.print(f"   + {thing}", markup=False, soft_wrap=True)
    total = sum(step.usd_per_month for step in steps)
    results.print(f"\nCosts about {total:.2f} USD a month at list price (an estimate; docs/aws.md says of what).")


def explain(account: str, config: dict[str, Any]) -> list[BootstrapStep]:
    """The steps from an empty account to one in which environments can be made."""
    prefix, repository = config[f"{PROJECT}:prefix"], config[f"{PROJECT}:repository"]
    environments = config[f"{PROJECT}:environments"]
    name = f"{prefix}-bootstrap"
    existing = config.get(f"{PROJECT}:github_provider_arn")
    return [
        BootstrapStep(
            "Say whose workflows may deploy",
            "Nothing else in the file has to be changed.",
            [f"$EDITOR stacks/bootstrap/Pulumi.{account}.yaml    # {PROJECT}:repository, now {repository}"],
            [],
            0,
        ),
        BootstrapStep(
            "Make it, with the state in a file for now",
            "The bucket for the state cannot hold the state before it is there.",
            ["aws sso login", f"mlp bootstrap --account {account} --apply"],
            [
                f"S3 bucket {name}-state-<random>: every environment's state; versioned, locked, encrypted, private",
                f"KMS key alias/{name}-state: encrypts that bucket",
                f"KMS key alias/{name}-secrets: encrypts the secrets within the state and the environments' files",
                f"IAM identity provider of GitHub's workflows: {existing or 'new'}",
                f"IAM role {name}-preview: reads the state and settings, for pull requests of {repository}",
                f"IAM role {name}-deploy: changes {', '.join(environments)}, for their GitHub environments",
            ],
            2.10,  # two keys at 1 USD, and a few MB with their requests
        ),
        BootstrapStep(
            "Move the state into the bucket",
            "From here on nothing about the account is on this machine only.",
            [*migration(account), f"rm -r {_local_state(account)}"],
            [],
            0,
        ),
        BootstrapStep(
            "Tell GitHub",
            "Variables, not secrets: none of these is one.",
            [
                *github_variables(account, config["aws:region"]),
                *(f"gh api -X PUT repos/{repository}/environments/{each}" for each in environments),
                f"# then require reviewers for all but dev: github.com/{repository}/settings/environments",
            ],
            ["4 variables of the repository", f"{len(environments)} GitHub environments"],
            0,
        ),
        BootstrapStep(
            "Make the first environment",
            "Each environment's secrets are encrypted with the account's key.",
            [
                f'pulumi stack init {environments[0]} --secrets-provider "$SECRETS"    # of step 3',
                f"git add Pulumi.{environments[0]}.yaml    # its encrypted data key is in there now; workflows need it",
                f"mlp doctor {environments[0]}",
                f"mlp up {environments[0]}",
            ],
            [],
            0,
        ),
    ]


def migration(account: str) -> list[str]:
    """The commands that move the bootstrap's own state from a file into the bucket that it has made."""
    local = f'PULUMI_BACKEND_URL="{_local_state(account).as_uri()}" PULUMI_CONFIG_PASSPHRASE=""'
    stack, this = "pulumi -C stacks/bootstrap stack", f"--stack {account}"
    return [
        f"export {local}",
        f"BACKEND=$({stack} output backend_url {this}) SECRETS=$({stack} output secrets_provider {this})",
        f"{stack} export {this} --show-secrets --file bootstrap.json",
        "unset PULUMI_BACKEND_URL PULUMI_CONFIG_PASSPHRASE",
        # The passphrase's mark in the file would have the new stack ask for a passphrase.
        f"sed -i.bak /^encryptionsalt:/d stacks/bootstrap/Pulumi.{account}.yaml",
        'pulumi login "$BACKEND"',
        f'{stack} init {account} --secrets-provider "$SECRETS"',
        f"{stack} import {this} --file bootstrap.json && rm stacks/bootstrap/bootstrap.json stacks/bootstrap/*.bak",
    ]


def github_variables(account: str, region: str) -> list[str]:
    """The commands that tell the repository's workflows where the state is and which roles to take on."""
    output = f"pulumi -C stacks/bootstrap stack output --stack {account}"
    return [
        f"gh variable set AWS_REGION --body {region}",
        f'gh variable set PULUMI_BACKEND_URL --body "$({output} backend_url)"',
        f'gh variable set AWS_PREVIEW_ROLE --body "$({output} preview_role)"',
        f'gh variable set AWS_DEPLOY_ROLE --body "$({output} deploy_role)"',
    ]


def _apply(account: str, config: dict[str, Any], ask: bool) -> None:
    command = "mlp bootstrap --apply"
    if "_" in str(config[f"{PROJECT}:repository"]).partition("/")[0]:
        raise PlatformError(
            f"stacks/bootstrap/Pulumi.{account}.yaml: {PROJECT}:repository is still the placeholder "
            f"{config[f'{PROJECT}:repository']!r}; set it to the owner/name of your GitHub repository"
        )
    require_pulumi(command, "then try again (`mlp bootstrap` explains without it)")
    number = require_credentials(command, config["aws:region"])
    if _moved(account):
        run_up(account, FOLDER, ask, {})
        return
    results.print(f"Account {number}, region {config['aws:region']}; state in {_local_state(account)}", soft_wrap=True)
    _local_state(account).mkdir(parents=True, exist_ok=True)
    # Nothing in this state is secret, so the passphrase that Pulumi insists on protects nothing.
    variables = {"PULUMI_BACKEND_URL": _local_state(account).as_uri(), "PULUMI_CONFIG_PASSPHRASE": ""}
    run_up(account, FOLDER, ask, variables)
    results.print("\nMade. Now move the state into the bucket, and tell GitHub:\n")
    for line in [*migration(account), *github_variables(account, config["aws:region"])]:
        results.print(f"  {line}", markup=False, soft_wrap=True)


def _config(account: str) -> dict[str, Any]:
    accounts = sorted(path.name.split(".")[1] for path in FOLDER.glob("Pulumi.*.yaml"))
    if account not in accounts:
        raise PlatformError(
            f"unknown account {account!r}; there is a file stacks/bootstrap/Pulumi.<account>.yaml for: "
            f"{', '.join(accounts)}"
        )
    file = f"stacks/bootstrap/Pulumi.{account}.yaml"
    config: dict[str, Any] = read_yaml(FOLDER / f"Pulumi.{account}.yaml").get("config") or {}
    needed = ["aws:region", *(f"{PROJECT}:{key}" for key in ("prefix", "repository", "environments"))]
    if missing := [key for key in needed if not config.get(key)]:
        raise PlatformError(f"{file} is not valid:\n" + "\n".join(f"  {key}: this key is missing" for key in missing))
    return config


def _moved(account: str) -> bool:
    """Whether the state has been moved into the bucket: `pulumi stack init` writes the key into the account's file.

    Without looking, an apply would start from an empty state again, and make everything a second time.
    """
    secrets_provider = read_yaml(FOLDER / f"Pulumi.{account}.yaml").get("secretsprovider")
    return str(secrets_provider).startswith("awskms://")


def _local_state(account: str) -> Path:
    """Where the state is until it is moved: outside of the repository's history, beside the laptop's."""
    return Local.of_this_checkout().folder / f"bootstrap-{account}"
