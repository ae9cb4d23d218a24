"""deploy/kubernetes: built by kubectl, checked by Kubernetes' schemas, and asked what these do not know."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from promql_parser import parse

from inturn.settings import Settings
from tests.deploy.named import FLOWER, options, processes, settings, told_to_workers
from tests.nodes import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
COMPONENT = "app.kubernetes.io/component"

Resource = dict[str, Any]


def build(overlay: str) -> list[Resource]:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("there is no kubectl on this machine")
    done = subprocess.run(
        [program, "kustomize", str(FOLDER / "overlays" / overlay)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def resources(request: pytest.FixtureRequest) -> list[Resource]:
    """All that an overlay makes."""
    return build(request.param)


def of(resources: list[Resource], *kinds: str) -> Iterator[tuple[str, Resource]]:
    for resource in resources:
        if resource["kind"] in kinds:
            yield resource["metadata"]["name"], resource


def pods(resources: list[Resource]) -> dict[str, Resource]:
    """The templates of pods, by the names of what makes them."""
    return {name: made["spec"]["template"] for name, made in of(resources, "Deployment", "Job")}


def containers(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    for name, pod in pods(resources).items():
        for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
            yield f"{name}: {container['name']}", container


def matches(labels: dict[str, str], selector: Resource) -> bool:
    wanted = selector.get("matchLabels", {})
    some = [(each["key"], each["values"]) for each in selector.get("matchExpressions", ())]
    return wanted.items() <= labels.items() and all(labels.get(key) in values for key, values in some)


def test_it_is_what_kubernetes_takes(resources: list[Resource]) -> None:
    for resource in resources:
        if resource["kind"] not in ("ScaledObject", "PodMonitor"):  # they come with what reads them
            kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_there_is_a_deployment_for_each_process(resources: list[Resource]) -> None:
    assert {name for name, _ in of(resources, "Deployment")} == {f"inturn-{name}" for name in processes()}
    assert [name for name, _ in of(resources, "Job")] == ["inturn-migrate"]


def test_workers_take_the_queues_they_take_by_the_procfile(resources: list[Resource]) -> None:
    for name in ("worker", "delivery", "maintenance"):
        in_procfile = told_to_workers(name)
        here = options(pods(resources)[f"inturn-{name}"]["spec"]["containers"][0]["args"])
        for option in ("queues", "pool", "hostname", "task-events", "without-gossip", "without-mingle"):
            assert here[option] == in_procfile[option], (name, option)


def test_all_names_that_are_named_are_there(resources: list[Resource]) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in resources}
    example = yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text())
    there |= {("Secret", secret["metadata"]["name"]) for secret in example}
    named = set()
    for pod in pods(resources).values():
        named.add(("ServiceAccount", pod["spec"]["serviceAccountName"]))
        for volume in pod["spec"]["volumes"]:
            named |= {("Secret", volume["secret"]["secretName"])} if "secret" in volume else set()
            claim = volume.get("persistentVolumeClaim")
            named |= {("PersistentVolumeClaim", claim["claimName"])} if claim else set()
    for _, container in containers(resources):
        named |= {("ConfigMap", each["configMapRef"]["name"]) for each in container.get("envFrom", ())}
    for _, scaled in of(resources, "ScaledObject"):
        named.add(("Deployment", scaled["spec"]["scaleTargetRef"]["name"]))
    for _, ingress in of(resources, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            named |= {("Service", path["backend"]["service"]["name"]) for path in rule["http"]["paths"]}
    assert named <= there


def test_volumes_and_ports_that_are_named_are_there(resources: list[Resource]) -> None:
    for name, pod in pods(resources).items():
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        every = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
        assert {mount["name"] for each in every for mount in each["volumeMounts"]} == volumes, name
        for container in every:
            ports = {port["name"] for port in container.get("ports", ())}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container.get(probe, {}).get("httpGet", {"port": None})["port"]
                assert asked is None or asked in ports, f"{name}: {probe}"


def test_selectors_choose_pods_that_there_are_and_their_ports(resources: list[Resource]) -> None:
    made = [(pod["metadata"]["labels"], pod["spec"]["containers"][0]) for pod in pods(resources).values()]

    def chosen(selector: Resource) -> list[Resource]:
        return [container for labels, container in made if matches(labels, selector)]

    for name, deployment in of(resources, "Deployment"):
        assert len(chosen(deployment["spec"]["selector"])) == 1, name
    for name, budget in of(resources, "PodDisruptionBudget"):
        assert len(chosen(budget["spec"]["selector"])) == 1, name
    for name, service in of(resources, "Service"):
        [container] = chosen({"matchLabels": service["spec"]["selector"]})
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, name
    for _, monitor in of(resources, "PodMonitor"):
        for container in chosen(monitor["spec"]["selector"]):
            ports = {port["name"] for port in container["ports"]}
            assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports
    for name, policy in of(resources, "NetworkPolicy"):
        assert chosen(policy["spec"]["podSelector"]), name
        ports = {
            value
            for each in chosen(policy["spec"]["podSelector"])
            for port in each.get("ports", ())
            for value in port.values()
        }
        for rule in policy["spec"].get("ingress", ()):
            assert {port["port"] for port in rule["ports"]} <= ports, name
    services = dict(of(resources, "Service"))
    for _, ingress in of(resources, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                ports = {port["name"] for port in services[service["name"]]["spec"]["ports"]}
                assert service["port"]["name"] in ports


def test_pods_have_few_rights(resources: list[Resource]) -> None:
    for name, pod in pods(resources).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, name
    for name, container in containers(resources):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
        assert "memory" in container["resources"]["limits"], name
    [(_, namespace)] = of(resources, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_user_is_that_of_the_image(resources: list[Resource]) -> None:
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.M)
    assert user
    for name, pod in pods(resources).items():
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (int(user[1]), int(user[2])), name


def test_a_worker_is_given_the_time_that_a_turn_may_take(resources: list[Resource]) -> None:
    worker = pods(resources)["inturn-worker"]["spec"]

    assert worker["terminationGracePeriodSeconds"] > Settings.model_fields["turn_seconds"].default


def test_all_but_beat_are_probed_and_workers_by_whether_they_take_messages(resources: list[Resource]) -> None:
    for name, deployment in of(resources, "Deployment"):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        probes = {probe for probe in container if probe.endswith("Probe")}
        if name == "inturn-beat":
            assert probes == set()
        elif name in ("inturn-worker", "inturn-delivery", "inturn-maintenance"):
            assert probes == {"startupProbe", "livenessProbe"}
            command = container["livenessProbe"]["exec"]["command"]
            assert command[:5] == ["inturn", "doctor", "--canary", "--worker", "self"]
            asked = float(command[command.index("--timeout") + 1])
            assert container["livenessProbe"]["timeoutSeconds"] > asked + 10  # for its own start
        else:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} == probes


def test_there_is_one_beat(resources: list[Resource]) -> None:
    for name in ("inturn-beat", "inturn-flower"):
        spec = dict(of(resources, "Deployment"))[name]["spec"]
        assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_nothing_reaches_anything_unless_it_is_said(resources: list[Resource]) -> None:
    policies = dict(of(resources, "NetworkPolicy"))
    denied = policies.pop("inturn-deny-all")["spec"]
    assert set(denied["policyTypes"]) == {"Ingress", "Egress"}
    assert not denied.keys() & {"ingress", "egress"}
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(resources).items()}
    for one in labels.values():
        assert matches(one, denied["podSelector"])
    for name, policy in policies.items():
        spec = policy["spec"]
        for rule in [*spec.get("ingress", ()), *spec.get("egress", ())]:
            assert rule["ports"], name
        assert ("ingress" in spec) == ("Ingress" in spec["policyTypes"]), name
        assert ("egress" in spec) == ("Egress" in spec["policyTypes"]), name

    def reaches(port: int) -> set[str]:
        found = set()
        for policy in policies.values():
            ports = [p["port"] for rule in policy["spec"].get("egress", ()) for p in rule["ports"]]
            found |= {
                n
                for n, one in labels.items()
                if port in ports and matches(one, policy["spec"]["podSelector"])
            }
        return {name.removeprefix("inturn-") for name in found}

    assert reaches(6379) == {"web", "worker", "delivery", "maintenance", "beat", "flower"}
    assert reaches(5432) == {"web", "worker", "delivery", "maintenance", "migrate"}
    assert reaches(443) == {"web", "worker", "delivery"}
    opened = [p["spec"]["podSelector"] for p in policies.values() if "ingress" in p["spec"]]
    assert not any(matches(labels["inturn-flower"], selector) for selector in opened)


def test_secrets_are_named_and_not_there(resources: list[Resource]) -> None:
    assert list(of(resources, "Secret")) == []
    for name, container in containers(resources):
        for variable in container.get("env", ()):
            assert not re.search(r"PASSWORD|SECRET|TOKEN|KEY|AUTH|URL", variable["name"]), name
    example = (FOLDER / "secrets.example.yaml").read_text()
    for _, _, password in re.findall(r"://(\w+):((?!SET-ME))([^@]*)@", example):
        pytest.fail(f"{password!r} looks like a real one")


def test_only_what_erases_and_deletes_has_the_rights_for_it(resources: list[Resource]) -> None:
    example = yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text())
    users = {
        secret["metadata"]["name"]: secret["stringData"].get("REDIS_URL", "").partition(":SET-ME")[0]
        for secret in example
    }
    read = {
        name: volume["secret"]["secretName"]
        for name, pod in pods(resources).items()
        for volume in pod["spec"]["volumes"]
        if "secret" in volume
    }

    more = {name for name, secret in read.items() if users[secret] == "rediss://maintenance"}
    assert more == {"inturn-maintenance"}
    assert read["inturn-delivery"] == read["inturn-worker"] == "inturn-worker"


def test_all_variables_are_settings(resources: list[Resource]) -> None:
    known = settings() | FLOWER
    for _, config in of(resources, "ConfigMap"):
        assert set(config["data"]) <= known
    for name, container in containers(resources):
        assert {variable["name"] for variable in container.get("env", ())} <= known, name
    for secret in yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text()):
        assert set(secret["stringData"]) <= known


def test_secrets_are_where_the_processes_look_for_them(resources: list[Resource]) -> None:
    [folder] = {
        c["data"]["INTURN_SECRETS_DIR"]
        for _, c in of(resources, "ConfigMap")
        if "INTURN_SECRETS_DIR" in c["data"]
    }
    for name, container in containers(resources):
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts["secrets"]["mountPath"] == folder, name


def test_keda_counts_what_waits() -> None:
    made = build("production")
    workers = dict(of(made, "Deployment"))
    for name, scaled in of(made, "ScaledObject"):
        assert "replicas" not in workers[name]["spec"], "each apply would set back what KEDA has scaled"
        [trigger] = scaled["spec"]["triggers"]
        parse(trigger["metadata"]["query"])
        slots = int(
            options(workers[name]["spec"]["template"]["spec"]["containers"][0]["args"])["concurrency"]
        )
        assert float(trigger["metadata"]["threshold"]) < slots
        assert scaled["spec"]["minReplicaCount"] >= 2
    queries = [scaled["spec"]["triggers"][0]["metadata"]["query"] for _, scaled in of(made, "ScaledObject")]
    sources = "".join(
        path.read_text() for folder in ("src", "producer", "worker") for path in (ROOT / folder).rglob("*.py")
    )
    for metric in re.findall(r"inturn_\w+", " ".join(queries)):
        assert f'"{metric}"' in sources
