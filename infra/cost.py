"""Cost: a monthly budget for the environment, and mail before it is spent."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.naming import Naming
from infra.settings.operations import BudgetSettings

WARNINGS = (("ACTUAL", 50), ("ACTUAL", 80), ("FORECASTED", 100))
"""When mail is sent: percent of the budget that is spent, or will be by the end of the month."""


@dataclass
class CostArgs:
    """What may be spent."""

    settings: BudgetSettings


class Cost(pulumi.ComponentResource):
    """A budget over everything with the environment's tags.

    The tags have to be activated once in the payer account (docs/aws.md): until then the budget sees nothing.
    """

    def __init__(self, name: str, args: CostArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ml-platform:infra:Cost", name, None, opts)
        budget = aws.budgets.Budget(
            naming("monthly"),
            name=naming("monthly"),
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(args.settings.monthly_usd),
            limit_unit="USD",
            cost_filters=[
                {
                    "name": "TagKeyValue",
                    "values": [f"user:{key}${naming.tags[key]}" for key in ("Project", "Environment")],
                }
            ],
            notifications=[
                {
                    "notification_type": kind,
                    "comparison_operator": "GREATER_THAN",
                    "threshold": percent,
                    "threshold_type": "PERCENTAGE",
                    "subscriber_email_addresses": list(args.settings.emails),
                }
                for kind, percent in WARNINGS
            ],
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({"budget": budget.name})
