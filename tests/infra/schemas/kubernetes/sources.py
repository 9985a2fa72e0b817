"""Where the schemas are from, and what brings them: `python -m tests.infra.schemas.kubernetes.sources <folder>`.

Definitions of custom resources and defaults of charts, from the releases that infra/versions.py pins, without their
descriptions. The folder holds clones of the repositories by their last name (karpenter-provider-aws, kueue, ...).
Those of Kubernetes' own objects are taken out of the package kubernetes-validate (pip install it first), which is a
hundred megabytes for a dozen schemas. To be run after a version is raised: the tests compare the versions.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from infra import versions

FOLDER = Path(__file__).parent
KARPENTER, KUEUE, JOBSET = "aws/karpenter-provider-aws", "kubernetes-sigs/kueue", "kubernetes-sigs/jobset"
KARPENTER_TAG, KUEUE_TAG = f"v{versions.KARPENTER.version}", f"v{versions.KUEUE.version}"
JOBSET_TAG = f"v{versions.JOBSET.version}"

DEFINITIONS = {
    "EC2NodeClass": (KARPENTER, KARPENTER_TAG, "pkg/apis/crds/karpenter.k8s.aws_ec2nodeclasses.yaml"),
    "NodePool": (KARPENTER, KARPENTER_TAG, "pkg/apis/crds/karpenter.sh_nodepools.yaml"),
    "JobSet": (JOBSET, JOBSET_TAG, "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml"),
} | {
    kind: (KUEUE, KUEUE_TAG, f"config/components/crd/bases/kueue.x-k8s.io_{plural}.yaml")
    for kind, plural in {
        "ClusterQueue": "clusterqueues",
        "LocalQueue": "localqueues",
        "ResourceFlavor": "resourceflavors",
        "WorkloadPriorityClass": "workloadpriorityclasses",
    }.items()
}
OBJECTS = {
    "v1": (
        "ConfigMap",
        "LimitRange",
        "Namespace",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "ResourceQuota",
        "ServiceAccount",
    ),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "rbac.authorization.k8s.io/v1": ("ClusterRole", "RoleBinding"),
}
"""Kubernetes' own, by their API version."""
CHARTS = {
    "karpenter": (KARPENTER, KARPENTER_TAG, "charts/karpenter/values.yaml"),
    "karpenter-crd": (KARPENTER, KARPENTER_TAG, "charts/karpenter-crd/values.yaml"),
    "kueue": (KUEUE, KUEUE_TAG, "charts/kueue/values.yaml"),
    "jobset": (JOBSET, JOBSET_TAG, "charts/jobset/values.yaml"),
    "nvidia-device-plugin": (
        "NVIDIA/k8s-device-plugin",
        f"v{versions.DEVICE_PLUGIN.version}",
        "deployments/helm/nvidia-device-plugin/values.yaml",
    ),
    "dcgm-exporter": ("NVIDIA/dcgm-exporter", f"4.5.3-{versions.DCGM_EXPORTER.version}", "deployment/values.yaml"),
    # These repositories' tags are not the charts', or not of all of them: commits with the charts' versions.
    "aws-efa-k8s-device-plugin": ("aws/eks-charts", "5239609", "stable/aws-efa-k8s-device-plugin/values.yaml"),
    "grafana": ("grafana-community/helm-charts", "3386a115", "charts/grafana/values.yaml"),
}


CONFIGURATION = (KUEUE, KUEUE_TAG, "apis/config/v1beta2/configuration_types.go")
"""Kueue's own configuration has no schema: the names of its fields are read out of the type that it is parsed into."""


def _text(clones: Path, source: tuple[str, str, str]) -> str:
    repository, tag, path = source
    command = ["git", "-C", str(clones / repository.partition("/")[2]), "show", f"{tag}:{path}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _read(clones: Path, source: tuple[str, str, str]) -> Any:
    return yaml.safe_load(_text(clones, source))


def _plain(schema: Any) -> Any:
    """A schema without descriptions; a property that is called so stays."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _plain(each) for name, each in value.items()} if key == "properties" else _plain(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str))
    }


def _objects() -> dict[str, Any]:
    import kubernetes_validate

    version = f"v{versions.KUBERNETES}.0"
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"{version}-local-strict"
    shared = json.loads((folder / "_definitions.json").read_text())["$defs"]

    def whole(schema: Any) -> Any:
        """A schema with what it refers to in its place."""
        if isinstance(schema, list):
            return [whole(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return whole(shared[schema["$ref"].rpartition("/")[2]])
        return {key: whole(value) for key, value in schema.items() if key != "status"}

    found = {}
    for api, kinds in OBJECTS.items():
        group, _, name = api.rpartition("/")
        for kind in kinds:
            file = "-".join([kind.lower(), *([group.partition(".")[0]] if group else []), name]) + ".json"
            found[f"{api}/{kind}"] = _plain(whole(json.loads((folder / file).read_text())))
    source = f"kubernetes-validate {kubernetes_validate.__version__}, {folder.name}, of Kubernetes' OpenAPI document"
    return {"source": source, "version": version, "schemas": found}


def _write(file: str, found: dict[str, Any]) -> None:
    (FOLDER / file).write_text(json.dumps(found, separators=(",", ":"), sort_keys=True) + "\n")


def main(clones: Path) -> None:
    """Write both files."""
    definitions = {}
    for kind, source in DEFINITIONS.items():
        spec = _read(clones, source)["spec"]
        definitions[kind] = {
            "source": f"github.com/{source[0]}, {source[2]}",
            "version": source[1],
            "group": spec["group"],
            "schemas": {
                each["name"]: _plain(each["schema"]["openAPIV3Schema"]) for each in spec["versions"] if each["storage"]
            },
        }
        for schema in definitions[kind]["schemas"].values():
            schema["properties"].pop("status", None)
    charts = {
        chart: {
            "source": f"github.com/{source[0]}, {source[2]}",
            "version": source[1],
            "chart": _read(clones, (*source[:2], source[2].replace("values.yaml", "Chart.yaml")))["version"],
            "values": _read(clones, source) or {},
        }
        for chart, source in CHARTS.items()
    }
    fields = sorted(set(re.findall(r'json:"(\w+)', _text(clones, CONFIGURATION))))
    charts["kueue"]["configuration"] = {"source": CONFIGURATION[2], "fields": fields}
    _write("objects.json", _objects())
    _write("definitions.json", definitions)
    _write("charts.json", charts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
