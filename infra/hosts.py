"""Instances that models are served on: which there are, where, for which image, and how much memory they have."""

import difflib
import functools
import re
from collections.abc import Iterator
from typing import Literal

import botocore.loaders

from contract.serving import EcsServing, SagemakerServing, Serving, Variant
from infra.instances import INSTANCES, REGIONS, family, offered, problem

Architecture = Literal["arm64", "x86_64"]

FREE = 0.9
"""Share of a GPU instance's memory that tasks can have: the system and ECS's agent take the rest."""
MEMORY_GIB = {"c": 2, "m": 4, "r": 8}
"""Of a vCPU, by what a family is for; `large` has two vCPUs, and `xlarge` four."""
SERVICE_MB, COPIES = 200, 8
"""What the service takes before it has a model, and how many times a model's size while it takes up another version:
measured with models of 100 and 300 MB, where one version took five times its size to load, and the next beside it
seven and a half times (docs/serving-runtimes.md)."""


@functools.cache
def hosting_types() -> tuple[str, ...]:
    """The instance types that SageMaker's endpoints may have, as botocore has them."""
    model = botocore.loaders.create_loader().load_service_model("sagemaker", "service-2")
    return tuple(model["shapes"]["ProductionVariantInstanceType"]["enum"])


def architecture_of(type_: str) -> Architecture:
    """The architecture of an instance type: in AWS's names a `g` behind the generation stands for Graviton."""
    return "arm64" if re.match(r"[a-z]+\d+[a-z]*g", family(type_)) else "x86_64"


def sagemaker_variants(serving: SagemakerServing, architecture: Architecture) -> dict[str, Variant]:
    """The variants of an endpoint by name: those that the manifest names, or one with the image's kind of instance."""
    if serving.variants:
        return serving.variants
    usual = {"arm64": "ml.c7g.large", "x86_64": "ml.c7i.large"}[architecture]
    return {"all": Variant(instance_type=serving.instance_type or usual, weight=100)}


def sagemaker_mistakes(serving: SagemakerServing, region: str, architecture: Architecture) -> Iterator[str]:
    """What is wrong with the instances of an endpoint, each with the key that it is about."""
    for name, variant in sagemaker_variants(serving, architecture).items():
        key = f"variants.{name}.instance_type" if serving.variants else "instance_type"
        if wrong := _sagemaker_mistake(variant.instance_type, region, architecture):
            yield f"{key}: {wrong}"
    own = {name: has_own_disk(variant.instance_type) for name, variant in serving.variants.items()}
    if len(set(own.values())) > 1:
        yield (
            f"variants: {', '.join(name for name in own if own[name])} have disks of their own, for which SageMaker "
            "refuses a key, and the others need one; allowed are variants that all have such disks, or none"
        )


def _sagemaker_mistake(type_: str, region: str, architecture: Architecture) -> str | None:
    bare = type_.removeprefix("ml.")
    if type_ not in hosting_types():
        of_family = [name for name in hosting_types() if family(name.removeprefix("ml.")) == family(bare)]
        close = of_family or difflib.get_close_matches(type_, hosting_types(), n=5, cutoff=0.4)
        return f"SageMaker serves on no {type_}; allowed are {', '.join(close)} and the others that it has"
    if family(bare) in REGIONS and (wrong := problem(bare, region)):
        return wrong
    if re.match(r"(g|p|inf|trn|dl)\d", bare) and bare not in INSTANCES:
        gpus = [f"ml.{name}" for name, instance in INSTANCES.items() if instance.gpus and offered(name, region)]
        return (
            f"{type_} accelerates in a way that the service does not use, or that infra/instances.py has no regions "
            f"for; allowed with GPUs in {region} are {', '.join(gpus)}"
        )
    if re.match(r"t\d", bare):
        return (
            f"{type_} is burstable, which SageMaker does not scale; allowed are families such as ml.c7i, ml.c7g, ml.m5"
        )
    if architecture_of(bare) != architecture:
        usual = {"arm64": "ml.c7g, ml.m6g or ml.r6g", "x86_64": "ml.c7i, ml.m7i or ml.r7i"}[architecture]
        return (
            f"{type_} is {architecture_of(bare)}, but the image is {architecture} (inference.architecture); "
            f"allowed are families such as {usual}"
        )
    return None


def gpu_mistakes(serving: EcsServing, region: str) -> Iterator[str]:
    """What is wrong with the GPU instances of a model on ECS, each with the key that it is about."""
    type_ = serving.instance_type or ""
    if wrong := problem(type_, region):
        yield f"instance_type: {wrong}"
        return
    instance = INSTANCES[type_]
    if serving.gpus > instance.gpus:
        yield f"gpus is {serving.gpus}, but one {type_} has {instance.gpus}; allowed are 1 to {instance.gpus}"
    most = int(instance.memory_gib * 1024 * FREE)
    if serving.memory_mb > most:
        yield f"memory_mb is {serving.memory_mb}, but a task on one {type_} can have {most}; allowed are up to {most}"


def size_mistake(serving: Serving, size_mb: float, architecture: Architecture) -> str | None:
    """Why a runtime cannot take a model of a size, with the key that it is about; None if it can, or nobody knows."""
    needed = SERVICE_MB + COPIES * size_mb
    if isinstance(serving, SagemakerServing):
        found = [
            (known, f"instance_type: one {variant.instance_type} has {known} MB of memory")
            for variant in sagemaker_variants(serving, architecture).values()
            if (known := _memory_mb(variant.instance_type.removeprefix("ml.")))
        ]
    else:
        found = [(serving.memory_mb, f"memory_mb is {serving.memory_mb}")]
    for there, said in sorted(found):
        if there < needed:
            fits = int(max(0, there - SERVICE_MB) / COPIES)
            return (
                f"{said}, but a model of {size_mb:g} MB (gates.size_mb.max) needs {needed:g} while it takes up "
                f"another version; allowed there are up to {fits} MB"
            )
    return None


def has_own_disk(type_: str) -> bool:
    """Whether an instance type has NVMe storage of its own, which the hardware encrypts and SageMaker takes no key for.

    In AWS's names a `d` stands for it; all that accelerates since g5 and p4 has it.
    """
    bare = type_.removeprefix("ml.")
    if bare in INSTANCES:
        return INSTANCES[bare].local_gb > 0
    return bool(re.fullmatch(r"(g[5-9]|p[4-9]|trn|dl)[\w-]*|[a-z]+\d+[a-z]*d[a-z]*", family(bare)))


def _memory_mb(type_: str) -> int | None:
    """The memory of an instance type; None if neither the table nor AWS's naming tells it."""
    if type_ in INSTANCES:
        return INSTANCES[type_].memory_gib * 1024
    vcpus, purpose = vcpus_of(type_), type_[0]
    return vcpus * MEMORY_GIB[purpose] * 1024 if vcpus and purpose in MEMORY_GIB else None


def vcpus_of(type_: str) -> int | None:
    """The virtual processors of an instance type, None if neither the table nor AWS's naming tells them."""
    if type_ in INSTANCES:
        return INSTANCES[type_].vcpus
    size = re.fullmatch(r"[cmr][5-9][a-z]*\.(?:(large)|(\d*)xlarge)", type_)
    if not size:
        return None
    return 2 if size[1] else 4 * int(size[2] or 1)
