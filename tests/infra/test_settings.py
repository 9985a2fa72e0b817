"""Settings: a mistake is refused before any resource is registered, with file, key and what is allowed."""

import pytest

from contract.errors import PlatformError


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        (
            "network",
            {"zone": ["a"]},
            "ml-platform:network: unknown key 'zone'; did you mean 'zones'? allowed: cidr, flow_logs",
        ),
        (
            "network",
            {"nat": "double"},
            "ml-platform:network.nat: input should be 'none', 'single' or 'per-zone', but it is",
        ),
        ("network", {"cidr": "10.0.0.0/24"}, "ml-platform:network.cidr: value error, must be between /16 and /20"),
        (
            "network",
            {"cidr": "8.8.0.0/16"},
            "must be a private range: inside 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16",
        ),
        ("network", {"cidr": "127.0.0.0/16"}, "must be a private range"),
        ("network", {"cidr": "10.0.0.1/16"}, "ml-platform:network.cidr"),
        ("network", {"zones": ["a"]}, "at least 2 items"),
        ("network", {"zones": ["a", "a"]}, "zones must differ"),
        ("network", {"zones": ["a", "eu-west-1b"]}, "ml-platform:network.zones.1"),
        ("storage", {"noncurrent_days": 0}, "greater than or equal to 1, but it is 0"),
        ("inference", {"image_digest": "latest"}, "ml-platform:inference.image_digest"),
        ("inference", {"log_retention_days": 15}, "input should be 1, 3, 5, 7, 14"),
        ("inference", {"max_body_mb": 7}, "less than or equal to 6"),
        ("inference", {"throttling": {"rat": 1}}, "ml-platform:inference.throttling: unknown key 'rat'"),
    ],
)
def test_a_mistake_names_file_key_and_what_is_allowed(preview, section, change, said):
    with pytest.raises(PlatformError) as caught:
        preview(**{section: change})
    assert str(caught.value).startswith("Pulumi.test.yaml is not valid:")
    assert said in str(caught.value)
