"""GPU training on the cluster: what the GPUs do, whose they are, what idle ones cost, and who waits for one."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from infra.dashboards.queries import graph, number, promql

GPU = "{{Hostname}} GPU {{gpu}}"


def build(dashboard: Dashboard) -> Dashboard:
    """Fill the dashboard of GPU training; `dashboard` is an empty one, with its title and uid."""
    _now(dashboard.with_row(Row("Now")))
    _use(dashboard.with_row(Row("Utilisation and memory")))
    _cost(dashboard.with_row(Row("Idle cost")))
    _queues(dashboard.with_row(Row("Queues")))
    return dashboard


def _now(dashboard: Dashboard) -> None:
    gpus = promql("count by (modelName) (DCGM_FI_DEV_GPU_UTIL)", "{{modelName}}")
    dashboard.with_panel(number("GPUs", "none", [gpus], "GPUs that are there, and paid for."))
    use = promql("avg(DCGM_FI_DEV_GPU_UTIL)", "mean")
    dashboard.with_panel(number("Utilisation", "percent", [use], "The mean of all GPUs."))
    idle = promql("count(max_over_time(DCGM_FI_DEV_GPU_UTIL[30m]) == 0) or vector(0)", "GPUs")
    what = "GPUs that have done nothing for half an hour."
    dashboard.with_panel(number("Idle", "none", [idle], what, limit=1))
    broken = promql("count(DCGM_FI_DEV_XID_ERRORS > 0) or vector(0)", "GPUs")
    what = "GPUs that reported an XID error: NVIDIA's list of XID errors says which are the hardware's."
    dashboard.with_panel(number("With errors", "none", [broken], what, limit=1))


def _use(dashboard: Dashboard) -> None:
    dashboard.with_panel(graph("Utilisation by GPU", "percent", [promql("DCGM_FI_DEV_GPU_UTIL", GPU)], "Busy time."))
    team = promql('avg by (namespace) (DCGM_FI_DEV_GPU_UTIL{namespace!=""})', "{{namespace}}")
    what = "The mean of the GPUs that each team's jobs hold: low means that a job is waiting for its data."
    dashboard.with_panel(graph("Utilisation by team", "percent", [team], what))
    memory = "100 * DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)"
    what = "At 100% the next allocation fails; at 30% a larger batch would fit."
    dashboard.with_panel(graph("Memory by GPU", "percent", [promql(memory, GPU)], what, limit=95))
    bandwidth = promql("DCGM_FI_DEV_MEM_COPY_UTIL", GPU)
    what = "Time in which memory was read or written."
    dashboard.with_panel(graph("Memory bandwidth by GPU", "percent", [bandwidth], what))
    power, heat = promql("DCGM_FI_DEV_POWER_USAGE", GPU), promql("DCGM_FI_DEV_GPU_TEMP", GPU)
    dashboard.with_panel(graph("Power by GPU", "watt", [power], "What the GPU really does shows in its power."))
    dashboard.with_panel(graph("Temperature by GPU", "celsius", [heat], "A hot GPU clocks down.", limit=85))


def _cost(dashboard: Dashboard) -> None:
    hour = promql("cluster:gpu:usd_per_hour", "all"), promql("cluster:gpu_idle:usd_per_hour", "idle")
    what = "GPUs at list price on demand, and the part of it that their utilisation leaves unused."
    dashboard.with_panel(graph("Cost an hour", "currencyUSD", list(hour), what))
    wasted = promql("avg_over_time(cluster:gpu_idle:usd_per_hour[$__range]) * $__range_s / 3600", "idle")
    what = "What was unused in the time that this page shows."
    dashboard.with_panel(number("Idle in this time", "currencyUSD", [wasted], what))
    unpriced = promql("count(DCGM_FI_DEV_GPU_UTIL unless on (modelName) gpu:price:usd_per_hour) or vector(0)", "GPUs")
    what = "GPUs whose price nobody has given (infra/alert_rules.py): the costs leave them out."
    dashboard.with_panel(number("Without a price", "none", [unpriced], what, limit=1))


def _queues(dashboard: Dashboard) -> None:
    pending = promql("sum by (cluster_queue, status) (kueue_pending_workloads)", "{{cluster_queue}} {{status}}")
    what = "Jobs that wait: active ones for quota, inadmissible ones for a change of their queue."
    dashboard.with_panel(graph("Waiting", "none", [pending], what))
    running = promql("sum by (cluster_queue) (kueue_admitted_active_workloads)", "{{cluster_queue}}")
    dashboard.with_panel(graph("Running", "none", [running], "Jobs that have all their GPUs."))
    buckets = "sum by (cluster_queue, le) (rate(kueue_admission_wait_time_seconds_bucket[$__rate_interval]))"
    wait = promql(f"histogram_quantile(0.95, {buckets})", "{{cluster_queue}}")
    dashboard.with_panel(graph("Wait, p95", "s", [wait], "From a job's creation to its admission."))
    evicted = "sum by (cluster_queue, reason) (increase(kueue_evicted_workloads_total[$__rate_interval]))"
    what = "Jobs that were put back into their queue, such as for a job of higher priority."
    dashboard.with_panel(graph("Put back", "none", [promql(evicted, "{{cluster_queue}} {{reason}}")], what))
