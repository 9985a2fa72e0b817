"""How each Pulumi resource type maps to AWS operations: one row of data a type, as far as that goes.

A row's parameters fit by name (see `embedded/calls.py`); what is written out here is only what does not.
"""

from embedded.resources import data, identity, inference, network, observability, operations, registry, storage
from embedded.resources.row import Row

ROWS: dict[str, Row] = (
    network.ROWS
    | storage.ROWS
    | data.ROWS
    | operations.ROWS
    | registry.ROWS
    | identity.ROWS
    | inference.ROWS
    | observability.ROWS
)
