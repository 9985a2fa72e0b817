"""Instance types that training may run on, as data, so that a preview looks nothing up.

As of November 2026, from what EC2's DescribeInstanceTypes and DescribeInstanceTypeOfferings say; SageMaker has each of
them as `ml.<type>`. All are x86_64, as the training image is.
"""

from typing import NamedTuple


class Instance(NamedTuple):
    """What one instance of a type has.

    Attributes:
        vcpus: virtual processors.
        memory_gib: memory.
        gpus: whole GPUs.
        gpu: their model.
        local_gb: NVMe storage of its own, which the hardware encrypts; 0 for types with network volumes only.
        architecture: of the processor.
    """

    vcpus: int
    memory_gib: int
    gpus: int = 0
    gpu: str = ""
    local_gb: int = 0
    architecture: str = "x86_64"


INSTANCES: dict[str, Instance] = {
    "c7i.large": Instance(2, 4),
    "c7i.xlarge": Instance(4, 8),
    "c7i.2xlarge": Instance(8, 16),
    "c7i.4xlarge": Instance(16, 32),
    "c7i.8xlarge": Instance(32, 64),
    "c7i.12xlarge": Instance(48, 96),
    "c7i.16xlarge": Instance(64, 128),
    "c7i.24xlarge": Instance(96, 192),
    "m7i.large": Instance(2, 8),
    "m7i.xlarge": Instance(4, 16),
    "m7i.2xlarge": Instance(8, 32),
    "m7i.4xlarge": Instance(16, 64),
    "m7i.8xlarge": Instance(32, 128),
    "m7i.12xlarge": Instance(48, 192),
    "m7i.16xlarge": Instance(64, 256),
    "m7i.24xlarge": Instance(96, 384),
    "r7i.large": Instance(2, 16),
    "r7i.xlarge": Instance(4, 32),
    "r7i.2xlarge": Instance(8, 64),
    "r7i.4xlarge": Instance(16, 128),
    "r7i.8xlarge": Instance(32, 256),
    "r7i.12xlarge": Instance(48, 384),
    "r7i.16xlarge": Instance(64, 512),
    "r7i.24xlarge": Instance(96, 768),
    "g4dn.xlarge": Instance(4, 16, 1, "T4", 125),
    "g4dn.2xlarge": Instance(8, 32, 1, "T4", 225),
    "g4dn.4xlarge": Instance(16, 64, 1, "T4", 225),
    "g4dn.8xlarge": Instance(32, 128, 1, "T4", 900),
    "g4dn.12xlarge": Instance(48, 192, 4, "T4", 900),
    "g4dn.16xlarge": Instance(64, 256, 1, "T4", 900),
    "g5.xlarge": Instance(4, 16, 1, "A10G", 250),
    "g5.2xlarge": Instance(8, 32, 1, "A10G", 450),
    "g5.4xlarge": Instance(16, 64, 1, "A10G", 600),
    "g5.8xlarge": Instance(32, 128, 1, "A10G", 900),
    "g5.12xlarge": Instance(48, 192, 4, "A10G", 3800),
    "g5.16xlarge": Instance(64, 256, 1, "A10G", 1900),
    "g5.24xlarge": Instance(96, 384, 4, "A10G", 3800),
    "g5.48xlarge": Instance(192, 768, 8, "A10G", 7600),
    "g6.xlarge": Instance(4, 16, 1, "L4", 250),
    "g6.2xlarge": Instance(8, 32, 1, "L4", 450),
    "g6.4xlarge": Instance(16, 64, 1, "L4", 600),
    "g6.8xlarge": Instance(32, 128, 1, "L4", 900),
    "g6.12xlarge": Instance(48, 192, 4, "L4", 3760),
    "g6.16xlarge": Instance(64, 256, 1, "L4", 1880),
    "g6.24xlarge": Instance(96, 384, 4, "L4", 3760),
    "g6.48xlarge": Instance(192, 768, 8, "L4", 7520),
    "g6e.xlarge": Instance(4, 32, 1, "L40S", 250),
    "g6e.2xlarge": Instance(8, 64, 1, "L40S", 450),
    "g6e.4xlarge": Instance(16, 128, 1, "L40S", 600),
    "g6e.8xlarge": Instance(32, 256, 1, "L40S", 900),
    "g6e.12xlarge": Instance(48, 384, 4, "L40S", 3800),
    "g6e.16xlarge": Instance(64, 512, 1, "L40S", 1900),
    "g6e.24xlarge": Instance(96, 768, 4, "L40S", 3800),
    "g6e.48xlarge": Instance(192, 1536, 8, "L40S", 7600),
    "p4d.24xlarge": Instance(96, 1152, 8, "A100", 8000),
    "p4de.24xlarge": Instance(96, 1152, 8, "A100", 8000),
    "p5.4xlarge": Instance(16, 256, 1, "H100", 3800),
    "p5.48xlarge": Instance(192, 2048, 8, "H100", 30400),
    "p5e.48xlarge": Instance(192, 2048, 8, "H200", 30400),
    "p5en.48xlarge": Instance(192, 2048, 8, "H200", 30400),
    "p6-b200.48xlarge": Instance(192, 2048, 8, "B200", 30400),
}


