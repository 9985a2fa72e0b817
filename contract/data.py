"""The data section of a model's manifest: where the raw data is, what its rows look like, how they are divided."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from contract.strict import Strict

Purpose = Literal["demonstration", "research", "operations", "product", "marketing", "decisions_about_people"]
"""What a model is for, and what data may be used for; a company adds its own here."""
ColumnName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]\w{0,99}$")]


class Column(Strict):
    """What is allowed in a column of the raw data."""

    type: Literal["float", "integer", "boolean", "category", "text", "time"] = "float"
    min: float | None = None
    max: float | None = None
    categories: tuple[str, ...] = Field(default=(), description="the values that a category may have, and no others")
    nullable: bool = False
    unique: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        if not (self.min is self.max is None) and self.type not in ("float", "integer"):
            raise ValueError(f"min and max are for numbers, but the type is {self.type!r}")
        if self.type == "category" and not self.categories:
            raise ValueError("a category needs its categories, the list of the values that are allowed")
        if self.type != "category" and self.categories:
            raise ValueError(f"categories are for the type 'category', but the type is {self.type!r}")
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("a category is listed twice")
        return self

    @property
    def codes(self) -> dict[str, int]:
        """The number that stands for each category, in training and in a request to the service: its position."""
        return {category: position for position, category in enumerate(self.categories)}


class Feature(Column):
    """A column that the model takes, or `size` of them that belong together, named `<name>_0` to `<name>_<size-1>`.

    The model takes numbers: of a category its position in `categories`, of a boolean 0 or 1, of a null NaN.
    """

    type: Literal["float", "integer", "boolean", "category"] = "float"
    size: int = Field(default=1, ge=1, le=10_000)
    shape: tuple[int, int] | None = Field(default=None, description="rows and columns of an image, for reports")

    @model_validator(mode="after")
    def _fits_shape(self) -> Self:
        if self.shape and self.shape[0] * self.shape[1] != self.size:
            raise ValueError(f"the shape {self.shape[0]} by {self.shape[1]} is not that of {self.size} columns")
        return self

    def columns(self, name: str) -> list[str]:
        """Names of the columns of this feature, which is called `name`."""
        return [name] if self.size == 1 else [f"{name}_{i}" for i in range(self.size)]


class Target(Strict):
    """The column to predict.

    For a classification it holds a class: a number from 0 to `classes` - 1 or, if there are `labels`, one of them. For
    a regression it is a number. For a density it tells the outliers (1) from the rest (0), and only evaluation reads
    it.
    """

    name: ColumnName
    classes: int | None = Field(default=None, ge=2, le=10_000)
    labels: tuple[str, ...] = Field(default=(), description="names of the classes, as the raw data has them")
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.labels and len(set(self.labels)) != self.classes:
            raise ValueError(f"classes is {self.classes}, but there are {len(set(self.labels))} different labels")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self

    @property
    def column(self) -> Column:
        """What is allowed in the target's column."""
        if self.labels:
            return Column(type="category", categories=self.labels)
        if self.classes:
            return Column(type="integer", min=0, max=self.classes - 1)
        return Column(type="float", min=self.min, max=self.max)


class Connection(Strict):
    """Where the pipeline finds out how to log in to a database; what it finds there never stands in a manifest.

    Either an environment variable that holds a connection string (postgresql://...), or the name of a secret in Secrets
    Manager: a connection string, or the JSON document that RDS keeps. Aurora's names only user and password; for it
    `host` and `database` are given here.
    """

    variable: str | None = Field(default=None, description="an environment variable")
    secret: str | None = Field(default=None, description="name or ARN of a secret")
    host: str | None = None
    port: int = Field(default=5432, ge=1, le=65_535)
    database: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_secret_in_here(cls, value: Any) -> Any:
        given = value.values() if isinstance(value, dict) else [value]
        if any("://" in str(each) or "password=" in str(each) for each in given):
            message = "a connection string holds a password, so it must not stand in the manifest; name the " + (
                "environment variable ({variable: NAME}) or the secret ({secret: NAME}) that holds it"
            )
            raise PydanticCustomError("secret", message)
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.variable is None) == (self.secret is None):
            raise ValueError("a connection names either an environment variable or a secret")
        return self


