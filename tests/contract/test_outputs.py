"""What an environment tells of its models."""

import pytest

from contract.errors import PlatformError
from contract.manifest import model_names


def test_a_model_that_the_environment_does_not_know_is_named_with_those_it_knows(outputs_document):
    assert outputs_document.of_model("digits").package_group == "test-digits"
    known = ", ".join(model_names())
    said = f"^test does not know the model 'churn' yet; the models there: {known}; `mlp up test` adds it$"
    with pytest.raises(PlatformError, match=said):
        outputs_document.of_model("churn")
    local = outputs_document.model_copy(update={"environment": "local", "models": {}})
    with pytest.raises(PlatformError, match="the models there: none; `mlp up` adds it"):
        local.of_model("churn")
