"""One Redis and one service for the whole run; what the service logged goes with every failure."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.register_assert_rewrite("contract", "python_sdk", "service", "signed_http")

from python_sdk import Dcs
from service import (
    Service,
    Unavailable,
    populate,
    populate_lightly,
    running_cachevault,
    running_redis,
    slow_snapshots,
)
from signed_http import Api
from signing import Access, Credential

# Where backups are kept makes no difference to these, which take their time.
collect_ignore = ["test_openstack.py", "test_openapi.py"] if "S3_SERVER" in os.environ else []

INSTANCE_NAME = "shop-cache"
TARGET_NAME = "staging-cache"
LOG = pytest.StashKey[Path]()
LOG_MARK = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def service(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sdk")
    with ExitStack() as stack:
        try:
            found = start(stack, directory, request.config)
        except (Unavailable, AssertionError) as reason:
            # Without it every test would fail of the same thing, and bury it.
            pytest.exit(str(reason), returncode=1)
        yield found


def start(stack, directory, config):
    cachevault = stack.enter_context(running_cachevault(directory / "cachevault"))
    config.stash[LOG] = cachevault.stderr
    redis_port = stack.enter_context(running_redis(directory / "redis"))
    populate(redis_port)
    endpoint = cachevault.wait_ready()
    credentials = cachevault.credentials()
    assert credentials["endpoint"].rstrip("/") == endpoint, "credentials.json and the ready line name one endpoint"
    return Service(
        endpoint=endpoint,
        region=credentials["region"],
        project_id=credentials["project_id"],
        ak=credentials["access_key"],
        sk=credentials["secret_key"],
        instance_id=cachevault.adopt(INSTANCE_NAME, redis_port),
        instance_name=INSTANCE_NAME,
        redis_port=redis_port,
        adopt=cachevault.adopt,
        run=cachevault.run,
    )


@pytest.fixture(scope="session")
def target(service, tmp_path_factory):
    """The service, looked at for a second and small instance, which restores may overwrite."""
    with running_redis(tmp_path_factory.mktemp("target") / "redis") as redis_port:
        populate_lightly(redis_port)
        yield service.with_instance(TARGET_NAME, redis_port)


@pytest.fixture
def slow_snapshot(service):
    with slow_snapshots(service.redis_port, seconds=3):
        yield


@pytest.fixture
def dcs(service):
    return Dcs(service)


@pytest.fixture(params=["Access", "Credential"])
def dialect(request):
    return {"Access": Access(), "Credential": Credential()}[request.param]


@pytest.fixture
def api(service, dialect):
    return Api(service, dialect)


@pytest.fixture
def v2(service, dialect):
    return Api(service, dialect, version="v2")


def pytest_configure():
    """The client library takes proxies from the environment; loopback is never behind one."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"


def pytest_runtest_setup(item):
    log = item.config.stash.get(LOG, None)
    item.config.stash[LOG_MARK] = log.stat().st_size if log else 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    log = item.config.stash.get(LOG, None)
    if report.failed and log:
        said = log.read_bytes()[item.config.stash[LOG_MARK]:].decode(errors="replace")
        report.sections.append(("cachevault stderr since this test began", said or "(nothing)"))
    return report
