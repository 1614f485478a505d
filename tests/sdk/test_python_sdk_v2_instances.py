"""Instances, what a project has of them, and what is on offer, by the unmodified huaweicloudsdkdcs v2 client."""

from contextlib import contextmanager
from datetime import datetime, timezone

import pytest
from huaweicloudsdkdcs.v2 import (
    BackupInstanceBody,
    BackupPlan,
    BackupPolicy,
    BatchCreateOrDeleteTagsRequest,
    BatchDeleteBody,
    BatchDeleteInstancesRequest,
    ChangeInstanceStatusBody,
    CreateInstanceBody,
    CreateInstanceRequest,
    CreateOrDeleteInstanceTags,
    DeleteSingleInstanceRequest,
    ListAvailableZonesRequest,
    ListConfigurationsRequest,
    ListFlavorsRequest,
    ListMaintenanceWindowsRequest,
    ListNumberOfInstancesInDifferentStatusRequest,
    ListStatisticsOfRunningInstancesRequest,
    ListTagsOfTenantRequest,
    ModifyInstanceBody,
    ModifyIpWhitelistBody,
    ModifyRedisConfigBody,
    ResourceTag,
    RestartOrFlushInstancesRequest,
    ShowIpWhitelistRequest,
    ShowJobInfoRequest,
    ShowQuotaOfTenantRequest,
    ShowTagsRequest,
    UpdateConfigurationsRequest,
    UpdateInstanceRequest,
    UpdateIpWhitelistRequest,
)

from contract import PAGE_MAX, assert_uuid, parse_time, unknown_uuid
from python_sdk import Dcs, refused
from service import Redis, contents, populate_lightly, running_redis

pytestmark = pytest.mark.filterwarnings("error::huaweicloudsdkcore.warning.warning.TypeConversionWarning")

SPARE_NAME = "spare-cache"
SPEC_CODE = "redis.ha.xu1.tiny.r2.128"
ZONES = ["cachevault-1", "cachevault-2", "cachevault-3"]
# As ISO counts the days of the week; neither today nor tomorrow, so that no backup begins by itself.
PLAN_DAYS = sorted((datetime.now(timezone.utc).isoweekday() + ahead - 1) % 7 + 1 for ahead in (2, 5))
# What the service sees by itself at any time.
OBSERVED = {"used_memory", "updated_at", "update_at"}
TAGS = {"team": "shop", "stage": "test"}


@pytest.fixture(scope="module")
def spare_redis(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("spare") / "redis") as port:
        populate_lightly(port)
        yield port


@pytest.fixture
def spare(service, spare_redis):
    """The client, looking at an instance that is the test's own."""
    with adopted(service, SPARE_NAME, spare_redis) as dcs:
        yield dcs


@pytest.fixture
def other(service, spare_redis):
    """The same server, adopted a second time."""
    with adopted(service, "other-cache", spare_redis) as dcs:
        yield dcs


@contextmanager
def adopted(service, name, redis_port):
    """Gone afterwards, as its server will be."""
    dcs = Dcs(service.with_instance(name, redis_port))
    try:
        yield dcs
    finally:
        if found(dcs, instance_id=dcs.instance_id):
            dcs.wait_idle()
            delete(dcs)


def delete(dcs, instance_id=None):
    return dcs.client.delete_single_instance(DeleteSingleInstanceRequest(instance_id or dcs.instance_id))


def delete_many(dcs, *instance_ids):
    body = BatchDeleteBody(list(instance_ids))
    results = dcs.client.batch_delete_instances(BatchDeleteInstancesRequest(body=body)).results
    return [(result.instance, result.result) for result in results]


def update(dcs, instance_id=None, **changes):
    body = ModifyInstanceBody(**changes)
    return dcs.client.update_instance(UpdateInstanceRequest(instance_id or dcs.instance_id, body))


