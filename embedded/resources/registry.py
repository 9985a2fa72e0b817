"""The registries of images and of model versions."""

from embedded.resources.row import Call, Row

ROWS: dict[str, Row] = {
    "aws:ecr/repository:Repository": Row(
        "ecr",
        Call(
            "CreateRepository", rename={"name": "repositoryName", "encryptionConfigurations": "encryptionConfiguration"}
        ),
        id="{name}",
        answer="repository",
        delete=Call("DeleteRepository", parameters={"repositoryName": "{id}", "force": True}),
        outputs={"repositoryUrl": "{account}.dkr.ecr.{region}.amazonaws.com/{name}", "arn": "{repositoryArn}"},
    ),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": Row(
        "ecr",
        Call(
            "PutLifecyclePolicy",
            rename={"repository": "repositoryName", "policy": "lifecyclePolicyText"},
        ),
        id="{repository}",
        delete=Call("DeleteLifecyclePolicy"),
        put=True,
        identity=frozenset({"repository"}),
    ),
    "aws:sagemaker/modelPackageGroup:ModelPackageGroup": Row(
        "sagemaker",
        Call("CreateModelPackageGroup"),
        id="{modelPackageGroupName}",
        delete=Call("DeleteModelPackageGroup"),
        outputs={"arn": "{modelPackageGroupArn}"},
    ),
}
