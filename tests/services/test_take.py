"""Requests that are ready at the same moment share a prediction, and never notice."""

import asyncio
import json
import time

import httpx
import numpy as np
import pytest

from tests.services.conftest import Linear, request, serve_directory
from tests.services.models import lookup

INFER = "/v2/models/digits/infer"


def ask_together(app, bodies, path=INFER):
    """The answers to requests that arrive in one pass of the event loop."""

    async def ask():
        answers = [asyncio.get_running_loop().create_future() for _ in bodies]
        for body, answer in zip(bodies, answers, strict=True):
            assert app.inference.take(path, [], json.dumps(body).encode(), answer.set_result)
        return await asyncio.gather(*answers)

    return asyncio.run(ask())


def statuses(answers):
    return [answer.status for answer in answers]


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
        said = json.loads(answer.body)
        label, probabilities = said["outputs"]
        expected = linear.answer(rows[i : i + 1 + i % 3])
        assert said["id"] == str(i)
        assert label["data"] == expected["label"].tolist()
        assert probabilities["shape"] == [1 + i % 3, 3]
        np.testing.assert_allclose(probabilities["data"], expected["probabilities"].ravel(), rtol=1e-5)
    assert calls == [sum(1 + i % 3 for i in range(30))]  # all of them in one prediction


def test_a_bad_request_does_not_spoil_those_beside_it(tmp_path, linear):
    app = serve_directory(tmp_path, linear)
    bodies = [request([1, 2, 3, 4]), request([1, 2]), request([3e38, 3e38, 3e38, 3e38]), {}, request([4, 3, 2, 1])]
    assert statuses(ask_together(app, bodies)) == [200, 400, 400, 400, 200]


def test_features_at_which_the_model_fails_do_not_spoil_those_beside_them(tmp_path):
    app, calls = serve_directory(tmp_path, lookup()), []
    spy(app, calls)
    tensor = {"name": "features", "datatype": "INT64", "shape": [1, 2]}
    bodies = [{"inputs": [tensor | {"data": [1, place]}]} for place in (0, 99, 2, 3)]
    answers = ask_together(app, bodies, "/v2/models/same/infer")
    assert statuses(answers) == [200, 400, 200, 200]
    assert [json.loads(answer.body)["outputs"][0]["data"] for answer in answers if answer.status == 200] == [
        [1, 0],
        [1, 2],
        [1, 3],
    ]
    assert calls == [4, 1, 1, 1, 1]


def test_a_prediction_that_fails_fails_only_its_requests_and_is_reported(tmp_path, linear):
    app = serve_directory(tmp_path, linear)
    version = app.catalogue["digits"].shares[0][0]
    predict = version.predict

    def broken(features, names):
        raise RuntimeError("out of memory")

    version.predict = broken
    assert set(statuses(ask_together(app, [request([1, 2, 3, 4])] * 3))) == {500}
    version.predict = predict
    assert set(statuses(ask_together(app, [request([1, 2, 3, 4])] * 3))) == {200}


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
    assert set(statuses(answers)) == {200}
    assert set(calls) == {1}


def test_many_rows_are_predicted_alone(tmp_path, linear):
    app, calls = serve_directory(tmp_path, linear), []
    spy(app, calls)
    ask_together(app, [request(*[[1, 2, 3, 4]] * 9)] * 3)
    assert calls == [9, 9, 9]


def test_each_version_predicts_its_own(tmp_path, linear):
    app = serve_directory(tmp_path, linear)
    (first, _), *_ = app.catalogue["digits"].shares
    other = serve_directory(tmp_path, Linear(seed=1)).catalogue["digits"].shares[0][0]
    other.number, other.answer_prefix = "2", other.answer_prefix.replace(b'"1"', b'"2"')
    app.catalogue["digits"].serve({"1": first, "2": other}, ((first, 50), (other, 50)))
    rows = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    seen = set()
    for i, answer in enumerate(ask_together(app, [request(row.tolist(), id=str(i)) for i, row in enumerate(rows)])):
        said = json.loads(answer.body)
        model = {"1": linear, "2": Linear(seed=1)}[said["model_version"]]
        np.testing.assert_allclose(said["outputs"][1]["data"], model.answer(rows[i : i + 1])["probabilities"][0], 1e-5)
        seen.add(said["model_version"])
    assert seen == {"1", "2"}


def test_what_comes_too_late_in_a_pass_is_refused(tmp_path, linear):
    app = serve_directory(tmp_path, linear, MLP_DEADLINE_MS="150")
    version = app.catalogue["digits"].shares[0][0]
    predict = version.predict
    version.predict = lambda *asked: (time.sleep(0.2), predict(*asked))[1]
    many = request(*[[1, 2, 3, 4]] * 9)
    assert statuses(ask_together(app, [many, many])) == [200, 504]
    assert app.in_flight == 0


@pytest.mark.parametrize("way", ["taken", "ASGI"])
def test_no_more_are_answered_in_a_pass_than_there_is_room_for(tmp_path, linear, way):
    app = serve_directory(tmp_path, linear, MLP_MAX_QUEUE="2")
    bodies = [request([1, 2, 3, 4])] * 5

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return [a.status_code for a in await asyncio.gather(*(client.post(INFER, json=b) for b in bodies))]

    for _ in range(2):  # the places have been given back
        answers = statuses(ask_together(app, bodies)) if way == "taken" else asyncio.run(ask())
        assert sorted(answers) == [200, 200, 503, 503, 503]


def test_what_may_take_long_or_ends_the_connection_is_not_taken(tmp_path, linear):
    app = serve_directory(tmp_path, linear)

    def takes(body, *headers):
        async def ask():
            return app.inference.take(INFER, [*headers], json.dumps(body).encode(), lambda _: None)

        return asyncio.run(ask())

    body = request([1, 2, 3, 4])
    assert takes(body)
    assert not takes(body | {"parameters": {"explain": True}})
    assert not takes(body, (b"content-encoding", b"gzip"))
    app.catalogue["digits"].is_slow = True
    assert not takes(body)
    app.catalogue["digits"].is_slow = False
    app.drain()
    assert not takes(body)
    assert app.in_flight == 0
