"""Finding the project and signing in, as unmodified clients do."""

import requests
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkdcs.v2 import DcsClient, ListInstancesRequest


def test_client_without_a_project_id_finds_the_project_by_its_region(service, monkeypatch):
    monkeypatch.setenv("HUAWEICLOUD_SDK_IAM_ENDPOINT", service.endpoint)
    client = (
        DcsClient.new_builder()
        .with_credentials(BasicCredentials(service.ak, service.sk))
        .with_region(Region(service.region, service.endpoint))
        .build()
    )
    found = client.list_instances(ListInstancesRequest(name=service.instance_name))
    assert [instance.instance_id for instance in found.instances] == [service.instance_id]


def test_version_document_leads_to_keystone(service):
    version = requests.get(f"{service.endpoint}/v3", timeout=30).json()["version"]
    assert version["id"].startswith("v3.")
    assert version["links"][0]["href"] == f"{service.endpoint}/v3/"
