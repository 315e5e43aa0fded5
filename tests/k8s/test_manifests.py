"""What every manifest promises: placement, restraint, probes, names that meet."""

import re
import shutil
import subprocess

import pytest
import yaml

from f1vote import server
from tests.conftest import ROOT
from tests.k8s.conftest import K8S

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def one(objects, kind, name):
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def containers(workload):
    return workload["spec"]["template"]["spec"]["containers"]


def each_container(workloads):
    return [(w["metadata"]["name"], c) for w in workloads for c in containers(w)]


def test_kustomize_gives_the_same_objects(objects):
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    rendered = subprocess.run(
        [kubectl, "kustomize", str(K8S)], capture_output=True, text=True, check=True, timeout=60
    )

    def names(these):
        return sorted(
            (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in these
        )

    assert names(yaml.safe_load_all(rendered.stdout)) == names(objects)


def test_the_objects_of_the_platform(objects):
    assert sorted((o["kind"], o["metadata"]["name"]) for o in objects) == [
        ("ClusterRole", "f1-traefik"),
        ("ClusterRoleBinding", "f1-traefik"),
        ("ConfigMap", "redis"),
        ("Deployment", "traefik"),
        ("Deployment", "vote"),
        ("Ingress", "vote"),
        ("IngressClass", "traefik"),
        ("Namespace", "f1"),
        ("Namespace", "ingress"),
        ("PodDisruptionBudget", "vote"),
        ("Role", "traefik"),
        ("RoleBinding", "traefik"),
        ("Service", "redis"),
        ("Service", "vote"),
        *[("ServiceAccount", "default")] * 2,
        ("ServiceAccount", "traefik"),
        ("StatefulSet", "redis"),
    ]


def test_everything_of_a_namespace_says_which(objects):
    cluster = {"Namespace", "IngressClass", "ClusterRole", "ClusterRoleBinding"}
    for o in objects:
        namespace = o["metadata"].get("namespace")
        assert (namespace is None) == (o["kind"] in cluster), o["metadata"]["name"]
        assert namespace in (None, "f1", "ingress")


def test_nothing_but_the_ingress_can_be_reached_from_outside(objects, workloads):
    for service in (o for o in objects if o["kind"] == "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        assert not service["spec"].get("externalIPs")
    for workload in workloads:
        spec = workload["spec"]["template"]["spec"]
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))
    ports = {
        (name, port["hostPort"])
        for name, container in each_container(workloads)
        for port in container.get("ports", [])
        if "hostPort" in port
    }
    assert ports == {("traefik", 80), ("traefik", 443)}


