import pytest

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
