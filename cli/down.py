"""`mlp down`: stop the laptop platform."""

from cli.output import AsJson, results, show
from embedded.local import Local


def down(as_json: AsJson = False) -> None:
    """Stop every process of the laptop platform.

    The emulated AWS lives in memory, so its buckets and model versions go with it; `mlp up` makes them again.
    """
    platform = Local.of_this_checkout()
    stopped: list[str] = []
    with platform.changing():
        platform.stop(lambda process: stopped.append(process.name))
    if as_json:
        show({"stopped": stopped}, as_json)
    else:
        results.print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
