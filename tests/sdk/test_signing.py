"""The test-signer itself, against the published example and signatures recorded from unmodified clients."""

import json
from urllib.parse import parse_qsl

import pytest

from contract import FIXTURES
from signing import Access, Credential, Request, authorization, canonical_request, sha256_hex, signature

VECTORS = json.loads((FIXTURES / "signature_vectors.json").read_text(encoding="utf-8"))
DIALECTS = {"Access": Access(), "Credential": Credential()}


@pytest.fixture(params=VECTORS, ids=[vector["source"] for vector in VECTORS])
def vector(request):
    return request.param


def request_of(vector) -> Request:
    return Request(
        method=vector["method"],
        path=vector["path"],
        query=parse_qsl(vector["query"], keep_blank_values=True),
        headers=vector["headers"],
        body=vector["body"].encode(),
    )


def test_vectors_cover_both_dialects_and_the_published_example():
    assert {vector["dialect"] for vector in VECTORS} == set(DIALECTS)
    assert VECTORS[0]["source"].startswith("published")


def test_signer_gives_the_recorded_signature(vector):
    dialect, request = DIALECTS[vector["dialect"]], request_of(vector)
    signed = vector["signed_headers"].split(";")

    canonical = canonical_request(dialect, request, signed)
    if "canonical_request" in vector:
        assert canonical == vector["canonical_request"]
    if "hashed_canonical_request" in vector:
        assert sha256_hex(canonical.encode()) == vector["hashed_canonical_request"]
    if "string_to_sign" in vector:
        assert dialect.string_to_sign(request.headers["x-sdk-date"], canonical) == vector["string_to_sign"]
    assert signature(dialect, vector["sk"], request, signed) == vector["signature"]
    if "authorization" in vector:
        assert authorization(dialect, vector["ak"], vector["sk"], request, signed) == vector["authorization"]
