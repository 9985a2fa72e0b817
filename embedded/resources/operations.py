"""Audit and cost."""

from typing import Any

from embedded.resources.row import Call, Row


def _budget(properties: dict[str, Any]) -> dict[str, Any]:
    """Arrange a budget as the API has it; Pulumi's property names follow Terraform's here."""
    moved = ("limitAmount", "limitUnit", "notifications", "costFilters")
    return {name: value for name, value in properties.items() if name not in moved} | {
        "budgetLimit": {"amount": properties["limitAmount"], "unit": properties["limitUnit"]},
        "costFilters": {each["name"]: each["values"] for each in properties["costFilters"]},
        "notificationsWithSubscribers": [
            {
                "notification": each,
                "subscribers": [
                    {"subscriptionType": "EMAIL", "address": email} for email in each["subscriberEmailAddresses"]
                ],
            }
            for each in properties["notifications"]
        ],
    }


ROWS: dict[str, Row] = {
    "aws:cloudtrail/trail:Trail": Row(
        "cloudtrail",
        Call("CreateTrail"),
        id="{name}",
        delete=Call("DeleteTrail", parameters={"Name": "{id}"}),
        then=(Call("PutEventSelectors", parameters={"TrailName": "{id}"}, takes=("advancedEventSelectors",)),),
        outputs={"arn": "{trailARN}"},
    ),
    "aws:budgets/budget:Budget": Row(
        "budgets",
        Call("CreateBudget", parameters={"AccountId": "{account}"}, rename={"name": "BudgetName"}),
        id="{account}:{name}",
        delete=Call("DeleteBudget", parameters={"AccountId": "{account}", "BudgetName": "{name}"}),
        prepare=_budget,
    ),
}
