"""Limits: beyond them somebody is told, and the dashboards draw them as lines."""

from dataclasses import dataclass
from typing import Self

from infra.settings import Settings


@dataclass(frozen=True)
class Limits:
    """What the alerts go by, gathered from the sections that it is set in; a model's latency is in its manifest.

    Attributes:
        error_percent: share of a model's requests that may fail, over five minutes.
        drift_score: population stability index that a feature may have.
        idle_gpu_minutes: how long a GPU may do nothing.
        pending_minutes: how long a training job may wait for its quota.
    """

    error_percent: float = 1
    drift_score: float = 0.2
    idle_gpu_minutes: int = 30
    pending_minutes: int = 30

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits of an environment."""
        return cls(
            settings.alerts.error_percent,
            settings.observability.drift_score,
            settings.training.idle_minutes,
            settings.observability.pending_minutes,
        )
