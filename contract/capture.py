"""What the service writes down of predictions and feedback: one JSON object a line, with the types of a Glue table.

Firehose turns the lines into Parquet with these columns. The schema is the same for every model, so that one table
holds them all; rows of a request lie one after another in `inputs` and in each of the `outputs`. A line leaves out what
it has no value for: `trace_id`, `hashed`.
"""

PREDICTION_COLUMNS = {
    "time": "timestamp",  # UTC
    "model": "string",
    "version": "bigint",
    "prediction_id": "string",
    "trace_id": "string",  # of the W3C trace context, if the request came with one
    "rows": "bigint",
    "latency_ms": "double",
    "inputs": "array<double>",  # rows * columns; null where a feature is sensitive
    "outputs": "map<string,array<double>>",  # rows * size of the output; outputs that are text are left out
    "hashed": "map<string,array<string>>",  # of each column to be hashed, one HMAC-SHA256 a row
}
FEEDBACK_COLUMNS = {
    "time": "timestamp",  # UTC
    "model": "string",
    "prediction_id": "string",
    "row": "bigint",  # of the request that the prediction answered
    "label": "double",
}
