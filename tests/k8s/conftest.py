"""The objects of k8s/, put together without any program."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

Object = dict[str, Any]
K8S = ROOT / "k8s"


def collect(folder: Path) -> list[Object]:
    """Return the objects of a kustomize folder: its resources, its namespace, its labels."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    objects: list[Object] = []
    for name in kustomization["resources"]:
        path = folder / name
        if path.is_dir():
            objects += collect(path)
        else:
            objects += [one for one in yaml.safe_load_all(path.read_text()) if one]
    for one in objects:
        if "namespace" in kustomization:
            one["metadata"].setdefault("namespace", kustomization["namespace"])
        for label in kustomization.get("labels", []):
            one["metadata"].setdefault("labels", {}).update(label["pairs"])
            template = one.get("spec", {}).get("template")
            if template and label.get("includeTemplates"):
                template["metadata"]["labels"].update(label["pairs"])
    return objects


@pytest.fixture(scope="session")
def objects() -> list[Object]:
    return collect(K8S)


@pytest.fixture(scope="session")
def workloads(objects: list[Object]) -> list[Object]:
    return [one for one in objects if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet")]