def test_each_runs_where_it_belongs(objects):
    for kind, name in (("StatefulSet", "redis"), ("Deployment", "traefik")):
        spec = one(objects, kind, name)["spec"]["template"]["spec"]
        assert spec["nodeSelector"] == {CONTROL_PLANE: "true"}
    vote = one(objects, "Deployment", "vote")["spec"]["template"]["spec"]
    (term,) = vote["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [{"key": CONTROL_PLANE, "operator": "DoesNotExist"}]
    assert vote["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"


def test_pods_keep_to_the_restricted_standard(workloads):
    for workload in workloads:
        pod = workload["spec"]["template"]["spec"]
        name = workload["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 10000, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["enableServiceLinks"] is False, name
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
    users = [w["spec"]["template"]["spec"]["securityContext"]["runAsUser"] for w in workloads]
    assert len(set(users)) == len(users)


def test_no_account_gives_its_token_unasked(objects):
    k3s = yaml.safe_load_all((ROOT / "salt/states/k3s/files/accounts.yaml").read_text())
    accounts = [*(o for o in objects if o["kind"] == "ServiceAccount"), *k3s]
    assert all(account["automountServiceAccountToken"] is False for account in accounts)
    ours = {o["metadata"]["name"] for o in objects if o["kind"] == "Namespace"}
    default = {o["metadata"]["namespace"] for o in accounts if o["metadata"]["name"] == "default"}
    # What Kubernetes brings, and what we do.
    assert default == {"default", "kube-node-lease", "kube-public", "kube-system"} | ours


def test_namespaces_are_restricted_but_for_the_one_with_host_ports(objects, workloads):
    """The API server's own default is `restricted` too (salt/states/k3s/files/psa.yaml)."""
    label = "pod-security.kubernetes.io/enforce"
    levels = {
        o["metadata"]["name"]: o["metadata"]["labels"][label]
        for o in objects
        if o["kind"] == "Namespace"
    }
    needed = {
        w["metadata"]["namespace"]
        for w in workloads
        if any("hostPort" in port for c in containers(w) for port in c.get("ports", []))
    }
    assert {name for name, level in levels.items() if level != "restricted"} == needed
    psa = yaml.safe_load((ROOT / "salt/states/k3s/files/psa.yaml").read_text())
    exempt = psa["plugins"][0]["configuration"]["exemptions"]["namespaces"]
    assert not set(exempt) & set(levels)


def test_only_traefik_has_a_token_and_it_reads_what_it_needs(objects, workloads):
    for workload in workloads:
        spec = workload["spec"]["template"]["spec"]
        if workload["metadata"]["name"] == "traefik":
            assert spec["serviceAccountName"] == "traefik"
            assert spec["automountServiceAccountToken"] is True
        else:
            assert spec["automountServiceAccountToken"] is False
    cluster = one(objects, "ClusterRole", "f1-traefik")["rules"]
    rules = [*cluster, *one(objects, "Role", "traefik")["rules"]]
    verbs = {verb for rule in rules for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch", "update"}
    assert [r["resources"] for r in rules if "update" in r["verbs"]] == [["ingresses/status"]]
    # A secret of another namespace is none of its business.
    assert not any("secrets" in rule["resources"] for rule in cluster)


def test_every_container_starts_fast_says_how_it_is_and_asks_little(workloads):
    for name, container in each_container(workloads):
        assert container["startupProbe"]["periodSeconds"] == 1, name
        assert {"readinessProbe", "livenessProbe"} <= set(container), name
        requests = container["resources"]["requests"]
        assert int(requests["cpu"].removesuffix("m")) <= 50, name
        assert int(requests["memory"].removesuffix("Mi")) <= 128, name
        assert "cpu" not in container["resources"].get("limits", {}), name
    for name in ("redis", "vote"):
        (container,) = [c for n, c in each_container(workloads) if n == name]
        ready, alive = container["readinessProbe"], container["livenessProbe"]
        assert ready.get("httpGet") != alive.get("httpGet") or ready.get("exec")


def test_images_are_plain_names_that_the_overlay_replaces(workloads):
    for name, container in each_container(workloads):
        assert container["image"] == name
        assert container["imagePullPolicy"] == "IfNotPresent"


def test_selectors_services_and_ports_meet(objects, workloads):
    for workload in workloads:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        wanted = workload["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= labels.items()
    for service in (o for o in objects if o["kind"] == "Service"):
        (target,) = [
            w
            for w in workloads
            if w["metadata"]["namespace"] == service["metadata"]["namespace"]
            and service["spec"]["selector"].items()
            <= w["spec"]["template"]["metadata"]["labels"].items()
        ]
        named = {port["name"] for c in containers(target) for port in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    for name, container in each_container(workloads):
        named = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            handler = container[probe].get("httpGet") or container[probe].get("tcpSocket")
            assert handler is None or handler["port"] in named, name
    (rule,) = one(objects, "Ingress", "vote")["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    backend = path["backend"]["service"]
    service = one(objects, "Service", backend["name"])
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    budget = one(objects, "PodDisruptionBudget", "vote")["spec"]["selector"]
    assert budget == one(objects, "Deployment", "vote")["spec"]["selector"]


def test_every_volume_that_is_mounted_is_there(workloads):
    for workload in workloads:
        spec = workload["spec"]["template"]["spec"]
        given = {volume["name"] for volume in spec.get("volumes", [])}
        given |= {c["metadata"]["name"] for c in workload["spec"].get("volumeClaimTemplates", [])}
        mounted = {m["name"] for c in spec["containers"] for m in c.get("volumeMounts", [])}
        assert mounted == given


def test_a_vote_is_on_the_disk_before_it_is_acknowledged(objects):
    conf = one(objects, "ConfigMap", "redis")["data"]["redis.conf"]
    settings = dict(
        line.split(maxsplit=1) for line in conf.splitlines() if line and not line.startswith("#")
    )
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"
    redis = one(objects, "StatefulSet", "redis")["spec"]
    assert redis["replicas"] == 1
    (claim,) = redis["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "local-path"
    assert {"name": claim["metadata"]["name"], "mountPath": settings["dir"]} in containers(
        {"spec": redis}
    )[0]["volumeMounts"]
    assert redis["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"


def test_a_rollout_never_leaves_fewer_pods(objects):
    vote = one(objects, "Deployment", "vote")["spec"]
    assert vote["replicas"] == 2
    assert vote["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = vote["template"]["spec"]
    drain = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    env = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
    # Requests under way on two listeners, then five parts that close one after the other.
    ends = int(env["F1_DRAIN_SECONDS"]) + 2 * server.GRACE + 5 * server.PART
    assert pod["terminationGracePeriodSeconds"] > drain + ends
    # Two pods cannot hold one host port: the old one must go first.
    assert one(objects, "Deployment", "traefik")["spec"]["strategy"] == {"type": "Recreate"}


def test_the_app_is_told_what_it_asks_for(objects):
    (container,) = containers(one(objects, "Deployment", "vote"))
    dockerfile = (ROOT / "app" / "Dockerfile").read_text()
    given = {env["name"] for env in container["env"]} | set(re.findall(r"(F1_\w+)=", dockerfile))
    asked = set(re.findall(r'"(F1_\w+)"', (ROOT / "app/f1vote/settings.py").read_text()))
    overlay = set(re.findall(r"F1_\w+", (ROOT / "salt/states/platform/map.jinja").read_text()))
    # Redis has no password yet; the others have good defaults.
    assert given | overlay == asked - {
        "F1_PORT",
        "F1_OPS_PORT",
        "F1_REDIS_PASSWORD_FILE",
    }
    env = {e["name"]: e["value"] for e in container["env"]}
    service = one(objects, "Service", "redis")
    assert env["F1_REDIS_URL"] == f"redis://redis:{service['spec']['ports'][0]['port']}/0"
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "secrets"]
    assert env["F1_COOKIE_KEY_FILE"] == f"{mount['mountPath']}/cookie-key"


def test_no_secret_is_written_down(objects):
    assert not any(o["kind"] == "Secret" for o in objects)


def test_http_is_sent_to_https_and_only_our_namespace_is_watched(objects):
    args = containers(one(objects, "Deployment", "traefik"))[0]["args"]
    assert "--entryPoints.web.http.redirections.entryPoint.scheme=https" in args
    assert "--entryPoints.websecure.http.tls=true" in args
    assert "--providers.kubernetesIngress.namespaces=f1" in args
    assert not any("dashboard" in arg or "insecure" in arg.lower() for arg in args)
    ingress = one(objects, "Ingress", "vote")
    assert (
        ingress["spec"]["ingressClassName"]
        == one(objects, "IngressClass", "traefik")["metadata"]["name"]
    )
