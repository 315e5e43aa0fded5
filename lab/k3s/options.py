"""Every option of ``k3s server`` and ``k3s agent``, as data.

Source: help texts of K3s (k3s-io/docs ``docs/cli/{server,agent}.md``) and
``pkg/cli/cmds/{server,agent}.go`` of k3s-io/k3s, 1.36 line.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["server", "agent"]
Kind = Literal["text", "number", "list", "flag"]

SERVER: frozenset[Role] = frozenset({"server"})
AGENT: frozenset[Role] = frozenset({"agent"})
BOTH = SERVER | AGENT


@dataclass(frozen=True)
class Option:
    """One option that the stand-in obeys.

    ``split``: a value may hold several, separated by commas, as K3s allows for addresses and
    component names but not for labels or arguments (those may contain commas).
    """

    name: str
    kind: Kind
    roles: frozenset[Role]
    what: str
    default: str = ""
    env: str = ""
    short: str = ""
    split: bool = False


OPTIONS = (
    Option(
        "config",
        "text",
        BOTH,
        "load configuration from this file",
        default="/etc/rancher/k3s/config.yaml",
        env="K3S_CONFIG_FILE",
        short="c",
    ),
    Option("debug", "flag", BOTH, "turn on debug logs", env="K3S_DEBUG"),
    Option(
        "data-dir",
        "text",
        BOTH,
        "folder to hold state",
        default="/var/lib/rancher/k3s",
        env="K3S_DATA_DIR",
        short="d",
    ),
    # Who may join, and where
    Option("token", "text", BOTH, "shared secret to join the cluster", env="K3S_TOKEN", short="t"),
    Option("token-file", "text", BOTH, "file containing the token", env="K3S_TOKEN_FILE"),
    Option(
        "agent-token",
        "text",
        SERVER,
        "shared secret that joins agents, but not servers",
        env="K3S_AGENT_TOKEN",
    ),
    Option(
        "agent-token-file",
        "text",
        SERVER,
        "file containing the agent secret",
        env="K3S_AGENT_TOKEN_FILE",
    ),
    Option("server", "text", AGENT, "server to connect to", env="K3S_URL", short="s"),
    # Listener
    Option("bind-address", "text", SERVER, "address to listen on", default="0.0.0.0"),  # noqa: S104
    Option("https-listen-port", "number", SERVER, "HTTPS listen port", default="6443"),
    Option("advertise-address", "text", SERVER, "address that members reach the server by"),
    Option("tls-san", "list", SERVER, "further names in the server's certificate", split=True),
    # Networking
    Option("cluster-cidr", "text", SERVER, "addresses of pods", default="10.42.0.0/16"),
    Option("service-cidr", "text", SERVER, "addresses of services", default="10.43.0.0/16"),
    Option("cluster-dns", "text", SERVER, "address of coredns (tenth of service-cidr)"),
    Option("cluster-domain", "text", SERVER, "cluster domain", default="cluster.local"),
    Option("flannel-backend", "text", SERVER, "vxlan or host-gw", default="vxlan"),
    Option("disable-network-policy", "flag", SERVER, "do not enforce NetworkPolicy"),
    # Client
    Option(
        "write-kubeconfig",
        "text",
        SERVER,
        "write the admin's kubeconfig to this file",
        default="/etc/rancher/k3s/k3s.yaml",
        env="K3S_KUBECONFIG_OUTPUT",
        short="o",
    ),
    Option(
        "write-kubeconfig-mode",
        "text",
        SERVER,
        "mode of that file, octal",
        default="600",
        env="K3S_KUBECONFIG_MODE",
    ),
    # Components
    Option("disable", "list", SERVER, "packaged components not to deploy", split=True),
    Option("default-local-storage-path", "text", SERVER, "where local-path keeps volumes"),
    Option("secrets-encryption", "flag", SERVER, "encrypt Secrets at rest"),
    Option("kube-apiserver-arg", "list", SERVER, "further argument of kube-apiserver"),
    Option("kube-controller-manager-arg", "list", SERVER, "… of kube-controller-manager"),
    Option("kube-scheduler-arg", "list", SERVER, "… of kube-scheduler"),
    Option("kubelet-arg", "list", BOTH, "… of kubelet"),
    Option("kube-proxy-arg", "list", BOTH, "… of kube-proxy"),
    # The node
    Option("node-name", "text", BOTH, "name of the node", env="K3S_NODE_NAME"),
    Option("node-ip", "text", BOTH, "address of the node", short="i"),
    Option("node-external-ip", "text", BOTH, "address of the node from outside"),
    Option("node-label", "list", BOTH, "label to register the node with"),
    Option("node-taint", "list", BOTH, "taint to register the node with"),
    Option("protect-kernel-defaults", "flag", BOTH, "fail if the kernel is tuned differently"),
    Option("resolv-conf", "text", BOTH, "resolv.conf for pods", env="K3S_RESOLV_CONF"),
    Option(
        "pause-image",
        "text",
        BOTH,
        "image of the sandbox",
        default="docker.io/rancher/mirrored-pause:3.10",
    ),
    Option(
        "private-registry",
        "text",
        BOTH,
        "registry configuration file",
        default="/etc/rancher/k3s/registries.yaml",
    ),
)

# What K3s has and the stand-in lacks. Refused with words of its own, never ignored.
_K3S_SERVER = """
advertise-port cluster-init cluster-reset cluster-reset-restore-path
datastore-cafile datastore-certfile datastore-endpoint datastore-keyfile disable-agent
disable-apiserver disable-cloud-controller disable-controller-manager disable-etcd
disable-helm-controller disable-kube-proxy disable-scheduler egress-selector-mode
embedded-registry etcd-arg etcd-disable-snapshots etcd-expose-metrics etcd-s3
etcd-s3-access-key etcd-s3-bucket etcd-s3-bucket-lookup-type etcd-s3-config-secret
etcd-s3-endpoint etcd-s3-endpoint-ca etcd-s3-folder etcd-s3-insecure etcd-s3-proxy
etcd-s3-region etcd-s3-retention etcd-s3-secret-key etcd-s3-session-token
etcd-s3-skip-ssl-verify etcd-s3-timeout etcd-snapshot-compress etcd-snapshot-dir
etcd-snapshot-name etcd-snapshot-reconcile-interval etcd-snapshot-retention
etcd-snapshot-schedule-cron flannel-external-ip flannel-ipv6-masq helm-job-image kine-tls
kube-cloud-controller-arg kube-cloud-controller-manager-arg kube-controller-arg
secrets-encryption-provider server service-node-port-range servicelb-namespace
supervisor-metrics system-default-registry tls-san-security write-kubeconfig-group
"""
_K3S_AGENT = "bind-address disable-apiserver-lb"
_K3S_BOTH = """
airgap-extra-registry alsologtostderr container-runtime-endpoint default-runtime
disable-default-registry-endpoint docker enable-pprof flannel-cni-conf flannel-conf flannel-iface
image-credential-provider-bin-dir image-credential-provider-config image-service-endpoint
lb-server-port log node-external-dns node-internal-dns nonroot-devices prefer-bundled-bin
rootless selinux snapshotter v vmodule vpn-auth vpn-auth-file with-node-id
"""
LACKING: dict[Role, frozenset[str]] = {
    "server": frozenset((_K3S_SERVER + _K3S_BOTH).split()),
    "agent": frozenset((_K3S_AGENT + _K3S_BOTH).split()),
}


def options_of(role: Role) -> dict[str, Option]:
    """The options that the stand-in obeys in this role, by name."""
    return {option.name: option for option in OPTIONS if role in option.roles}
