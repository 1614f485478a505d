"""The unmodified huaweicloudsdkdcs v2 client, with the short names the tests read by."""

from contextlib import contextmanager

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.http_handler import HttpHandler
from huaweicloudsdkdcs.v2 import (
    CopyInstanceRequest,
    DcsClient,
    DeleteBackupFileRequest,
    DownloadBackupFilesReq,
    ListBackupFileLinksRequest,
    ListBackupRecordsRequest,
    ListInstancesRequest,
    ListRestoreRecordsRequest,
    RestoreInstanceRequest,
    ShowInstanceRequest,
)

from contract import (
    PAGE_MAX,
    assert_list_envelope,
    assert_pending,
    assert_published_message,
    assert_restore_list_envelope,
    assert_restore_pending,
    follow,
    is_idle,
    wait_until,
)


class Dcs:
    """The client's calls; every response is kept as it came."""

    def __init__(self, service, secret_key=None):
        self.instance_id = service.instance_id
        self.seen = []
        self.client = (
            DcsClient.new_builder()
            .with_credentials(BasicCredentials(service.ak, secret_key or service.sk, service.project_id))
            .with_http_handler(HttpHandler().add_response_handler(lambda response, **_: self.seen.append(response)))
            .with_endpoint(service.endpoint)
            .build()
        )

    def instances(self, **query):
        return self.client.list_instances(ListInstancesRequest(**query))

    def instance(self, instance_id=None):
        return self.client.show_instance(ShowInstanceRequest(instance_id or self.instance_id))

    def shown(self):
        return self.instance().to_json_object()

    def start_backup(self, body=None, instance_id=None):
        return self.client.copy_instance(CopyInstanceRequest(instance_id or self.instance_id, body))

    def list(self, instance_id=None, **query):
        return self.client.list_backup_records(ListBackupRecordsRequest(instance_id or self.instance_id, **query))

    def records(self, **query):
        """The records as JSON: the client turns a number into a string and anything into a boolean without a word."""
        body = self.list(**{"limit": PAGE_MAX, **query}).to_json_object()
        assert_list_envelope(body)
        return body["backup_record_response"]

    def delete(self, backup_id, instance_id=None):
        return self.client.delete_backup_file(DeleteBackupFileRequest(backup_id, instance_id or self.instance_id))

    def links(self, backup_id, expiration, instance_id=None):
        body = DownloadBackupFilesReq(expiration=expiration)
        request = ListBackupFileLinksRequest(instance_id or self.instance_id, backup_id, body)
        return self.client.list_backup_file_links(request)

    def find(self, backup_id):
        return next((record for record in self.records() if record["backup_id"] == backup_id), None)

    def wait_idle(self):
        wait_until(lambda: is_idle(self.shown()) or None, "the instance runs and nothing is done with it")

    def wait_backup(self, backup_id):
        return follow(lambda: self.find(backup_id), assert_pending, f"backup {backup_id}")

    def backup(self, body=None):
        self.wait_idle()
        return self.wait_backup(self.start_backup(body).backup_id)

    def history(self, count):
        """At least so many records, made now as far as they are missing."""
        self.wait_idle()
        while len(self.records()) < count:
            self.backup()
        return self.records()

    def start_restore(self, body=None, instance_id=None):
        return self.client.restore_instance(RestoreInstanceRequest(instance_id or self.instance_id, body))

    def list_restores(self, instance_id=None, **query):
        return self.client.list_restore_records(ListRestoreRecordsRequest(instance_id or self.instance_id, **query))

    def restores(self, **query):
        body = self.list_restores(**{"limit": PAGE_MAX, **query}).to_json_object()
        assert_restore_list_envelope(body)
        return body["restore_record_response"]

    def find_restore(self, restore_id):
        return next((record for record in self.restores() if record["restore_id"] == restore_id), None)

    def wait_restore(self, restore_id):
        return follow(lambda: self.find_restore(restore_id), assert_restore_pending, f"restore {restore_id}")

    def restore(self, body):
        """Gives the record when the instance is in service again."""
        self.wait_idle()
        record = self.wait_restore(self.start_restore(body).restore_id)
        self.wait_idle()
        return record


@contextmanager
def refused(status, code):
    """The service answers with this error, in the shape the client reads, under a request id the client shows."""
    with pytest.raises(ClientRequestException) as caught:
        yield caught
    error = caught.value
    assert (error.status_code, error.error_code) == (status, code), str(error)
    assert error.request_id
    assert_published_message(code, error.error_msg)