def change_tags(dcs, action, tags, instance_id=None):
    body = CreateOrDeleteInstanceTags(action, [ResourceTag(key, value) for key, value in tags.items()])
    request = BatchCreateOrDeleteTagsRequest(instance_id or dcs.instance_id, body)
    return dcs.client.batch_create_or_delete_tags(request)


def shown_tags(dcs, instance_id=None):
    tags = dcs.client.show_tags(ShowTagsRequest(instance_id or dcs.instance_id)).tags
    return {tag.key: tag.value for tag in tags}


def project_tags(dcs):
    tags = dcs.client.list_tags_of_tenant(ListTagsOfTenantRequest()).tags
    return {tag.key: tag.values for tag in tags}


def found(dcs, **query):
    """The ids of the instances that match, which `instance_num` counts."""
    response = dcs.instances(**{"limit": PAGE_MAX, **query})
    assert (response.status_code, response.instance_num) == (200, len(response.instances))
    return [instance.instance_id for instance in response.instances]


def settings(dcs):
    return {key: value for key, value in dcs.shown().items() if key not in OBSERVED}


def automatic(**changes):
    plan = BackupPlan(timezone_offset="+08:00", backup_at=PLAN_DAYS, period_type="weekly", begin_at="02:00-03:00")
    return BackupPolicy(**{"backup_type": "auto", "save_days": 3, "periodical_backup_plan": plan, **changes})


# Create


def test_instance_is_not_made(dcs):
    """Servers are adopted, and what says so is not in the client's model."""
    before = dcs.instances().instance_num
    body = CreateInstanceBody(
        name="x", engine="Redis", engine_version="5.0", capacity=0.125, spec_code=SPEC_CODE,
        az_codes=ZONES[:1], vpc_id="v", subnet_id="s",
    )
    with refused(400, "DCS.4027"):
        dcs.client.create_instance(CreateInstanceRequest(body=body))
    assert dcs.instances().instance_num == before


# Change


def test_changes_are_shown(spare):
    before, changed_before = settings(spare), spare.shown()["update_at"]
    changes = {
        "name": "renamed-cache", "description": "Zwischenspeicher 缓存",
        "maintain_begin": "22:00:00", "maintain_end": "02:00:00",
    }
    changed = update(spare, **changes)
    assert (changed.status_code, spare.seen[-1].content) == (204, b"")

    shown = spare.instance()
    assert (shown.name, shown.description) == ("renamed-cache", "Zwischenspeicher 缓存")
    assert (shown.maintain_begin, shown.maintain_end) == ("22:00:00", "02:00:00")
    assert settings(spare) == {**before, **changes}, "what is left out stays as it is"
    assert spare.shown()["update_at"] > changed_before
    assert found(spare, name="renamed-cache", name_equal="true") == [spare.instance_id]
    assert found(spare, name=SPARE_NAME) == []

    update(spare, description="")
    assert spare.instance().description is None
    assert spare.instance().name == "renamed-cache"


def test_backup_policy_is_shown(spare, service):
    assert spare.instance().instance_backup_policy is None
    assert update(spare, instance_backup_policy=automatic()).status_code == 204

    stored = spare.instance().instance_backup_policy
    assert_uuid(stored.backup_policy_id)
    assert stored.tenant_id == service.project_id
    assert parse_time(stored.created_at) <= parse_time(stored.updated_at)
    assert (stored.policy.backup_type, stored.policy.save_days) == ("auto", 3)
    assert_plan(stored.policy.periodical_backup_plan)

    update(spare, instance_backup_policy=BackupPolicy(backup_type="manual"))
    after = spare.instance().instance_backup_policy
    assert after.policy.backup_type == "manual"
    assert_plan(after.policy.periodical_backup_plan)
    assert (after.backup_policy_id, after.created_at) == (stored.backup_policy_id, stored.created_at)
    assert spare.list().total_num == 0


