"""What the service answers at /metrics is what the table of metrics says of it: dashboards and alerts rely on that."""

from prometheus_client.parser import text_string_to_metric_families

from contract.metrics import LATENCY_BOUNDS, SERVICE
from tests.services.conftest import request

COMES_WITH_SERVING = {"mlp_feedback_total", "mlp_capture_delivered_total", "mlp_capture_lost_total"}
"""Metrics that the service does not have yet: to be emptied when it does."""


def test_the_services_metrics_are_those_of_the_table(client):
    assert client.post("/v2/models/digits/infer", json=request([1.0, 0.0, 0.0, 0.0])).status_code == 200
    assert client.post("/v2/models/digits/infer", json={}).status_code == 400
    table = {metric.name: metric for metric in SERVICE}
    said = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(client.get("/metrics").text)
    }
    assert said.keys() <= table.keys()
    assert table.keys() - said.keys() <= COMES_WITH_SERVING
    for name, family in said.items():
        assert family.type == table[name].kind, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == table[name].labels, name
    bounds = {s.labels["le"] for s in said["mlp_request_seconds"].samples if s.name.endswith("_bucket")}
    assert sorted(map(float, bounds - {"+Inf"})) == sorted(LATENCY_BOUNDS)
