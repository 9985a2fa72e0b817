"""`mlp models`: the versions of a model in the registry, what they are made of and which of them are live."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cli.output import AsJson, progress, results, show, step
from contract.errors import PlatformError
from contract.manifest import load_manifest
from contract.outputs import Outputs
from embedded.local import Local

if TYPE_CHECKING:
    from training.registry import ModelVersion

models = typer.Typer(
    name="models", help="Versions of a model: list, compare, approve, reproduce.", no_args_is_help=True
)

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(min=1, help="Number of the version; `mlp models list MODEL` has them.")]
SHOWN_DIGITS = 6


@dataclass(frozen=True)
class _Registry:
    """The versions of one model on the laptop platform."""

    model: str
    platform: Local
    outputs: Outputs

    @property
    def group(self) -> str:
        return self.outputs.of_model(self.model).package_group

    @property
    def live_parameter(self) -> str:
        return self.outputs.of_model(self.model).live_parameter

    def find(self, number: int) -> "ModelVersion":
        from training import registry

        return registry.find(self.group, number)

    def shares(self) -> dict[int, int]:
        """Percent of the traffic by version."""
        from training import registry

        return {each.version: each.weight for each in registry.live(self.live_parameter).versions}


@models.command("list")
def list_(model: Model, as_json: AsJson = False) -> None:
    """List the versions, the newest first."""
    from training import registry

    with _registry(model) as known:
        shares = known.shares()
        facts = [_facts(version, shares) for version in registry.versions(known.group)]
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    if not facts:
        progress.print(f"{model} has no version yet; `mlp train {model}` makes one")
        return
    quality = load_manifest(model).quality
    table = _table("version", "status", "traffic", quality, "variant", "trained by", "created")
    for each in facts:
        measured = each["metrics"].get(quality)
        traffic = f"{each['traffic_percent']}%" if each["version"] in shares else ""
        told = (each["version"], each["status"], traffic, _shown(measured), each["variant"], each["trained_by"])
        table.add_row(*(escape(str(value)) for value in (*told, each["created"])))
    results.print(table)


@models.command("show")
def show_(model: Model, version: Version, as_json: AsJson = False) -> None:
    """Show a version: its metrics, its card and where it comes from."""
    from training.registry import CARD_FILE, LINEAGE_FILE

    with _registry(model) as known:
        found = known.find(version)
        facts = _facts(found, known.shares())
        card, lineage = found.document(CARD_FILE), found.document(LINEAGE_FILE)
    if as_json:
        print(json.dumps(facts | {"card": card, "lineage": lineage}, indent=2))
        return
    metrics = {f"metric {name}": _shown(value) for name, value in facts.pop("metrics").items()}
    uses = {name.replace("_", " "): value for name, value in card["intended_uses"].items()}
    snapshot = lineage["snapshot"]
    origin = {
        "snapshot": f"{snapshot['id']}, {snapshot['rows']} rows of {snapshot['source']}",
        "commit": lineage["commit"],
        **{f"training {name}": value for name, value in lineage["manifest"]["training"].items()},
        **lineage["environment"],
    }
    show({name: escape(str(value)) for name, value in (facts | metrics | uses | origin).items()}, as_json)


@models.command()
def diff(model: Model, version: Version, other: Version, as_json: AsJson = False) -> None:
    """Show in what two versions differ: data, settings, code, environment, metrics."""
    from training.registry import LINEAGE_FILE

    with _registry(model) as known:
        one, two = (dict(_flat(known.find(number).document(LINEAGE_FILE))) for number in (version, other))
    names = [*one, *(name for name in two if name not in one)]
    differences = {name: [one.get(name), two.get(name)] for name in names if one.get(name) != two.get(name)}
    if as_json:
        print(json.dumps({"model": model, "versions": [version, other], "differences": differences}, indent=2))
        return
    table = _table("", f"version {version}", f"version {other}")
    for name, (theirs, others) in differences.items():
        table.add_row(*(escape(_shown(value)) for value in (name, theirs, others)))
    results.print(table)


@models.command()
def approve(model: Model, version: Version, as_json: AsJson = False) -> None:
    """Approve a version and give it all of the traffic; the service takes it up without a restart."""
    from training import registry

    with _registry(model) as known, known.platform.changing():
        found = registry.approve(known.find(version))
        registry.make_live(found, known.live_parameter)
        show(_decision(model, found, known), as_json)


@models.command()
def reject(model: Model, version: Version, as_json: AsJson = False) -> None:
    """Reject a version, so that nothing makes it live; one that is live, by share or rule, cannot be rejected."""
    from training import registry, rollout

    with _registry(model) as known, known.platform.changing():
        found = known.find(version)
        if version in known.shares():
            live = rollout.shares(registry.live(known.live_parameter))
            raise PlatformError(
                f"version {version} of {model} is live: {live}; give another one all of the traffic first: "
                f"{_others(known, version)}"
            )
        show(_decision(model, registry.reject(found), known), as_json)


@models.command()
def reproduce(model: Model, version: Version, as_json: AsJson = False) -> None:
    """Train a version again from its recorded lineage and compare the metrics.

    The exit status is 1 if one of them is not the same. Nothing is registered.
    """
    with _registry(model) as known, known.platform.changing():
        from training.reproduce import reproduce as again

        found = known.find(version)
        try:
            with step(f"Reproduce {model} {version}") as this:
                work = known.platform.folder / "reproduced" / model
                done = again(found, known.outputs, work, this.update)
                this.done("the same metrics" if done.is_same else "other metrics")
        except KeyboardInterrupt:
            raise PlatformError(f"interrupted; `mlp models reproduce {model} {version}` starts it again") from None
    if as_json:
        metrics = {name: {"then": then, "now": now} for name, (then, now) in done.metrics.items()}
        document = {"model": model, "version": version, "same": done.is_same, "metrics": metrics}
        print(json.dumps(document | {"differences": done.differences}, indent=2))
    else:
        table = _table("metric", "then", "now", "")
        for name, (then, now) in done.metrics.items():
            table.add_row(name, str(then), str(now), "same" if then == now else "differs")
        results.print(table)
    if not done.is_same:
        why = "; ".join(done.differences) or "neither code, packages nor machine have changed"
        raise PlatformError(f"version {version} of {model} is not reproduced: {why}")


@contextmanager
def _registry(model: str) -> Iterator[_Registry]:
    """The model's versions, with this process's AWS clients pointed at the emulated AWS."""
    load_manifest(model)
    platform = Local.of_this_checkout()
    platform.use_aws()
    outputs = platform.outputs()
    outputs.of_model(model)
    yield _Registry(model, platform, outputs)


def _others(known: _Registry, version: int) -> str:
    """How to give versions other than this one all of the traffic."""
    from training import registry

    live = sorted(known.shares().keys() - {version})
    rest = sorted(each.version for each in registry.versions(known.group) if each.version not in known.shares())
    ways = {f"mlp promote {known.model} --version": live, f"mlp models approve {known.model}": rest}
    there = [f"`{command} N`, where N is {' or '.join(map(str, of))}" for command, of in ways.items() if of]
    return "; ".join(there) or f"`mlp train {known.model}` makes one"


def _facts(version: "ModelVersion", shares: Mapping[int, int]) -> dict[str, Any]:
    return {
        "version": version.version,
        "status": version.status,
        "traffic_percent": shares.get(version.version, 0),
        "created": version.created.isoformat(timespec="seconds"),
        "trained_by": version.properties.get("trained_by", ""),
        "variant": version.properties.get("variant", ""),
        "artifact": version.artifact,
        "metrics": version.metrics,
    }


def _decision(model: str, version: "ModelVersion", known: _Registry) -> dict[str, Any]:
    share = known.shares().get(version.version, 0)
    return {"model": model, "version": version.version, "status": version.status, "traffic_percent": share}


def _flat(document: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested documents, by their path."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{under}{name}.")
        else:
            yield f"{under}{name}", value


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.{SHOWN_DIGITS}g}" if isinstance(value, float) else str(value)