def assert_plan(plan):
    assert (plan.begin_at, plan.period_type, plan.backup_at) == ("02:00-03:00", "weekly", PLAN_DAYS)
    assert plan.timezone_offset is None, "taken and not used"


@pytest.mark.parametrize("changes, code", [
    ({"instance_backup_policy": automatic(save_days=9)}, "DCS.4072"),
    ({"instance_backup_policy": automatic(backup_type="hourly")}, "DCS.4073"),
    ({"port": 6380}, "DCS.4027"),
], ids=["save-days", "backup-type", "port"])
def test_bad_change_is_refused_and_changes_nothing(spare, changes, code):
    before = settings(spare)
    with refused(400, code):
        update(spare, description="refused", **changes)
    assert settings(spare) == before


# Delete


def test_deleted_instance_is_gone_with_its_backups_but_not_its_data(spare, spare_redis):
    data = contents(spare_redis)
    spare.backup(BackupInstanceBody(remark="goes too"))
    spare.wait_idle()

    gone = delete(spare)
    assert (gone.status_code, spare.seen[-1].content) == (204, b"")
    for call in (spare.instance, spare.list, lambda: delete(spare)):
        with refused(404, "DCS.3022"):
            call()
    assert found(spare, instance_id=spare.instance_id) == []
    assert found(spare, instance_id=spare.instance_id, include_delete="true") == []
    assert contents(spare_redis) == data


def test_each_of_many_is_deleted_for_itself(spare, other):
    unknown = unknown_uuid()
    expected = [(spare.instance_id, "success"), (unknown, "failed"), (other.instance_id, "success")]
    assert delete_many(spare, spare.instance_id, unknown, other.instance_id) == expected
    for dcs in (spare, other):
        with refused(404, "DCS.3022"):
            dcs.instance()
    assert delete_many(spare, spare.instance_id) == [(spare.instance_id, "failed")]


def test_no_instance_failed_to_be_created(dcs):
    before = dcs.instances().instance_num
    response = dcs.client.batch_delete_instances(BatchDeleteInstancesRequest(all_failure=True))
    assert (response.status_code, response.results) == (200, [])
    named = BatchDeleteInstancesRequest(all_failure=True, body=BatchDeleteBody([dcs.instance_id]))
    assert dcs.client.batch_delete_instances(named).results == [], "those that failed alone are meant"
    assert dcs.instances().instance_num == before


@pytest.mark.parametrize("body, code", [
    (None, "DCS.4004"),
    (BatchDeleteBody(), "DCS.4063"),
    (BatchDeleteBody([]), "DCS.4063"),
    (BatchDeleteBody([unknown_uuid() for _ in range(51)]), "DCS.4063"),
    (BatchDeleteBody(["not-a-uuid"]), "DCS.4061"),
], ids=["no-body", "empty-object", "none", "51", "malformed"])
def test_bad_deletion_of_many_is_refused(dcs, body, code):
    with refused(400, code):
        dcs.client.batch_delete_instances(BatchDeleteInstancesRequest(body=body))


# Tags


def test_tags_come_and_go(spare):
    assert shown_tags(spare) == {}
    assert not TAGS.keys() & project_tags(spare).keys()

    made = change_tags(spare, "create", TAGS)
    assert (made.status_code, spare.seen[-1].content) == (204, b"")
    assert shown_tags(spare) == TAGS
    assert {tag.key: tag.value for tag in spare.instance().tags} == TAGS
    assert {key: project_tags(spare)[key] for key in TAGS} == {key: [value] for key, value in TAGS.items()}

    change_tags(spare, "create", {"stage": "live"})
    assert shown_tags(spare) == {**TAGS, "stage": "live"}, "a key has one value"

    change_tags(spare, "delete", {"team": "shop"})
    assert shown_tags(spare) == {"stage": "live"}
    change_tags(spare, "delete", {"stage": None})
    assert shown_tags(spare) == {}
    assert not TAGS.keys() & project_tags(spare).keys()


