"""`mlp cost`: what the environments cost a month by AWS's list prices, idle and under a load."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from contract.errors import PlatformError
from contract.paths import ROOT

if TYPE_CHECKING:
    from embedded.monitor import Deployment
    from infra.pricing import Cost, Load, Prices, Resource

FILE = ROOT / "docs" / "costs.md"
SHIPPED = ("dev", "staging", "prod")


def cost(
    environments: Annotated[
        list[str] | None, typer.Argument(help="Environments; dev, staging and prod if none.")
    ] = None,
    requests: Annotated[int, typer.Option(min=0, help="Predictions a month, over all models.")] = 1_000_000,
    stored_gb: Annotated[int, typer.Option(min=0, help="Data in the lake, in GB.")] = 100,
    nat_gb: Annotated[int, typer.Option(min=0, help="Traffic out of the private subnets a month, in GB.")] = 50,
    write: Annotated[bool, typer.Option("--write", help="Write docs/costs.md anew.")] = False,
) -> None:
    """Reckon from the preview what each environment costs a month, by component, as a Markdown table.

    The prices are AWS's list prices in infra/prices.yaml, entered by hand with their date.
    """
    from infra.pricing import Load

    load = Load(requests=requests, stored_gb=stored_gb, nat_gb=nat_gb)
    if write and environments:
        raise typer.BadParameter("--write makes the page of dev, staging and prod; name no environment with it")
    text = page(environments or list(SHIPPED), load)
    if write:
        FILE.write_text(text)
    print(text, end="")


def line(usd: float, unpriced: list[str]) -> str:
    """What `idle` says, in words."""
    left_out = f", without {', '.join(unpriced)}" if unpriced else ""
    return f"cost: about {usd:,.2f} USD a month while nobody uses it, by list prices (mlp cost){left_out}"


def page(environments: list[str], load: "Load") -> str:
    """The table, with what it is made from."""
    from infra.pricing import read_prices

    prices = read_prices()
    found = {environment: _costs(environment, load, prices) for environment in environments}
    return "\n".join([*_opening(prices, load), *_table(found)]) + "\n"


def idle(deployment: "Deployment") -> tuple[float, list[str]]:
    """What a previewed environment costs a month while nobody uses it, in US dollars, and the types left out of it."""
    from infra.pricing import Load, monthly, read_prices

    costs, unpriced = monthly(resources(deployment), Load(), read_prices().prices)
    return round(sum(each.idle for each in costs), 2), sorted(unpriced)


def resources(deployment: "Deployment") -> "list[Resource]":
    """The resources of a preview, with the component below the stack that each belongs to."""
    from cli.preview_output import plain
    from infra.pricing import Resource

    def component(urn: str) -> str:
        resource = deployment.resources[urn]
        parent = resource.parent
        return resource.name if parent == deployment.stack.urn or not parent else component(parent)

    return [
        Resource(resource.type, resource.name, component(urn), plain(resource.inputs))
        for urn, resource in sorted(deployment.resources.items())
        if resource.custom
    ]


def _costs(environment: str, load: "Load", prices: "Prices") -> "dict[str, Cost]":
    from embedded.project import run_environment
    from infra.pricing import monthly

    costs, unpriced = monthly(resources(run_environment(environment)), load, prices.prices)
    if unpriced:
        raise PlatformError(
            f"{environment}: there is no price for {', '.join(sorted(unpriced))}; add it to infra/pricing.py, to "
            "PRICED or to FREE"
        )
    return {each.component: each for each in costs}


def _opening(prices: "Prices", load: "Load") -> list[str]:
    asked = f"{load.requests:,} predictions of {load.milliseconds} ms and {load.kilobytes} kB each"
    return [
        "# What an environment costs a month",
        "",
        "Made by `mlp cost --write` from the previews of the environments as shipped and on-demand list prices of",
        f"{prices.date} in {prices.region} (`infra/prices.yaml`, entered by hand), in US dollars, without tax, free",
        "tier or discounts. Idle is an environment in which nothing is asked and nothing is trained. The load is",
        f"{asked}, {load.stored_gb} GB in the lake and {load.nat_gb} GB out of the private subnets.",
        "Training and scheduled scoring cost by the hour, on top.",
        "",
    ]


def _table(found: "Mapping[str, Mapping[str, Cost]]") -> Iterator[str]:
    yield "| component | " + " | ".join(f"{name}, idle | {name}, loaded" for name in found) + " |"
    yield "|---" + "|---:" * 2 * len(found) + "|"
    for component in sorted({name for costs in found.values() for name in costs}):
        given = [costs.get(component) for costs in found.values()]
        cells = [f"{each.idle:,.2f} | {each.loaded:,.2f}" if each else "0 | 0" for each in given]
        yield f"| {component} | " + " | ".join(cells) + " |"
    sums = []
    for costs in found.values():
        idle, loaded = sum(each.idle for each in costs.values()), sum(each.loaded for each in costs.values())
        sums.append(f"**{idle:,.2f}** | **{loaded:,.2f}**")
    yield "| **all** | " + " | ".join(sums) + " |"
