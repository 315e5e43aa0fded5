"""What k3s itself puts into the cluster: who may join, and what node agents may read."""

from typing import Any

from . import tokens
from .api import Object
from .settings import Settings

RBAC_GROUP = "rbac.authorization.k8s.io"
JOINING = "system:bootstrappers:k3s:default-node-token"
TOKEN_LABEL = "k3s-stand-in/token-id"  # noqa: S105


def _group(name: str) -> dict[str, str]:
    return {"apiGroup": RBAC_GROUP, "kind": "Group", "name": name}


def _user(name: str) -> dict[str, str]:
    return {"apiGroup": RBAC_GROUP, "kind": "User", "name": name}


def _binding(name: str, role: str, *subjects: dict[str, str]) -> Object:
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role},
        "subjects": list(subjects),
    }


def _rule(groups: str, resources: str, verbs: str) -> dict[str, list[str]]:
    return {
        "apiGroups": ["" if group == "core" else group for group in groups.split()],
        "resources": resources.split(),
        "verbs": verbs.split(),
    }


def roles() -> list[Object]:
    """Rights of the API server towards kubelets, of joining nodes, and of node agents.

    kube-proxy and netagent use the kubelet's identity. Beyond what a node may do anyway they
    need these lists, as K3s's own ``system:k3s-controller`` does; no Secret is among them.
    """
    csr = "system:certificates.k8s.io:certificatesigningrequests"
    watch = "get list watch"
    return [
        _binding(
            "k3s:apiserver-kubelet-admin",
            "system:kubelet-api-admin",
            _user("kube-apiserver-kubelet-client"),
        ),
        _binding("k3s:node-bootstrapper", "system:node-bootstrapper", _group(JOINING)),
        _binding("k3s:node-autoapprove-join", f"{csr}:nodeclient", _group(JOINING)),
        _binding("k3s:node-autoapprove-renewal", f"{csr}:selfnodeclient", _group("system:nodes")),
        {
            "apiVersion": f"{RBAC_GROUP}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "k3s:node-agents"},
            "rules": [
                _rule("core", "nodes pods namespaces", watch),
                _rule("discovery.k8s.io", "endpointslices", watch),
                _rule("networking.k8s.io", "networkpolicies servicecidrs", watch),
                _rule("core events.k8s.io", "events", "create patch update"),
            ],
        },
        _binding("k3s:node-agents", "k3s:node-agents", _group("system:nodes")),
        {
            "apiVersion": f"{RBAC_GROUP}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "k3s:joining-nodes"},
            "rules": [_rule("core", "nodes", "get")],
        },
        _binding("k3s:joining-nodes", "k3s:joining-nodes", _group(JOINING)),
    ]


def bootstrap_secret(secret: str) -> Object:
    """The bootstrap token that stands for a join secret; it never expires, as with K3s."""
    ident, key = tokens.bootstrap(secret)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {
            "name": f"bootstrap-token-{ident}",
            "namespace": "kube-system",
            "labels": {TOKEN_LABEL: ident},
        },
        "stringData": {
            "token-id": ident,
            "token-secret": key,
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": JOINING,
        },
    }


def network_of(settings: Settings) -> dict[str, Any]:
    """The settings that every node must share; agents learn them at ``/v1-k3s/config``."""
    return {
        "cluster_cidr": settings.cluster_cidr,
        "service_cidr": settings.service_cidr,
        "cluster_dns": settings.cluster_dns,
        "cluster_domain": settings.cluster_domain,
        "backend": settings.backend,
        "network_policy": settings.network_policy,
    }


def joinable(secret: str) -> list[Object]:
    """Everything that lets nodes join with this secret, in the order to apply it."""
    return [*roles(), bootstrap_secret(secret)]
