"""The service's settings survive the way through environment variables; live versions add up."""

import pytest
from pydantic import ValidationError

from contract.errors import PlatformError
from contract.service import LiveVersion, LiveVersions, ServiceSettings

SETTINGS = ServiceSettings(models=("digits", "diabetes"), live_parameters="/mlp/dev/models", max_rows=7)


def test_settings_go_through_the_environment_unchanged():
    assert ServiceSettings.from_environment(SETTINGS.environment() | {"HOME": "/"}) == SETTINGS
    assert SETTINGS.parameter("digits") == "/mlp/dev/models/digits"


@pytest.mark.parametrize(
    ("change", "said"),
    [({"MLP_MODELS": ""}, "MLP_MODELS"), ({"MLP_MAX_ROWS": "0"}, "MLP_MAX_ROWS"), ({"MLP_MAX_ROWS": "x"}, "given 'x'")],
)
def test_a_wrong_variable_is_named(change, said):
    with pytest.raises(PlatformError, match=said):
        ServiceSettings.from_environment(SETTINGS.environment() | change)


def test_a_missing_variable_is_named():
    with pytest.raises(PlatformError, match="MLP_LIVE_PARAMETERS"):
        ServiceSettings.from_environment({"MLP_MODELS": "digits"})


def test_weights_must_add_up_to_a_hundred():
    def live(*weights):
        versions = [
            LiveVersion(version=i + 1, weight=weight, artifact="s3://b/k", sha256="0" * 64)
            for i, weight in enumerate(weights)
        ]
        return LiveVersions(versions=tuple(versions))

    assert live(90, 10).versions[1].weight == 10
    assert live().versions == ()
    with pytest.raises(ValidationError, match="add up to 100"):
        live(90, 20)


def test_a_version_is_live_once():
    twice = LiveVersion(version=1, weight=50, artifact="s3://b/k", sha256="0" * 64)
    with pytest.raises(ValidationError, match="only once"):
        LiveVersions(versions=(twice, twice))