def test_a_key_is_listed_once_with_all_values(spare, other):
    change_tags(spare, "create", {"team": "web"})
    change_tags(other, "create", TAGS)
    assert project_tags(spare)["team"] == ["shop", "web"]
    delete(spare)
    assert project_tags(other)["team"] == ["shop"]


# List


def test_instances_are_filtered_by_status(spare):
    running = found(spare, status="RUNNING")
    assert spare.instance_id in running
    assert found(spare, status="Running") == running
    assert found(spare, status="CREATING") == [], "a status of the cloud that no instance here is ever in"
    assert spare.instance_id not in found(spare, status="RESTORING")


def test_instances_are_filtered_by_tags(spare, other):
    change_tags(spare, "create", TAGS)
    change_tags(other, "create", {"team": "search", "stage": "test"})
    assert sorted(found(spare, tags="stage=test")) == sorted([spare.instance_id, other.instance_id])
    for tags in ("team=shop", "team=shop,stage=test"):
        assert found(spare, tags=tags) == [spare.instance_id], tags
    for tags in ("team=web", "team=shop,stage=live", "region=eu"):
        assert found(spare, tags=tags) == [], tags


def test_instances_are_filtered_by_address(spare):
    assert spare.instance_id in found(spare, ip="127.0.0.1")
    assert found(spare, ip="192.0.2.1") == []


@pytest.mark.parametrize("name", ["include_failure", "include_delete"])
def test_nothing_failed_or_deleted_is_ever_listed(spare, name):
    everything = found(spare)
    for wanted in ("true", "false"):
        assert found(spare, **{name: wanted}) == everything


@pytest.mark.parametrize("query", [
    {"status": "happy"},
    {"include_failure": "maybe"},
    {"include_delete": "maybe"},
    {"tags": "\0"},
], ids=lambda query: next(iter(query)))
def test_filter_that_says_nothing_is_refused(dcs, query):
    with refused(400, "DCS.4062"):
        dcs.instances(**query)


# Figures


def test_statuses_are_counted(spare):
    request = ListNumberOfInstancesInDifferentStatusRequest(include_failure="true")
    response = spare.client.list_number_of_instances_in_different_status(request)
    assert response.running_count == spare.instances(status="RUNNING").instance_num >= 2
    counts = response.to_json_object()
    redis, memcached = counts.pop("redis"), counts.pop("memcached")
    assert redis == counts, "all of ours count as Redis"
    assert counts.keys() == memcached.keys() and set(memcached.values()) == {0}
    assert sum(counts.values()) == spare.instances().instance_num


def test_statistics_are_of_each_instance(spare, dcs, spare_redis):
    response = spare.client.list_statistics_of_running_instances(ListStatisticsOfRunningInstancesRequest())
    figures = {figure.instance_id: figure for figure in response.statistics}
    assert len(figures) == len(response.statistics) == spare.instances().instance_num
    assert figures[dcs.instance_id].keys > 0
    figure = figures[spare.instance_id]
    with Redis(spare_redis) as redis:
        assert figure.keys == redis("DBSIZE")
    assert 0 < figure.used_memory <= figure.max_memory
    assert (figure.cmd_get_count, figure.cmd_set_count) == (0, 0)
    assert (figure.used_cpu, figure.input_kbps, figure.output_kbps) == ("0.0", "0.0", "0.0")


def test_quota_has_two_resources(spare):
    response = spare.client.show_quota_of_tenant(ShowQuotaOfTenantRequest())
    instances, memory = response.quotas.resources
    assert (instances.type, instances.unit, memory.type, memory.unit) == ("instance", "", "ram", "GB")
    assert instances.used == spare.instances().instance_num
    for resource in (instances, memory):
        assert 0 < resource.used < resource.quota == resource.max


# What an instance has not