class Source(Strict):
    """Where the raw data is: a string in the manifest, or a query with its connection.

    The string is the name of a CSV or Parquet file, which lies in the raw bucket under <model name>/, or the URI of an
    S3 prefix, s3://bucket/folder/, with any number of such files below it.
    """

    uri: str | None = Field(default=None, pattern=r"^([\w.-]+\.(csv|parquet)|s3://[a-z0-9.-]{3,63}/(.*/)?)$")
    query: str | None = Field(default=None, min_length=1)
    connection: Connection | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"uri": value} if isinstance(value, str) else value

    @field_validator("uri", mode="wrap")
    @classmethod
    def _explained(cls, value: Any, check: Any) -> Any:
        try:
            return check(value)
        except ValueError:
            raise ValueError(
                "a source is a file in the raw bucket (name.csv or name.parquet), an S3 prefix (s3://bucket/folder/, "
                "with a slash at its end) or a query with its connection"
            ) from None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.uri is None) == (self.query is None):
            raise ValueError("a source is either a uri or a query")
        if (self.query is None) != (self.connection is None):
            raise ValueError("a query needs a connection, and nothing else does")
        return self

    @property
    def is_raw_object(self) -> bool:
        """Whether it is one file in the environment's raw bucket."""
        return self.uri is not None and not self.uri.startswith("s3://")


class Data(Strict):
    """Where the raw data is, what it may be used for and what a valid row of it looks like."""

    source: Source
    allowed_use: tuple[Purpose, ...] = Field(min_length=1)
    max_quarantined: float = Field(default=0.5, ge=0, lt=1, description="share of the rows that may break the schema")
    features: dict[ColumnName, Feature] = Field(min_length=1)
    target: Target | None = None
    context: dict[ColumnName, Column] = Field(
        default={}, description="columns that are kept, but that the model never sees: a time, a group, a slice"
    )

    @model_validator(mode="after")
    def _every_name_once(self) -> Self:
        names = [*self.columns, *([self.target.name] if self.target else []), *self.context]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"these columns are described more than once: {', '.join(twice)}")
        return self

    @property
    def columns(self) -> list[str]:
        """Names of the feature columns, in the order in which the model takes them."""
        return [column for name, feature in self.features.items() for column in feature.columns(name)]

    @property
    def all_columns(self) -> dict[str, Column]:
        """Every column of the data with what is allowed in it: features, then the target, then the context."""
        features = {each: feature for name, feature in self.features.items() for each in feature.columns(name)}
        target = {self.target.name: self.target.column} if self.target else {}
        return features | target | self.context


class Split(Strict):
    """How the rows are divided into a part to train on, one to watch the training with and one to test with.

    random: by chance. time: the last rows by the time in `column` are the test, those before them the validation.
    group: all rows with the same value in `column` (a patient, a customer) go to the same part.
    """

    by: Literal["random", "time", "group"] = "random"
    column: str | None = None
    test: float = Field(gt=0, lt=1, description="share of the rows held out for the test")
    validation: float = Field(default=0.1, gt=0, lt=1, description="share of the rows that early stopping looks at")
    seed: int = 0
    duplicates: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="equal rows in two parts: a leak, or natural",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.by == "random" and self.column:
            raise ValueError("a random split has no column; split by 'time' or 'group', or leave the column out")
        if self.by != "random" and not self.column:
            raise ValueError(f"a split by {self.by} needs the column that holds the {self.by}")
        if self.test + self.validation >= 1:
            raise ValueError(f"test {self.test} and validation {self.validation} leave no rows to train on")
        return self
