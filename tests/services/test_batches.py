"""Requests that are ready at the same moment share a prediction, and never notice."""

import asyncio
import json

import httpx
import numpy as np

from tests.services.conftest import Linear, request, serve_directory
from tests.services.models import lookup

INFER = "/v2/models/digits/infer"


def ask_together(app, bodies, infer=INFER):
    """The answers to requests that arrive in one pass of the event loop, after one that lets it know of company."""

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            for _ in range(2):
                await asyncio.gather(*(client.post(infer, content=json.dumps(bodies[0])) for _ in range(3)))
            return await asyncio.gather(*(client.post(infer, content=json.dumps(body)) for body in bodies))

    return asyncio.run(ask())


def spy(app, calls):
    """Note how many rows each prediction has."""
    version = next(iter(app.catalogue.values())).shares[0][0]
    predict = version.predict

    def noted(features, names):
        calls.append(len(features))
        return predict(features, names)

    version.predict = noted
    return version


def test_each_gets_its_own_answer(tmp_path, linear):
    app, calls = serve_directory(tmp_path, linear), []
    spy(app, calls)
    rows = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    bodies = [request(*rows[i : i + 1 + i % 3].tolist(), id=str(i)) for i in range(30)]
    answers = ask_together(app, bodies)
    for i, answer in enumerate(answers):
        label, probabilities = answer.json()["outputs"]
        expected = linear.answer(rows[i : i + 1 + i % 3])
        assert answer.json()["id"] == str(i)
        assert label["data"] == expected["label"].tolist()
        assert probabilities["shape"] == [1 + i % 3, 3]
        np.testing.assert_allclose(probabilities["data"], expected["probabilities"].ravel(), rtol=1e-5)
    assert max(calls) == sum(1 + i % 3 for i in range(30))  # all of them in one prediction


def test_a_bad_request_does_not_spoil_those_beside_it(tmp_path, linear):
    app = serve_directory(tmp_path, linear)
    bodies = [request([1, 2, 3, 4]), request([1, 2]), request([3e38, 3e38, 3e38, 3e38]), {}, request([4, 3, 2, 1])]
    assert [answer.status_code for answer in ask_together(app, bodies)] == [200, 400, 400, 400, 200]


def test_features_at_which_the_model_fails_do_not_spoil_those_beside_them(tmp_path):
    app, calls = serve_directory(tmp_path, lookup()), []
    spy(app, calls)
    tensor = {"name": "features", "datatype": "INT64", "shape": [1, 2]}
    bodies = [{"inputs": [tensor | {"data": [1, place]}]} for place in (0, 99, 2, 3)]
    answers = ask_together(app, bodies, "/v2/models/same/infer")
    assert [answer.status_code for answer in answers] == [200, 400, 200, 200]
    assert [answer.json()["outputs"][0]["data"] for answer in answers if answer.is_success] == [[1, 0], [1, 2], [1, 3]]
    assert calls[-5:] == [4, 1, 1, 1, 1]


def test_a_prediction_that_fails_fails_only_its_requests_and_is_reported(tmp_path, linear):
    app = serve_directory(tmp_path, linear)
    version = app.catalogue["digits"].shares[0][0]
    predict = version.predict

    def broken(features, names):
        raise RuntimeError("out of memory")

    version.predict = broken
    assert {answer.status_code for answer in ask_together(app, [request([1, 2, 3, 4])] * 3)} == {500}
    version.predict = predict
    assert {answer.status_code for answer in ask_together(app, [request([1, 2, 3, 4])] * 3)} == {200}


def test_rows_that_influence_each_other_are_never_predicted_together(tmp_path):
    class Whole(Linear):
        """Its answer for a row depends on the other rows: the scores are of the features less the sum of all."""

        def onnx(self):
            import onnx
            from onnx import helper

            model = onnx.load_from_string(super().onnx())
            nodes = list(model.graph.node)
            del model.graph.node[:]
            total = helper.make_node("ReduceSum", ["features"], ["sum"], keepdims=1)
            less = helper.make_node("Sub", ["features", "sum"], ["less"])
            nodes[0].input[0] = "less"
            model.graph.node.extend([total, less, *nodes])
            return model.SerializeToString()

        def answer(self, rows):
            rows = np.array(rows, np.float32)
            return super().answer(rows - rows.sum())

    app, calls = serve_directory(tmp_path, Whole()), []
    assert not spy(app, calls).can_batch
    answers = ask_together(app, [request([i, 0, 0, 1]) for i in range(5)])
    assert {answer.status_code for answer in answers} == {200}
    assert set(calls) == {1}


def test_many_rows_are_predicted_alone(tmp_path, linear):
    app, calls = serve_directory(tmp_path, linear), []
    spy(app, calls)
    ask_together(app, [request(*[[1, 2, 3, 4]] * 9)] * 3)
    assert calls[-3:] == [9, 9, 9]
