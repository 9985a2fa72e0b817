"""The key of the hashes: made only where something is hashed, used by those models alone, told to nobody."""

import pytest

from cli.preview import check
from contract.errors import PlatformError
from contract.service import ServiceSettings
from infra.hash_key import ADMINISTER
from tests.infra.conftest import PROD, only, statements
from tests.infra.test_runtimes import ECS, INFERENCE

HASHED = {"runtime": "lambda", "sensitive": {"pixels": "hash"}}
KEY = "aws:kms/key:Key"


def test_there_is_none_unless_something_is_hashed(build):
    for serving in (None, {"runtime": "lambda", "sensitive": {"pixels": "omit"}}):
        deployment = build(serving=serving)
        assert not any("hashes" in key.name for key in deployment.of_type(KEY))
        assert ServiceSettings.from_environment(deployment.outputs["service"]).hash_key is None


def test_only_the_models_role_may_use_it_and_nobody_may_read_it(build):
    key = only(build(serving=HASHED), KEY, "hashes").inputs
    assert (key["keyUsage"], key["customerMasterKeySpec"]) == ("GENERATE_VERIFY_MAC", "HMAC_256")
    account, models = statements(key["policy"])
    assert account["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}
    assert account["Action"] == ADMINISTER
    assert not any("Mac" in action or "*" in action for action in account["Action"])
    assert models["Principal"] == {"AWS": ["arn:aws:iam::123456789012:role/acme-test-inference-digits"]}
    assert models["Action"] == ["kms:GenerateMac"]


def test_the_service_is_told_the_keys_name_and_no_secret(build):
    deployment = build(serving=HASHED)
    variables = only(deployment, "aws:lambda/function:Function", "inference-digits").inputs["environment"]["variables"]
    alias = only(deployment, "aws:kms/alias:Alias", "hashes").inputs["name"]
    assert variables["MLP_HASH_KEY"] == alias == "alias/acme-test-hashes"
    assert ServiceSettings.from_environment(deployment.outputs["service"]).hash_key == alias


def test_it_keeps_the_rules_in_production(foresee):
    assert check("prod", foresee(serving=HASHED, **PROD)).violations == ()


def test_a_service_that_cannot_reach_kms_is_refused(preview):
    cut_off = {"nat": "none", "endpoints": ["ecr", "firehose", "logs", "ssm"]}
    assert preview(serving=ECS, network=cut_off, inference=INFERENCE).outputs
    with pytest.raises(PlatformError, match=r"add to endpoints kms, in Pulumi\.test\.yaml: ml-platform:network"):
        preview(serving=ECS | {"sensitive": {"pixels": "hash"}}, network=cut_off, inference=INFERENCE)
    with pytest.raises(PlatformError, match="add to endpoints firehose, in"):
        preview(serving=ECS, network=cut_off | {"endpoints": ["ecr", "logs", "ssm"]}, inference=INFERENCE)
