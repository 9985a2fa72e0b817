"""What makes a state machine's definition one that AWS refuses."""

import pytest

from infra.guardrails.workflows import mistakes

DONE = {"Type": "Succeed"}


def machine(start="A", **states):
    return {"StartAt": start, "States": states}


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ({}, "the definition has no States"),
        (machine(start="B", A=DONE), "StartAt names 'B', which is none of the states A"),
        (machine(A={"Type": "Taks"}), "A: Type must be one of Task, Pass"),
        (machine(A={"Type": "Pass", "Next": "B"}), "A goes to 'B', which is none of the states"),
        (machine(A={"Type": "Pass"}), "A: give it Next or End, and not both"),
        (machine(A={"Type": "Pass", "End": True, "Next": "A"}), "A: give it Next or End, and not both"),
        (machine(A=DONE, B=DONE), "B is never reached"),
        (machine(A={"Type": "Task", "End": True}), "A: a Task state needs Resource"),
        (machine(A={"Type": "Choice", "Default": "B"}, B=DONE), "A: a Choice state needs Choices"),
        (machine(A={"Type": "Choice", "Choices": [{"Next": "B"}], "End": True}, B=DONE), "a Choice state takes no End"),
        (machine(A={"Type": "Choice", "Choices": [{"Next": "C"}]}), "A goes to 'C'"),
        (machine(A={"Type": "Fail", "Next": "A"}), "A: a Fail state takes no Next"),
        (machine(A={"Type": "Wait", "End": True}), "A: a Wait state needs one of Seconds"),
        (machine(A={"Type": "Map", "End": True}), "A: a Map state needs ItemProcessor"),
        (machine(A={"Type": "Pass", "End": True, "Catch": [{"Next": "A"}]}), "each Retry and Catch needs ErrorEquals"),
        (
            machine(A={"Type": "Map", "ItemProcessor": machine(X={"Type": "Pass"}, start="X"), "End": True}),
            "A.ItemProcessor.X: give it Next or End",
        ),
        (
            machine(A={"Type": "Parallel", "Branches": [machine(start="Y", X=DONE)], "End": True}),
            "A.Branches[0].StartAt names 'Y'",
        ),
    ],
)
def test_a_mistake_is_found_and_named(definition, said):
    assert any(said in mistake for mistake in mistakes(definition, ""))


def test_a_machine_with_every_kind_of_state_is_taken():
    task = {"Type": "Task", "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync"}
    definition = machine(
        start="Train",
        Train=task
        | {
            "Next": "Better",
            "Retry": [{"ErrorEquals": ["States.Timeout"]}],
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Failed"}],
        },
        Better={
            "Type": "Choice",
            "Choices": [{"Variable": "$.better", "BooleanEquals": True, "Next": "All"}],
            "Default": "Rest",
        },
        All={"Type": "Map", "ItemProcessor": machine(A={"Type": "Pass", "End": True}), "Next": "Both"},
        Both={"Type": "Parallel", "Branches": [machine(A=DONE)], "Next": "Rest"},
        Rest={"Type": "Wait", "Seconds": 5, "Next": "Done"},
        Done=DONE,
        Failed={"Type": "Fail"},
    )
    assert list(mistakes(definition, "")) == []
