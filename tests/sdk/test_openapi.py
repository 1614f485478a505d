"""schemathesis makes requests of the OpenAPI documents: what is answered is always documented, and never a failure."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from service import populate_lightly, running_cachevault, running_redis

PASSWORD = "correct horse battery staple"
DEADLINE = 300.0
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth"
# A stream of events would keep the fuzzer until its end, which is a quarter of an hour away otherwise.
SHORT_STREAMS = ("--event-stream-lifetime", "200ms")
# What parameters of paths are to name, now and then.
CONFIGURATION = """
[parameters]
"path.project_id" = "{project}"
"path.instance_id" = "{instance}"
"path.project" = "{region}"
"""


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """A service of its own, with an instance and a user: the fuzzer deletes what it finds."""
    folder = tmp_path_factory.mktemp("openapi")
    with ExitStack() as stack:
        port = stack.enter_context(running_redis(folder / "redis"))
        populate_lightly(port)
        cachevault = stack.enter_context(running_cachevault(folder / "cachevault", *SHORT_STREAMS))
        endpoint, credentials = cachevault.wait_ready(), cachevault.credentials()
        cachevault.run("user", "create", "fuzzer", "--password-file", "-", given=PASSWORD)
        cachevault.run("user", "grant", "fuzzer", "--project", credentials["project_id"], "--role", "admin")
        instance = cachevault.adopt("fuzzed", port)
        (folder / "schemathesis.toml").write_text(
            CONFIGURATION.format(
                project=credentials["project_id"], instance=instance, region=credentials["region"]
            )
        )
        yield endpoint, token(endpoint, credentials["region"]), folder


def token(endpoint: str, project: str) -> str:
    user = {"name": "fuzzer", "domain": {"name": "Default"}, "password": PASSWORD}
    scope = {"project": {"name": project, "domain": {"name": "Default"}}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    request = Request(f"{endpoint}/v3/auth/tokens", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        return answer.headers["X-Subject-Token"]


# They delete what the others are about.
DELETING = ["DeleteSingleInstance", "BatchDeleteInstances", "RemoveInstance"]


@pytest.mark.parametrize("document", ["dcs-v1.0", "dcs-v2", "cachevault-v1"])
def test_what_is_answered_is_documented(fuzzed, document):
    fuzz(fuzzed, document, 30, [word for name in DELETING for word in ("--exclude-operation-id", name)])


@pytest.mark.parametrize("document", ["dcs-v1.0", "dcs-v2", "cachevault-v1"])
def test_what_is_answered_to_who_deletes_is_documented(fuzzed, document):
    fuzz(fuzzed, document, 10, [word for name in DELETING for word in ("--include-operation-id", name)])


def fuzz(fuzzed, document: str, seconds: int, choice: list[str]) -> None:
    endpoint, token, folder = fuzzed
    command = [
        Path(sys.executable).with_name("st"), "--config-file", folder / "schemathesis.toml", "run",
        f"{endpoint}/openapi/{document}.json", "--checks", CHECKS, "--header", f"X-Auth-Token: {token}",
        "--generation-with-security-parameters", "false", "--max-examples", "12", "--max-time", str(seconds),
        "--request-timeout", "30", "--phases", "examples,coverage,fuzzing", "--generation-database", "none",
        "--seed", "20261122", "--no-color", "--continue-on-failure", *choice,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, cwd=folder)
    (folder / f"{document}-{seconds}.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
