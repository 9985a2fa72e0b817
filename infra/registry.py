"""The registries: container images in ECR, model versions in SageMaker's model registry."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.naming import Naming

KEPT_IMAGES = 50


@dataclass
class RegistryArgs:
    """What the registries hold."""

    images: Sequence[str]
    models: Sequence[str]
    key_arn: pulumi.Input[str]
    force_destroy: bool
    protect: bool


class Registry(pulumi.ComponentResource):
    """One repository an image, one model package group a model.

    Tags cannot be moved and images are scanned when they are pushed, so that a digest names what was looked at.
    """

    repositories: dict[str, aws.ecr.Repository]
    model_package_groups: dict[str, aws.sagemaker.ModelPackageGroup]

    def __init__(
        self, name: str, args: RegistryArgs, naming: Naming, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ml-platform:infra:Registry", name, None, opts)
        self._naming, self._args = naming, args
        self.repositories = {image: self._repository(image) for image in args.images}
        self.model_package_groups = {
            model: aws.sagemaker.ModelPackageGroup(
                naming(model),
                model_package_group_name=naming(model),
                opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
            )
            for model in args.models
        }
        self.register_outputs(
            {
                "repositories": {image: repository.repository_url for image, repository in self.repositories.items()},
                "model_package_groups": {model: group.arn for model, group in self.model_package_groups.items()},
            }
        )

    def _repository(self, image: str) -> aws.ecr.Repository:
        repository = aws.ecr.Repository(
            self._naming(image),
            name=f"{self._naming.prefix}-{self._naming.environment}/{image}",
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration={"scan_on_push": True},
            encryption_configurations=[{"encryption_type": "KMS", "kms_key": self._args.key_arn}],
            force_delete=self._args.force_destroy,
            opts=pulumi.ResourceOptions(parent=self, protect=self._args.protect),
        )
        rules = [
            _expire(1, "Untagged images are leftovers", tagStatus="untagged", days=7),
            _expire(2, f"Keep the newest {KEPT_IMAGES}", tagStatus="any", count=KEPT_IMAGES),
        ]
        aws.ecr.LifecyclePolicy(
            self._naming(image),
            repository=repository.name,
            policy=json.dumps({"rules": rules}),
            opts=pulumi.ResourceOptions(parent=self),
        )
        return repository


def _expire(priority: int, why: str, tagStatus: str, days: int = 0, count: int = 0) -> dict[str, object]:  # noqa: N803
    limit: dict[str, object] = (
        {"countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}
        if days
        else {"countType": "imageCountMoreThan", "countNumber": count}
    )
    return {
        "rulePriority": priority,
        "description": why,
        "selection": {"tagStatus": tagStatus} | limit,
        "action": {"type": "expire"},
    }
