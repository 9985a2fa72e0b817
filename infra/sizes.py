"""Sizes that AWS offers, as data: Fargate's combinations of CPU and memory, and the limits of Lambda.

As of November 2026, from
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html and
https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html.
"""

FARGATE: dict[int, tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4096 + 1, 1024)),
    1024: tuple(range(2048, 8192 + 1, 1024)),
    2048: tuple(range(4096, 16_384 + 1, 1024)),
    4096: tuple(range(8192, 30_720 + 1, 1024)),
    8192: tuple(range(16_384, 61_440 + 1, 4096)),
    16_384: tuple(range(32_768, 122_880 + 1, 8192)),
}
"""CPU units (1,024 are one vCPU) to the amounts of memory, in MiB, that go with them."""

LAMBDA_MEMORY_MB = range(128, 10_240 + 1)
LAMBDA_TIMEOUT_S = range(1, 900 + 1)


def fargate_mistake(cpu: int, memory: int) -> str | None:
    """What is wrong with a size of a Fargate task, or None if Fargate offers it.

    Args:
        cpu: CPU units.
        memory: MiB.
    """
    if cpu not in FARGATE:
        return f"Fargate has no {cpu} CPU units; it has {', '.join(map(str, FARGATE))}"
    if memory not in FARGATE[cpu]:
        return f"with {cpu} CPU units Fargate has no {memory} MiB of memory; it has {', '.join(map(str, FARGATE[cpu]))}"
    return None
