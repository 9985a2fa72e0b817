"""`mlp dashboards`: the dashboards of an environment as files, to look at, to import and to compare."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import AsJson, show


def dashboards(
    environment: Annotated[str, typer.Argument(help="An environment that has a Pulumi.<name>.yaml.")] = "dev",
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("dashboards"),
    as_json: AsJson = False,
) -> None:
    """Write the dashboards that an environment would have as JSON, for Grafana and for CloudWatch.

    Any Grafana takes the files under grafana/ by Dashboards > New > Import. All that there are are written, whatever
    the environment has switched on; no account and no network is needed.
    """
    files = {output / name: content for name, content in _files(environment).items()}
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    show({file.stem: file for file in files}, as_json, {"files": [str(file) for file in files]})


def _files(environment: str) -> dict[str, str]:
    from contract.manifest import load_manifest, model_names
    from embedded.project import load_settings
    from infra.dashboards.cloudwatch import body
    from infra.dashboards.grafana import dashboards, text
    from infra.dashboards.platform import Platform, served
    from infra.naming import Naming

    settings = load_settings(environment)
    models = {name: load_manifest(name) for name in model_names()}
    naming = Naming.of(settings, models)
    platform = Platform(
        naming,
        settings.region,
        settings.observability,
        served(models, naming),
        gpu_training=True,
        monthly_usd=settings.budget.monthly_usd,
    )
    grafana = {f"grafana/{name}.json": text(dashboard) for name, dashboard in dashboards(platform).items()}
    cloudwatch = {f"cloudwatch/{model.name}.json": text(body(model, platform)) for model in platform.models}
    return grafana | cloudwatch
