"""`openstack` of PyPI with the DCS commands of otcextensions, and their SDK: unmodified, by password and by token."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

PASSWORD = "correct horse battery staple"
USER = "ops"
DEADLINE = 60.0


@pytest.fixture(scope="module")
def signed_in(service):
    """The variables by which the clients sign in as a user who may do everything in the project."""
    service.run("user", "create", USER, "--password-file", "-", given=PASSWORD)
    service.run("user", "grant", USER, "--project", service.project_id, "--role", "admin")
    return {
        "OS_AUTH_URL": f"{service.endpoint}/v3",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_USERNAME": USER,
        "OS_PASSWORD": PASSWORD,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_PROJECT_NAME": service.region,
        "OS_REGION_NAME": service.region,
    }


@pytest.fixture
def openstack(signed_in):
    program = Path(sys.executable).with_name("openstack")

    def run(*words: str, fails: bool = False):
        command = [program, *words] if fails or "delete" in words else [program, *words, "-f", "json"]
        environment = {**os.environ, **signed_in}
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environment)
        assert (done.returncode != 0) == fails, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr if fails else json.loads(done.stdout or "null")

    return run


@pytest.fixture(params=["password", "token"])
def dcs(request, service, signed_in):
    """The SDK beneath the commands; with a token that was given to the password before."""
    import openstack as sdk
    from otcextensions import sdk as otc

    def connect(**auth):
        connection = sdk.connection.Connection(region_name=service.region, **auth)
        otc.register_otc_extensions(connection)
        return connection

    common = {
        "auth_url": signed_in["OS_AUTH_URL"],
        "project_name": service.region,
        "project_domain_name": "Default",
    }
    by_password = connect(auth={**common, "username": USER, "password": PASSWORD, "user_domain_name": "Default"})
    if request.param == "password":
        return by_password.dcs
    token = by_password.session.get_token()
    return connect(auth_type="v3token", auth={**common, "token": token}).dcs


def settled(openstack, instance: str, newest: str, kind: str) -> dict:
    """The record of this id, once it has ended."""
    words = ("dcs", "instance", kind, "list", instance)
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        record = next(row for row in openstack(*words) if row["id"] == newest)
        if record["status"] in ("succeed", "failed"):
            return record
    raise AssertionError(f"{kind} {newest} does not end")


def test_instances_are_listed_and_shown(service, openstack):
    listed = openstack("dcs", "instance", "list")
    assert service.instance_id in [row["id"] for row in listed]
    # A list with a limit goes on behind the last of its page until there is no more.
    assert [row["id"] for row in openstack("dcs", "instance", "list", "--limit", "1")] == [row["id"] for row in listed]
    exact = openstack("dcs", "instance", "list", "--name", service.instance_name, "--exact_match", "--include_failure")
    assert [row["name"] for row in exact] == [service.instance_name]
    for name_or_id in (service.instance_name, service.instance_id):
        shown = openstack("dcs", "instance", "show", name_or_id)
        assert (shown["id"], shown["status"], shown["port"]) == (service.instance_id, "RUNNING", service.redis_port)


def test_an_instance_is_set(service, target, openstack):
    # Neither today nor tomorrow: nothing is backed up by itself meanwhile.
    day = (datetime.now(UTC).isoweekday() + 2) % 7 + 1
    policy = {
        "save_days": 3,
        "backup_type": "auto",
        "periodical_backup_plan": {"begin_at": "02:00-03:00", "period_type": "weekly", "backup_at": [day]},
    }
    openstack(
        "dcs", "instance", "set", target.instance_id, "--description", "what the shop keeps",
        "--maintain_begin", "22:00:00", "--maintain_end", "02:00:00", "--backup_policy", json.dumps(policy),
    )
    shown = openstack("dcs", "instance", "show", target.instance_id)
    assert shown["description"] == "what the shop keeps"
    assert (shown["maintain_begin"], shown["maintain_end"]) == ("22:00:00", "02:00:00")
    stored = service.run("instance", "show", target.instance_name)["policy"]
    assert (stored["days"], stored["window"]) == ([day], "02:00-03:00"), stored
    openstack("dcs", "instance", "set", target.instance_id, "--backup_policy", json.dumps({"backup_type": "manual"}))


def test_backups_and_restores(service, target, openstack):
    made = openstack("dcs", "instance", "backup", "create", target.instance_name, "--description", "before the sale")
    assert settled(openstack, target.instance_name, made["id"], "backup")["status"] == "succeed"
    restored = openstack("dcs", "instance", "backup", "restore", target.instance_name, "--backup", made["id"])
    assert settled(openstack, target.instance_name, restored["id"], "restore")["status"] == "succeed"


def test_figures(service, openstack):
    assert len(openstack("dcs", "quota", "list")) == 2
    statistics = {row["instance_id"]: row for row in openstack("dcs", "stat", "list")}
    assert statistics[service.instance_id]["used_memory"] > 0
    openstack("dcs", "instance", "params", "list", service.instance_name)


def test_a_wrong_password_is_refused(service, openstack, signed_in):
    words = ("--os-password", "wrong", "dcs", "instance", "list")
    assert "401" in openstack(*words, fails=True)


def test_the_sdk(service, dcs):
    assert service.instance_id in [instance.id for instance in dcs.instances()]
    found = dcs.find_instance(service.instance_name)
    assert found.id == service.instance_id
    assert len(list(dcs.availability_zones())) == 3
    assert len(list(dcs.maintenance_time_windows())) == 24
    assert list(dcs.service_specifications())
    assert len(list(dcs.quotas())) == 2
    names = [backup.name for backup in dcs.backups({"id": found.id})]
    assert all(name.startswith("backup_") for name in names)
