import pytest

from tests.services.conftest import client_of, serve_directory
from tests.services.models import OneNode

ROWS = [[1.0, 2.0, 3.0, 4.0], [0.5, 0, 0, -1]]
CSV = "1,2,3,4\n0.5,0,0,-1\n"


@pytest.mark.parametrize("body", [{"instances": ROWS}, ROWS])
def test_json_rows(client, linear, body):
    answer = client.post("/invocations", json=body)
    predictions = answer.json()["predictions"]
    expected = linear.answer(ROWS)
    assert [prediction["label"] for prediction in predictions] == expected["label"].tolist()
    assert predictions[0]["probabilities"] == pytest.approx(expected["probabilities"][0], rel=1e-5)


def test_csv_rows_answer_as_the_client_accepts(client, linear):
    headers = {"content-type": "text/csv; charset=utf-8"}
    as_json = client.post("/invocations", content=CSV, headers=headers)
    assert as_json.json() == client.post("/invocations", json=ROWS).json()
    from_excel = client.post(
        "/invocations", content=b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode(), headers=headers
    )
    assert from_excel.json() == as_json.json()
    as_csv = client.post("/invocations", content=CSV, headers=headers | {"accept": "text/csv"})
    assert as_csv.headers["content-type"] == "text/csv"
    first, second = as_csv.text.splitlines()
    assert int(second.split(",")[0]) == linear.answer(ROWS)["label"][1]
    assert len(first.split(",")) == 4


