"""One Redis and one service for the whole run; what the service logged goes with every failure."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from service import Redis, Service, Unavailable, populate, running_cachevault, running_redis

INSTANCE_NAME = "shop-cache"
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
    )


@pytest.fixture
def slow_snapshot(service):
    """Makes the server take some three seconds for a snapshot, so that a running backup can be looked at."""
    with Redis(service.redis_port) as redis:
        redis("SELECT", 0)
        keys = redis("DBSIZE")
        redis("CONFIG", "SET", "rdb-key-save-delay", 3_000_000 // keys)
        yield
        redis("CONFIG", "SET", "rdb-key-save-delay", 0)


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
