"""Explore: what is in a snapshot, as a profile for machines and as a page for people."""

import boto3
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from contract.manifest import Manifest
from training import report
from training.data import encoded, features
from training.ingest import ingested
from training.profile import ColumnProfile, Profile, profile
from training.report import Section, Table
from training.steps import Context

PROFILE_FILE, REPORT_FILE = "profile.json", "report.html"
EMBEDDED, SEARCHED = 1_000, 20_000  # rows that are embedded, and that outliers are searched among
WIDE = 4  # plots in a row
UNUSUAL = 10


def step(context: Context) -> str:
    """Write the profile and the report, and put both beside the snapshot."""
    folder, snapshot = context.folder("explore"), ingested(context)
    described, sample = profile(context.folder("ingest") / "snapshot", context.manifest, snapshot.id)
    (folder / PROFILE_FILE).write_text(described.model_dump_json(indent=1))
    lead = (
        f"{described.rows:,} rows from {snapshot.source}, {snapshot.quarantined:,} more in quarantine. "
        f"{context.manifest.description} Allowed use of the data: {', '.join(context.manifest.data.allowed_use)}."
    )
    sections = explore(described, sample, context.manifest)
    report.write(folder / REPORT_FILE, f"{described.model}: snapshot {described.snapshot[:8]}", lead, sections)
    bucket, _, prefix = snapshot.uri.removeprefix("s3://").partition("/")
    for name in (PROFILE_FILE, REPORT_FILE):
        boto3.client("s3").upload_file(str(folder / name), bucket, f"{prefix}/_{name}")
    return f"profile of {len(described.columns)} columns and {folder / REPORT_FILE}"


def explore(described: Profile, sample: pl.DataFrame, manifest: Manifest) -> list[Section]:
    """The sections of the report.

    Args:
        described: the profile.
        sample: the rows to draw.
        manifest: the model's.
    """
    target = manifest.data.target
    rows = features(sample, manifest.data)
    mean = np.nansum(rows, axis=0) / np.maximum(1, (~np.isnan(rows)).sum(axis=0))
    filled = np.where(np.isnan(rows), mean, rows)
    deviation = filled.std(axis=0)
    usual = (filled - mean) / np.where(deviation == 0, 1, deviation)
    labels = encoded(sample[target.name], target) if target else None
    return [
        _columns(described),
        _distributions(described, manifest),
        _correlations(rows, labels, manifest),
        _embedding(usual, labels, manifest),
        _outliers(usual, sample, manifest),
    ]


def _columns(described: Profile) -> Section:
    head = ["column", "role", "type", "nulls", "distinct", "mean", "deviation", "min", "median", "max", "most frequent"]
    rows = []
    for name, column in described.columns.items():
        frequent = ", ".join(f"{value} ({count})" for value, count in list(column.categories.items())[:3])
        numbers = [column.mean, column.deviation, column.min, column.quantiles.get("0.5"), column.max]
        rows.append([name, column.role, column.type, column.nulls, column.distinct, *numbers, frequent])
    text = "Means, deviations and bounds are of all rows"
    of = "." if described.sampled == described.rows else f"; medians and plots of {described.sampled:,} of them."
    return Section("Columns", f"{text}{of} The number of distinct values is an estimate.", [Table(head, rows)])