def test_settings_are_not_shown(dcs):
    response = dcs.client.list_configurations(ListConfigurationsRequest(dcs.instance_id))
    assert (response.status_code, response.instance_id, response.redis_config) == (200, dcs.instance_id, [])
    assert (response.config_status, response.status) == ("SUCCESS", "RUNNING")


def test_nobody_is_kept_out(dcs):
    response = dcs.client.show_ip_whitelist(ShowIpWhitelistRequest(dcs.instance_id))
    assert (response.status_code, response.instance_id) == (200, dcs.instance_id)
    assert (response.enable_whitelist, response.whitelist) == (False, [])


@pytest.mark.parametrize("call", [
    lambda client, instance_id: client.show_job_info(ShowJobInfoRequest(unknown_uuid())),
    lambda client, instance_id: client.restart_or_flush_instances(
        RestartOrFlushInstancesRequest(ChangeInstanceStatusBody([instance_id], "restart"))),
    lambda client, instance_id: client.update_configurations(
        UpdateConfigurationsRequest(instance_id, ModifyRedisConfigBody([]))),
    lambda client, instance_id: client.update_ip_whitelist(
        UpdateIpWhitelistRequest(instance_id, ModifyIpWhitelistBody(instance_id, False, []))),
], ids=["jobs", "restart", "change-configurations", "change-whitelist"])
def test_what_is_not_done_here_is_not_published(spare, call):
    with refused(404, "APIGW.0101"):
        call(spare.client, spare.instance_id)
    assert set(spare.seen[-1].json()) == {"error_msg", "error_code", "request_id"}


# Offers


def test_specifications_are_listed(dcs):
    response = dcs.client.list_flavors(ListFlavorsRequest())
    [flavor] = response.flavors
    assert (flavor.spec_code, flavor.engine, flavor.cache_mode) == (SPEC_CODE, "redis", "ha")
    assert (flavor.capacity, flavor.replica_count, flavor.is_dec) == (["0.125"], 2, False)
    [zones] = flavor.flavors_available_zones
    assert (zones.capacity, zones.unit, zones.az_codes) == ("0.125", "GB", ZONES)
    assert dcs.client.list_flavors(ListFlavorsRequest(spec_code=SPEC_CODE, engine="Redis")).flavors == response.flavors


def test_maintenance_windows_are_the_hours_of_the_day(dcs):
    windows = dcs.client.list_maintenance_windows(ListMaintenanceWindowsRequest()).maintain_windows
    assert [window.seq for window in windows] == list(range(1, 25))
    hours = [(f"{hour:02}", f"{(hour + 1) % 24:02}") for hour in range(24)]
    assert [(window.begin, window.end) for window in windows] == hours
    assert [window.begin for window in windows if window.default] == ["02"]


def test_zones_are_of_the_region(dcs, service):
    response = dcs.client.list_available_zones(ListAvailableZonesRequest())
    assert response.region_id == service.region
    zones = response.available_zones
    assert [(zone.id, zone.code, zone.name) for zone in zones] == [(zone, zone, zone) for zone in ZONES]
    assert {(zone.port, zone.resource_availability) for zone in zones} == {("443", "true")}


# Refusals


@pytest.mark.parametrize("call", [
    lambda dcs, unknown: update(dcs, unknown, description="x"),
    lambda dcs, unknown: delete(dcs, unknown),
    lambda dcs, unknown: change_tags(dcs, "create", TAGS, unknown),
    lambda dcs, unknown: shown_tags(dcs, unknown),
    lambda dcs, unknown: dcs.client.list_configurations(ListConfigurationsRequest(unknown)),
    lambda dcs, unknown: dcs.client.show_ip_whitelist(ShowIpWhitelistRequest(unknown)),
], ids=["update", "delete", "change-tags", "show-tags", "configurations", "whitelist"])
def test_unknown_instance_is_refused(dcs, call):
    with refused(404, "DCS.3022"):
        call(dcs, unknown_uuid())
    with refused(400, "DCS.4061"):
        call(dcs, "not-a-uuid")
