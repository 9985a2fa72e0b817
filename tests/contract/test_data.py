"""The data section of a manifest: what is described wrongly is named with its key and what is allowed."""

import pytest
import yaml

from contract import manifest as module
from contract.errors import PlatformError
from contract.manifest import load_manifest
from contract.paths import MODELS


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """A copy of a shipped manifest with changes, in a folder of models of its own; None takes a key away."""
    monkeypatch.setattr(module, "MODELS", tmp_path)

    def load(model="digits", **changes):
        content = yaml.safe_load((MODELS / model / "model.yaml").read_text())
        for path, value in changes.items():
            *outer, last = path.split("__")
            section = content
            for key in outer:
                section = section[key]
            section[last] = value
            if value is None:
                del section[last]
        (tmp_path / model).mkdir(exist_ok=True)
        (tmp_path / model / "model.yaml").write_text(yaml.safe_dump(content))
        load_manifest.cache_clear()
        return load_manifest(model)

    yield load
    load_manifest.cache_clear()


SQL = {"query": "SELECT 1", "connection": {"variable": "WAREHOUSE"}}
SECRET = "postgresql://user:hunter2@host/lake"


@pytest.mark.parametrize(
    "source",
    [
        "data.csv",
        "data.parquet",
        "s3://some-bucket/",
        "s3://some-bucket/a folder/b/",
        SQL,
        SQL | {"connection": {"secret": "lake", "host": "db", "database": "lake"}},
    ],
)
def test_every_kind_of_source_is_allowed(changed, source):
    assert changed(data__source=source).data.source.query == (source["query"] if isinstance(source, dict) else None)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("data.xlsx", "a source is a file in the raw bucket (name.csv or name.parquet), an S3 prefix"),
        ("s3://bucket/no-slash", "with a slash at its end"),
        ("../up.csv", "a source is a file in the raw bucket"),
        ({}, "a source is either a uri or a query"),
        ({"uri": "x.csv", **SQL}, "a source is either a uri or a query"),
        ({"query": "SELECT 1"}, "a query needs a connection"),
        (SQL | {"connection": {}}, "a connection names either an environment variable or a secret"),
        (SQL | {"conection": {}}, "unknown key 'conection'; did you mean 'connection'?"),
        (SQL | {"connection": SECRET}, "it must not stand in the manifest"),
        (SQL | {"connection": {"variable": SECRET}}, "it must not stand in the manifest"),
    ],
)
def test_a_source_that_is_none_says_what_is_one_and_shows_no_password(changed, source, said):
    with pytest.raises(PlatformError) as caught:
        changed(data__source=source)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_data_is_used_for_what_it_is_allowed_for_and_nothing_else(changed):
    with pytest.raises(PlatformError) as caught:
        changed(purpose="marketing")
    assert "the purpose is 'marketing', but data.allowed_use has only: demonstration, research" in str(caught.value)
    assert changed(purpose="marketing", data__allowed_use=["marketing"]).purpose == "marketing"
    with pytest.raises(PlatformError, match=r"data.allowed_use.0: input should be 'demonstration', 'research'"):
        changed(data__allowed_use=["anything"])
    with pytest.raises(PlatformError, match="purpose: this key is missing"):
        changed(purpose=None)


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        (
            "digits",
            {"data__target": {"name": "digit"}},
            "a classification needs data.target with the number of its classes",
        ),
        ("digits", {"data__target": None}, "a classification needs data.target"),
        ("diabetes", {"data__target": None}, "a regression needs data.target, a number"),
        ("diabetes", {"data__target": {"name": "y", "classes": 3}}, "classes are for a classification"),
        ("anomaly", {"data__target": {"name": "y", "classes": 3}}, "has 2 classes, but classes is 3"),
        ("digits", {"data__target": {"name": "d", "classes": 3, "labels": ["a", "b"]}}, "there are 2 different labels"),
        (
            "digits",
            {"data__target": {"name": "d", "classes": 10, "max": 3}},
            "has min and max, which are for a regression",
        ),
        ("diabetes", {"data__target": {"name": "y", "min": 3, "max": 1}}, "min 3.0 is greater than max 1.0"),
    ],
)
def test_the_target_must_fit_the_task(changed, model, change, said):
    with pytest.raises(PlatformError) as caught:
        changed(model, **change)
    assert said in str(caught.value)


def test_a_density_needs_no_target(changed):
    without = changed("anomaly", data__target=None, gates={"log_likelihood": {"min": -100}}, slices=None)
    assert without.data.target is None


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"type": "number"}, "type: input should be 'float', 'integer', 'boolean' or 'category', but it is 'number'"),
        ({"type": "text"}, "type: input should be 'float'"),
        ({"type": "category"}, "a category needs its categories"),
        ({"categories": ["a"]}, "categories are for the type 'category', but the type is 'float'"),
        ({"type": "category", "categories": ["a", "a"]}, "a category is listed twice"),
        ({"type": "boolean", "min": 0}, "min and max are for numbers, but the type is 'boolean'"),
        ({"minimum": 0}, "unknown key 'minimum'"),
        ({"size": 0}, "size: input should be greater than or equal to 1"),
    ],
)
def test_a_feature_that_is_described_wrongly_is_named(changed, column, said):
    with pytest.raises(PlatformError) as caught:
        changed(data__features={"x": column})
    assert "data.features.x" in str(caught.value)
    assert said in str(caught.value)


def test_every_column_has_a_name_of_its_own(changed):
    with pytest.raises(PlatformError, match="described more than once: digit, pixels_3"):
        changed(data__context={"digit": {}, "pixels_3": {}})
    with pytest.raises(PlatformError, match="string should match pattern"):
        changed(data__features={"_reason": {}})


def test_all_columns_come_in_order_features_target_context(changed):
    data = changed(
        slices=None,
        gates={"accuracy": {"min": 0.5}},
        behaviour=None,
        data__features={
            "age": {},
            "pixels": {"size": 2, "min": 0},
            "sex": {"type": "category", "categories": ["m", "f"]},
        },
        data__target={"name": "kind", "classes": 2, "labels": ["a", "b"]},
        data__context={"when": {"type": "time"}},
    ).data
    assert list(data.all_columns) == ["age", "pixels_0", "pixels_1", "sex", "kind", "when"]
    assert data.all_columns["pixels_1"].min == 0
    assert data.all_columns["kind"].categories == ("a", "b")
    assert data.all_columns["sex"].codes == {"m": 0, "f": 1}


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"test": 0.6, "validation": 0.4}, "test 0.6 and validation 0.4 leave no rows to train on"),
        ({"test": 0.2, "by": "chance"}, "split.by: input should be 'random', 'time' or 'group'"),
        ({"test": 0.2, "column": "when"}, "a random split has no column"),
        ({"test": 0.2, "by": "time"}, "a split by time needs the column that holds the time"),
        ({"test": 0.2, "by": "group", "column": "nobody"}, "split.column is 'nobody', which data describes neither"),
        ({"test": 0.2, "by": "time", "column": "who"}, "'who' is to hold a time, but its type is 'text'"),
        ({"test": 0.2, "by": "group", "column": "maybe"}, "split.column 'maybe' may be null"),
        ({"test": 0.2, "duplicates": "ignore"}, "split.duplicates: input should be 'refuse' or 'allow'"),
    ],
)
def test_a_split_that_cannot_be_is_refused(changed, split, said):
    context = {"when": {"type": "time"}, "who": {"type": "text"}, "maybe": {"type": "text", "nullable": True}}
    with pytest.raises(PlatformError) as caught:
        changed(split=split, data__context=context)
    assert said in str(caught.value)