def _distributions(described: Profile, manifest: Manifest) -> Section:
    groups = {name: feature.columns(name) for name, feature in manifest.data.features.items()}
    wide = {name: columns for name, columns in groups.items() if len(columns) > 1}
    single = [name for name in described.columns if not any(name in columns for columns in wide.values())]
    drawn = report.figure(11, 1.7 * -(-len(single) // WIDE))
    plots = []
    for place, name in enumerate(single):
        _histogram(drawn.add_subplot(-(-len(single) // WIDE), WIDE, place + 1), name, described.columns[name])
    if single:
        plots.append(report.plot(drawn, f"How the values of {len(single)} column(s) are distributed"))
    for name, columns in wide.items():
        plots.append(_heights(name, [described.columns[column] for column in columns]))
    return Section("Distributions", plots=plots)


def _histogram(axes: Axes, name: str, column: ColumnProfile) -> None:
    if column.categories:
        axes.bar(range(len(column.categories)), list(column.categories.values()), color="tab:blue")
        axes.set_xticks([])
    elif column.counts:
        axes.stairs(column.counts, column.edges, fill=True, color="tab:blue")
    axes.set_title(name, fontsize=9)
    axes.set_yticks([])
    axes.tick_params(labelsize=7)


def _heights(name: str, columns: list[ColumnProfile]) -> report.Plot:
    """Quantiles of columns that belong together, side by side."""
    drawn = report.figure(11, 3)
    axes = drawn.add_subplot()
    quantile = {
        q: [column.quantiles.get(q, np.nan) for column in columns] for q in ("0.05", "0.25", "0.5", "0.75", "0.95")
    }
    places = range(len(columns))
    axes.fill_between(places, quantile["0.05"], quantile["0.95"], alpha=0.25, step="mid", label="5% to 95%")
    axes.fill_between(places, quantile["0.25"], quantile["0.75"], alpha=0.4, step="mid", label="25% to 75%")
    axes.step(places, quantile["0.5"], where="mid", label="median")
    axes.set_xlabel(f"{name}_0 to {name}_{len(columns) - 1}")
    axes.legend(frameon=False)
    return report.plot(drawn, f"Quantiles of the {len(columns)} columns of {name}")


def _correlations(rows: NDArray[np.float32], labels: NDArray[np.float64] | None, manifest: Manifest) -> Section:
    names, table = list(manifest.data.columns), rows.astype(np.float64)
    if labels is not None and manifest.data.target:
        names, table = [*names, manifest.data.target.name], np.column_stack([table, labels])
    whole = table[~np.isnan(table).any(axis=1)]
    varies = whole.std(axis=0) > 0 if len(whole) else np.zeros(len(names), bool)
    if varies.sum() < 2 or len(whole) < 3:
        return Section("Correlations", "Too few complete rows or varying columns for correlations.")
    names = [name for name, kept in zip(names, varies, strict=True) if kept]
    matrix: NDArray[np.float64] = np.asarray(np.corrcoef(whole[:, varies].T))
    drawn = report.figure(8, 6.5)
    axes = drawn.add_subplot()
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    drawn.colorbar(image, shrink=0.8)
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    pairs = sorted(zip(*np.triu_indices(len(names), 1), strict=True), key=lambda pair: -abs(matrix[pair]))[:10]
    strongest = Table(["column", "and", "correlation"], [(names[a], names[b], float(matrix[a, b])) for a, b in pairs])
    plot = report.plot(drawn, f"Pearson correlations of {len(names)} columns")
    return Section("Correlations", "The ten strongest, and all of them.", [strongest], [plot])


def _embedding(usual: NDArray[np.float64], labels: NDArray[np.float64] | None, manifest: Manifest) -> Section:
    chosen = slice(None, None, max(1, -(-len(usual) // EMBEDDED)))
    rows = usual[chosen]
    if len(rows) < 5:
        return Section("Embedding", f"{len(rows)} rows are too few for an embedding.")
    perplexity = min(30, (len(rows) - 1) / 3)
    with threadpool_limits(1):  # where other processes want the cores, OpenMP's waiting threads cost ten times the work
        across, up = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=0).fit_transform(rows).T
    drawn = report.figure(8, 6)
    axes = drawn.add_subplot()
    target = manifest.data.target
    if labels is None or target is None:
        axes.scatter(across, up, s=8)
    elif target.classes and target.classes <= 20:
        for label in np.unique(labels[chosen]):
            name = target.labels[label] if target.labels else str(label)
            of = labels[chosen] == label
            axes.scatter(across[of], up[of], s=8, label=name)
        axes.legend(title=target.name, frameon=False, fontsize=8, bbox_to_anchor=(1, 1))
    else:
        drawn.colorbar(axes.scatter(across, up, s=8, c=labels[chosen]), label=target.name)
    axes.set_xticks([])
    axes.set_yticks([])
    text = "Rows that are alike are near one another; distances between far groups mean little."
    return Section("Embedding", text, plots=[report.plot(drawn, f"t-SNE of {len(rows):,} rows")])


def _outliers(usual: NDArray[np.float64], sample: pl.DataFrame, manifest: Manifest) -> Section:
    rows = usual[:SEARCHED]
    if len(rows) < 5:
        return Section("Outliers", f"{len(rows)} rows are too few to tell which are unusual.")
    scores = -IsolationForest(random_state=0).fit(rows).score_samples(rows)
    names, head = manifest.data.columns, ["row of the sample", "score", "what is unusual"]
    found = []
    for row in np.argsort(-scores)[:UNUSUAL]:
        strongest = np.argsort(-abs(rows[row]))[:3]
        why = ", ".join(f"{names[i]} {sample[int(row), names[i]]} ({rows[row, i]:+.1f} deviations)" for i in strongest)
        found.append((int(row), float(scores[row]), why))
    drawn = report.figure(9, 2.5)
    axes = drawn.add_subplot()
    axes.hist(scores, bins=40)
    axes.set_xlabel("score: the greater, the more unusual")
    axes.set_yticks([])
    text = f"The {len(found)} most unusual of {len(rows):,} rows, by an isolation forest."
    return Section("Outliers", text, [Table(head, found)], [report.plot(drawn, "How unusual the rows are")])