def _regions(names: str) -> frozenset[str]:
    return frozenset(names.split())


_KNOWN = _regions(
    """
        af-south-1 ap-east-1 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2
        ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ca-central-1 ca-west-1
        eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3
        il-central-1 me-central-1 me-south-1 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2
    """
)

REGIONS: dict[str, frozenset[str]] = {
    "c7i": _KNOWN - _regions("me-south-1"),
    "m7i": _KNOWN - _regions("ca-west-1 me-south-1"),
    "r7i": _KNOWN - _regions("af-south-1 ap-east-1 ca-west-1 eu-central-2 il-central-1 me-central-1 me-south-1"),
    "g4dn": _regions(
        """
        af-south-1 ap-east-1 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-southeast-1
        ap-southeast-2 ca-central-1 eu-central-1 eu-north-1 eu-south-1 eu-west-1 eu-west-2 eu-west-3
        me-south-1 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2
        """
    ),
    "g5": _regions(
        """
        ap-east-1 ap-northeast-1 ap-northeast-2 ap-south-1 ap-southeast-2 ap-southeast-3 ca-central-1
        eu-central-1 eu-north-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3 il-central-1 me-central-1 sa-east-1
        us-east-1 us-east-2 us-west-2
        """
    ),
    "g6": _regions(
        """
        ap-northeast-1 ap-northeast-2 ap-south-1 ap-south-2 ap-southeast-2 ap-southeast-5 ca-central-1
        eu-central-1 eu-central-2 eu-north-1 eu-south-2 eu-west-2 eu-west-3 me-central-1 sa-east-1 us-east-1
        us-east-2 us-west-2
        """
    ),
    "g6e": _regions(
        """
        ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2 eu-central-1 eu-north-1
        eu-south-2 me-central-1 us-east-1 us-east-2 us-west-2
        """
    ),
    "p4d": _regions(
        """
        ap-northeast-1 ap-northeast-2 ap-south-1 ap-southeast-2 ca-central-1 eu-central-1 eu-north-1
        eu-west-1 eu-west-2 sa-east-1 us-east-1 us-east-2 us-west-2
        """
    ),
    "p4de": _regions(
        """
        ap-northeast-1 ap-southeast-1 eu-central-1 il-central-1 us-east-1 us-west-2
        """
    ),
    "p5": _regions(
        """
        ap-northeast-1 ap-northeast-2 ap-south-1 ap-southeast-2 ap-southeast-3 ca-central-1 eu-north-1
        eu-west-2 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2
        """
    ),
    "p5e": _regions(
        """
        ap-southeast-2 ap-southeast-3 eu-north-1 eu-west-2 sa-east-1 us-east-2 us-west-2
        """
    ),
    "p5en": _regions(
        """
        ap-northeast-1 ap-northeast-2 ap-south-1 ap-southeast-3 eu-north-1 eu-south-2 me-central-1 us-east-1
        us-east-2 us-west-1 us-west-2
        """
    ),
    "p6-b200": _regions(
        """
        ap-south-1 ap-south-2 eu-north-1 eu-west-3 us-east-1 us-east-2 us-west-2
        """
    ),
}
"""Which regions have a family; those of other partitions are not known here, and are given the benefit of the doubt."""


def family(type_: str) -> str:
    """The family of an instance type: `g5` of `g5.xlarge`."""
    return type_.partition(".")[0]


def problem(type_: str, region: str) -> str | None:
    """Why an instance type cannot be used in a region, with what is allowed; None if it can."""
    here = sorted(name for name in INSTANCES if offered(name, region))
    if type_ not in INSTANCES:
        return f"unknown instance type {type_!r}; allowed in {region} are {', '.join(here)}"
    if not offered(type_, region):
        kind = [name for name in here if bool(INSTANCES[name].gpus) == bool(INSTANCES[type_].gpus)]
        return (
            f"{region} has no {family(type_)} instances; allowed there instead of {type_}: {', '.join(kind) or 'none'}"
        )
    return None


def offered(type_: str, region: str) -> bool:
    """Whether a region has a type's family."""
    return region not in _KNOWN or region in REGIONS[family(type_)]


EFA: dict[str, int] = {
    **dict.fromkeys(("g4dn.8xlarge", "g4dn.12xlarge", "g4dn.16xlarge"), 1),
    **{f"{name}.{size}xlarge": 1 for name in ("g5", "g6", "g6e") for size in (8, 12, 16, 24, 48)},
    "g6e.24xlarge": 2,
    "g6e.48xlarge": 4,
    "p4d.24xlarge": 4,
    "p4de.24xlarge": 4,
    "p5.4xlarge": 1,
    "p5.48xlarge": 32,
    "p5e.48xlarge": 32,
    "p5en.48xlarge": 16,
    "p6-b200.48xlarge": 8,
}
"""How many EFA interfaces a type has; those that are not here have none."""


def family_types(name: str) -> tuple[str, ...]:
    """The instance types of a family such as `g5`, or the one type that is named."""
    return tuple(type_ for type_ in INSTANCES if name in (type_, family(type_)))
