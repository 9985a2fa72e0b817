"""`mlp status`: what runs, what died, and where to reach it."""

import json
import urllib.error
import urllib.request
from typing import Any

import typer
from rich.table import Table

from cli.output import AsJson, results
from contract.errors import PlatformError
from embedded.local import AWS, INFERENCE, Local


def status(as_json: AsJson = False) -> None:
    """Show what runs on this laptop, what died, and where to reach it.

    The exit status is 0 if everything runs, and 1 if anything is missing.
    """
    document = read_status(Local.of_this_checkout())
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        _print(document)
    if document["state"] != "up":
        raise typer.Exit(1)


def read_status(platform: Local) -> dict[str, Any]:
    """Where the laptop platform stands; docs/cli.md explains the keys."""
    processes = {process.name: process for process in platform.processes.all()}
    running = {name for name, process in processes.items() if process.state == "running"}
    service = processes.get(INFERENCE)
    models = _models(platform, service.url) if service and INFERENCE in running else []
    is_up = {AWS, INFERENCE} <= running and bool(models) and all(model["ready"] for model in models)
    return {
        "environment": "local",
        "state": "up" if is_up else "degraded" if processes else "down",
        "emulated": True,
        "endpoint": service.url if service else None,
        "demo": f"{service.url}/" if service else None,
        "docs": f"{service.url}/docs" if service else None,
        "metrics": f"{service.url}/metrics" if service else None,
        "processes": [
            {"name": process.name, "pid": process.pid, "port": process.port, "state": process.state}
            for process in processes.values()
        ],
        "models": models,
    }


def _models(platform: Local, url: str) -> list[dict[str, Any]]:
    """What the running service says of its models."""
    models = []
    for name in platform.outputs().models:
        try:
            with urllib.request.urlopen(f"{url}/v2/models/{name}", timeout=5) as answer:
                models.append({"name": name, "ready": True, "versions": json.load(answer)["versions"]})
        except urllib.error.HTTPError:
            models.append({"name": name, "ready": False, "versions": []})
        except OSError as error:
            raise PlatformError(f"the inference service at {url} does not answer: {error}") from None
    return models


def _print(document: dict[str, Any]) -> None:
    if document["state"] == "down":
        results.print("The platform is not up; run [bold]mlp up[/bold].")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("process", "state", "pid", "port"):
        table.add_column(column, style="bold" if column == "process" else "")
    for process in document["processes"]:
        colour = "green" if process["state"] == "running" else "red"
        state = f"[{colour}]{process['state']}[/{colour}]"
        table.add_row(process["name"], state, str(process["pid"]), str(process["port"]))
    results.print(table)
    for model in document["models"]:
        results.print(f"model {model['name']}: versions {', '.join(model['versions']) or 'none is ready'}")
    results.print("   ".join(f"{what} {document[what]}" for what in ("demo", "docs", "metrics")))
    if document["state"] == "degraded":
        died = [process["name"] for process in document["processes"] if process["state"] == "died"]
        reason = f"{', '.join(died)} died" if died else "not everything is ready"
        results.print(f"[red]Degraded: {reason}.[/red] [bold]mlp up[/bold] repairs it.")
    results.print("[dim]AWS is emulated, in memory: when its process ends, what it holds is gone.[/dim]")
