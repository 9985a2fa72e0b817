"""What an environment's settings and the models' manifests must agree on."""

from collections.abc import Iterator, Mapping

from contract.errors import PlatformError
from contract.manifest import Manifest
from infra.settings import Settings


def check(settings: Settings, models: Mapping[str, Manifest]) -> None:
    """Compare them before the first resource is registered.

    Raises:
        PlatformError: naming the files, the keys and what is allowed.
    """
    if mistakes := list(_teams(settings, models)):
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        raise PlatformError(f"Pulumi.{settings.environment}.yaml does not fit the models:\n{lines}")


def _teams(settings: Settings, models: Mapping[str, Manifest]) -> Iterator[str]:
    """Teams that train, and have no quota where their jobs run."""
    backend = settings.training.backend
    limits = getattr(settings.training, backend, None)
    for name, manifest in models.items():
        if limits and manifest.compute.team not in limits.teams:
            yield (
                f"ml-platform:training.{backend}.teams: there is no quota for the team {manifest.compute.team!r} of "
                f"training/models/{name}/model.yaml (compute.team); there are {', '.join(sorted(limits.teams))}"
            )
