"""How each Pulumi resource type maps to AWS operations: one row of data a type, as far as that goes.

A row's parameters fit by name (see `embedded/calls.py`); what is written out here is only what does not.
"""

from embedded.resources import (
    cluster,
    data,
    identity,
    inference,
    network,
    observability,
    operations,
    registry,
    serving,
    storage,
    training,
)
from embedded.resources.row import Row

AREAS = (network, storage, data, operations, registry, identity, inference, serving, training, cluster, observability)
ROWS: dict[str, Row] = {type_: row for area in AREAS for type_, row in area.ROWS.items()}
