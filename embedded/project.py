"""Reads `Pulumi.yaml` and `Pulumi.<environment>.yaml` as the Pulumi CLI does, and runs the program in `stacks/`."""

import json
import runpy
from typing import TYPE_CHECKING, Any

from contract.errors import PlatformError
from contract.paths import ROOT
from contract.strict import read_yaml

if TYPE_CHECKING:
    from embedded.monitor import Deployment, Provider
    from infra.settings import Settings

_TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def environments() -> list[str]:
    """Names of the environments that have a `Pulumi.<name>.yaml`, sorted."""
    return sorted(path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml"))


def check_environment(name: str) -> None:
    """Raise PlatformError unless there is a file for this environment."""
    if name not in environments():
        raise PlatformError(
            f"unknown environment {name!r}; there is a file Pulumi.<environment>.yaml for: {', '.join(environments())}"
        )


def read_config(environment: str) -> dict[str, str]:
    """Read an environment's configuration, with the defaults and types that `Pulumi.yaml` declares.

    Returns:
        Full keys (`namespace:key`) with their values; structured values are JSON, as a Pulumi program gets them.

    Raises:
        PlatformError: for an unknown environment, an undeclared or missing key, or a value of another type.
    """
    check_environment(environment)
    project = read_yaml(ROOT / "Pulumi.yaml")
    file = f"Pulumi.{environment}.yaml"
    given = read_yaml(ROOT / file).get("config") or {}
    declared = {_full_key(project["name"], key): value for key, value in (project.get("config") or {}).items()}
    own = f"{project['name']}:"
    for key in given:
        if key.startswith(own) and key not in declared:
            allowed = ", ".join(sorted(name for name in declared if name.startswith(own)))
            raise PlatformError(f"{file} is not valid:\n  unknown key {key!r}; allowed: {allowed}")
    if "aws:region" not in given | declared:
        raise PlatformError(f"{file} is not valid:\n  aws:region: this key is missing; name a region such as eu-west-1")
    values: dict[str, Any] = {}
    for key, declaration in declared.items():
        if key in given:
            values[key] = given[key]
        elif not isinstance(declaration, dict):
            values[key] = declaration
        elif "default" in declaration or "value" in declaration:
            values[key] = declaration.get("default", declaration.get("value"))
        else:
            raise PlatformError(
                f"{file} is not valid:\n  {key}: this key is missing; {declaration.get('description', '')}"
            )
        wanted = declaration.get("type") if isinstance(declaration, dict) else None
        if wanted and type(values[key]) is not _TYPES[wanted]:  # a bool is an int to isinstance
            raise PlatformError(f"{file} is not valid:\n  {key}: must be of type {wanted}, but it is {values[key]!r}")
    return {key: _as_text(value) for key, value in (given | values).items()}


def load_settings(environment: str) -> "Settings":
    """An environment's settings, typed and checked, without running its program.

    Raises:
        PlatformError: when the configuration is not valid.
    """
    from embedded.monitor import run
    from infra.settings import load

    loaded: list[Settings] = []
    project = read_yaml(ROOT / "Pulumi.yaml")["name"]
    run(lambda: loaded.append(load()), project=project, stack=environment, config=read_config(environment))
    return loaded[0]


def run_environment(environment: str, provider: "Provider | None" = None) -> "Deployment":
    """Run the program in `stacks/` with an environment's configuration; without a provider this is a preview.

    Raises:
        PlatformError: when the configuration is not valid or the program fails.
    """
    # Pulumi takes half a second to import, which reading a file need not wait for.
    from embedded.foresight import arns
    from embedded.monitor import run

    config = read_config(environment)
    project = read_yaml(ROOT / "Pulumi.yaml")
    program = ROOT / project["main"] / "__main__.py"

    def main() -> None:
        runpy.run_path(str(program), run_name="__main__")

    return run(
        main,
        project=project["name"],
        stack=environment,
        config=config,
        provider=provider,
        foresee=arns(config["aws:region"]),
    )


def _full_key(project: str, key: str) -> str:
    return key if ":" in key else f"{project}:{key}"


def _as_text(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, default=str)  # YAML reads an unquoted date as a date
    return str(value).lower() if isinstance(value, bool) else str(value)
