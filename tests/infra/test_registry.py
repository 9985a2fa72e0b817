"""The registries: images that cannot be moved or missed, one model package group a model."""

import json

from contract.manifest import model_names


def test_repositories_are_scanned_immutable_and_encrypted(build):
    repositories = build().of_type("aws:ecr/repository:Repository")
    assert {repository.inputs["name"] for repository in repositories} == {"acme-test/inference", "acme-test/training"}
    for repository in repositories:
        assert repository.inputs["imageTagMutability"] == "IMMUTABLE"
        assert repository.inputs["imageScanningConfiguration"] == {"scanOnPush": True}
        assert repository.inputs["encryptionConfigurations"][0]["encryptionType"] == "KMS"


def test_old_images_expire(build):
    deployment = build()
    policies = deployment.of_type("aws:ecr/lifecyclePolicy:LifecyclePolicy")
    assert {policy.inputs["repository"] for policy in policies} == {"acme-test/inference", "acme-test/training"}
    for policy in policies:
        untagged, newest = json.loads(policy.inputs["policy"])["rules"]
        assert untagged["selection"]["tagStatus"] == "untagged"
        assert newest["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 50}


def test_every_model_has_a_package_group(build):
    groups = build().of_type("aws:sagemaker/modelPackageGroup:ModelPackageGroup")
    assert {group.inputs["modelPackageGroupName"] for group in groups} == {f"acme-test-{m}" for m in model_names()}
