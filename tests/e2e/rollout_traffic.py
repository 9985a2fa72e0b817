"""Users of the digits model, who ask the service and tell it the truth afterwards."""

from collections import Counter
from typing import Any

import httpx

from tests.documents import blocks
from training.data import model_module


def version_of(user: str, shares: dict[str, int]) -> str:
    """Which version a user gets, worked out by hand as docs/rollout.md says."""
    namespace: dict[str, Any] = {}
    exec(blocks("rollout.md", "python")[0], namespace)
    return namespace["version_of"]("digits", user, shares)


class Users:
    """So many users, each of whom draws one digit."""

    def __init__(self, url: str, count: int) -> None:
        self.client = httpx.Client(base_url=f"{url}/v2/models/digits", timeout=30)
        table = model_module("digits").raw_data().head(count)
        self.rows = table.drop("digit").rows()
        self.truth = table["digit"].to_list()
        self.names = [f"user {number}" for number in range(count)]

    def ask(self, **headers: str) -> list[dict]:
        """Their answers, in order."""
        return [self._ask(name, row, headers) for name, row in zip(self.names, self.rows, strict=True)]

    def _ask(self, name: str, row: tuple[int, ...], headers: dict[str, str]) -> dict:
        tensor = {"name": "features", "datatype": "FP32", "shape": [1, 64], "data": row}
        more = {key.replace("_", "-"): value for key, value in headers.items()}
        answer = self.client.post("/infer", json={"inputs": [tensor]}, headers={"x-user-id": name} | more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tell(self, answers: list[dict], wrong: str) -> None:
        """Tell the truth; of one version's answers every third label is false."""
        seen: Counter[str] = Counter()
        labels = []
        for answer, truth in zip(answers, self.truth, strict=True):
            version = answer["model_version"]
            seen[version] += 1
            is_false = version == wrong and seen[version] % 3 == 0
            labels.append({"id": answer["id"], "label": (truth + is_false) % 10})
        answer = self.client.post("/feedback", json=labels)
        assert answer.json() == {"accepted": len(labels)}


def versions(answers: list[dict]) -> list[str]:
    """Who has answered."""
    return [answer["model_version"] for answer in answers]
