"""The policy pack that `pulumi up --policy-pack infra/guardrails` runs.

Pulumi starts it with the interpreter of the virtual environment that PulumiPolicy.yaml names, and tells it the stack in
the variable PULUMI_STACK. It may also load the pack without a stack, to learn its rules: then there are no waivers.
"""

import os
from datetime import date

from pulumi_policy import PolicyPack

from contract.paths import ROOT
from contract.strict import read_yaml
from infra.guardrails.pack import policies
from infra.guardrails.rules import NAMES
from infra.guardrails.waivers import KEY, read_waivers

TIER = "ml-platform:tier"

stack = os.environ.get("PULUMI_STACK", "")
file = f"Pulumi.{stack}.yaml"
config = read_yaml(ROOT / file).get("config", {}) if stack else {}
PolicyPack("ml-platform", policies(config.get(TIER, ""), read_waivers(config.get(KEY), file, date.today(), NAMES)))