@pytest.mark.parametrize(
    ("accept", "made"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("Text/CSV", "text/csv"),
        ("application/*", "application/json"),
        ("application/json, text/csv;q=0.5", "application/json"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("text/html, application/x-npy; q=0.9, */*;q=0.1", "application/x-npy"),
        ("application/json;q=0, */*", "text/csv"),
        ("application/xml, application/json;verbose=true", "application/json"),
    ],
)
def test_the_answer_has_the_form_that_the_client_likes_best(client, accept, made):
    answer = client.post("/invocations", json=ROWS, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, made)


@pytest.mark.parametrize(
    "accept", ["application/xml", "application/json;q=0", "text/html, image/*", "application/json;q=x"]
)
def test_a_form_that_there_is_not_is_refused(client, accept):
    answer = client.post("/invocations", json=ROWS, headers={"accept": accept})
    assert answer.status_code == 406
    assert "one of application/json, text/csv, application/x-npy" in answer.json()["error"]


def test_the_origin_of_a_prediction_goes_back_to_the_caller(client):
    answer = client.post("/invocations", json=ROWS, headers={"X-Amzn-SageMaker-Inference-Id": "my-id"})
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "model=digits;version=1;id=my-id"


@pytest.mark.parametrize(
    ("content_type", "body", "status", "said"),
    [
        ("application/json", "{}", 400, "missing required field `instances`"),
        ("application/json", "[]", 400, "from 1 to 8 rows"),
        ("application/json", "[[1, 2]]", 400, "row 0 has 2 numbers, but the model takes 4"),
        ("application/json", "[[1, 2, 3, NaN]]", 400, "NaN is not a number in JSON"),
        ("application/json", "[1, 2, 3, 4]", 400, "Expected `array`, got `int`"),
        ("application/json", "[" * 50_000, 400, "Expected `float`, got `array`"),
        ("text/csv", "", 400, "from 1 to 8 rows"),
        ("text/csv", "x0,x1,x2,x3\n1,2,3,4", 400, "row 0 of the CSV cannot be read"),
        ("text/csv", "1,2,3,nan", 400, "'nan' is not a finite number"),
        ("text/csv", "3e38,3e38,3e38,3e38", 400, "no finite answer"),
        ("text/csv", "1,2,3,1e39", 400, "column 'x3': the number does not fit 32 bits"),
        ("text/csv", b"\xff", 400, "of the CSV cannot be read"),
        ("text/csv", "1,2,3,4\n" * 9, 400, "from 1 to 8 rows, given: 9"),
        ("application/x-npy", b"", 400, "not a .npy file of rows"),
        ("application/x-parquet", b"", 415, "must be one of application/json, text/csv, application/x-npy"),
    ],
)
def test_bad_invocations_are_refused(client, content_type, body, status, said):
    answer = client.post("/invocations", content=body, headers={"content-type": content_type})
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_an_unknown_target_model(client):
    answer = client.post("/invocations", json=ROWS, headers={"X-Amzn-SageMaker-Target-Model": "wine"})
    assert answer.status_code == 404
    assert "this service has: digits" in answer.json()["error"]


@pytest.fixture(scope="module")
def invoke(tmp_path_factory):
    """Invoke a model with the columns a and b, which answers with its features."""
    rows = {"BYTES": [["a", ""]]}
    clients = {
        datatype: client_of(
            serve_directory(tmp_path_factory.mktemp(datatype), OneNode(datatype, rows.get(datatype, [[1, 0]])))
        )
        for datatype in ("INT64", "UINT64", "BOOL", "BYTES", "FP64")
    }

    def of(datatype, content_type, body):
        return clients[datatype].post("/invocations", content=body, headers={"content-type": content_type})

    return of


@pytest.mark.parametrize(
    ("datatype", "content_type", "body", "rows"),
    [
        ("INT64", "application/json", "[[9007199254740993, -1]]", [[9007199254740993, -1]]),
        ("INT64", "application/json", '{"instances": [[9007199254740993, -1]]}', [[9007199254740993, -1]]),
        (
            "INT64",
            "text/csv",
            "9007199254740993, -1\n9007199254740993.0,+2",
            [[9007199254740993, -1], [9007199254740993, 2]],
        ),
        ("UINT64", "text/csv", "18446744073709551615,0", [[2**64 - 1, 0]]),
        ("FP64", "text/csv", " 1.5 ,-.5e-3\r1.,+1E2\r\n", [[1.5, -0.0005], [1, 100]]),
        ("BOOL", "application/json", "[[true, false]]", [[True, False]]),
        ("BOOL", "text/csv", "1,0\ntrue,False\n", [[True, False], [True, False]]),
        ("BYTES", "application/json", '[["a", "1"]]', [["a", "1"]]),
        ("BYTES", "text/csv", '"a\nb",c\n"a\r\nb","say ""c"""', [["a\nb", "c"], ["a\r\nb", 'say "c"']]),
        ("BYTES", "text/csv", "a\u2028b,c\x85d\ne\x0cf,1_000\n", [["a\u2028b", "c\x85d"], ["e\x0cf", "1_000"]]),
    ],
)
def test_rows_arrive_as_they_were_sent(invoke, datatype, content_type, body, rows):
    answer = invoke(datatype, content_type, body.encode())
    assert answer.status_code == 200, answer.text
    assert [prediction["same"] for prediction in answer.json()["predictions"]] == rows


@pytest.mark.parametrize(
    ("datatype", "content_type", "body", "said"),
    [
        ("BOOL", "application/json", "[[[1, 2], true]]", "Expected `bool`, got `array`"),
        ("BOOL", "application/json", "[[true, false], [[true], false]]", "Expected `bool`, got `array`"),
        ("BOOL", "application/json", "[[[[[1]]], [1]]]", "Expected `bool`, got `array`"),
        ("BOOL", "application/json", "[[true, false], [true]]", "row 1 has 1 numbers, but the model takes 2"),
        ("BOOL", "text/csv", "1,2", "'2' is none of true, false, 1 and 0"),
        ("BYTES", "application/json", "[[null, 1]]", "Expected `str`, got `null`"),
        ("BYTES", "application/json", '[["a", {}]]', "Expected `str`, got `object`"),
        ("INT64", "application/json", "[[1, 1.5]]", "Expected `int`, got `float`"),
        ("INT64", "application/json", "[[1, 9223372036854775808]]", "column 'b': the number does not fit 64 bits"),
        ("INT64", "text/csv", "1,1.5", "'1.5' is not an integer"),
        ("INT64", "text/csv", "1_000,1", "'1_000' is not an integer"),
        ("INT64", "text/csv", "1," + "9" * 5000, "row 0 of the CSV cannot be read"),
        ("FP64", "text/csv", "1_000,1", "'1_000' is not a finite number"),
        ("FP64", "text/csv", "\u0661,1", "is not a finite number"),
        ("FP64", "text/csv", "1,1e999", "'1e999' is not a finite number"),
    ],
)
def test_rows_of_something_else_are_refused(invoke, datatype, content_type, body, said):
    answer = invoke(datatype, content_type, body.encode())
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]
