"""A waiver excuses one resource from one rule until a day; what is wrong with it is said with file, key and rule."""

from datetime import date

import pytest

from contract.errors import PlatformError
from infra.guardrails.evaluate import evaluate
from infra.guardrails.rule import Stack
from infra.guardrails.rules import NAMES
from infra.guardrails.waivers import read_waivers
from tests.guardrails.table import a

REASON = "the partner's importer speaks no other protocol"
GIVEN = {"rule": "logs-expire", "resource": "it", "reason": REASON, "until": "2030-01-31"}


def read(**changes):
    return read_waivers([GIVEN | changes], "Pulumi.dev.yaml", date(2030, 1, 31), NAMES)


def test_a_waiver_holds_to_the_end_of_its_last_day_and_for_its_resource_alone():
    group = a(
        "aws:cloudwatch/logGroup:LogGroup", kmsKeyId="key", tags=dict.fromkeys(("Project", "Environment", "ManagedBy"))
    )
    other = a(group.type, "other", **group.properties)
    result = evaluate(Stack("dev", (group, other)), read())
    assert [violation.resource for violation in result.violations] == ["other"]
    assert [(waiver.rule, violation.urn) for waiver, violation in result.waived] == [("logs-expire", group.urn)]
    assert result.unused == ()


def test_a_waiver_may_name_the_urn():
    group = a("aws:cloudwatch/logGroup:LogGroup")
    assert evaluate(Stack("dev", (group,)), read(resource=group.urn)).waived


def test_a_waiver_that_matches_nothing_is_told():
    assert [w.resource for w in evaluate(Stack("dev", ()), read(resource="gone")).unused] == ["gone"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"until": "2030-01-30"},
            "ml-platform:waivers.0.until: the waiver from logs-expire for it expired on 2030-01-30",
        ),
        ({"rule": "logs-expires"}, "ml-platform:waivers.0.rule: there is no rule 'logs-expires'; allowed: api-"),
        ({"reason": "because"}, "ml-platform:waivers.0.reason: string should have at least 20 characters"),
        ({"until": "soon"}, "ml-platform:waivers.0.until"),
        ({"why": REASON}, "unknown key 'why'; allowed: reason, resource, rule, until"),
    ],
)
def test_a_bad_waiver_is_refused(changes, said):
    with pytest.raises(PlatformError) as error:
        read(**changes)
    assert said in str(error.value)
    assert "Pulumi.dev.yaml is not valid" in str(error.value)
