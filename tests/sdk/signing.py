"""The two dialects of SDK-HMAC-SHA256, written from the contract and sharing no code with the service or an SDK."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

ALGORITHM = "SDK-HMAC-SHA256"

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Request:
    """A request as it will be sent; header names are lower case, path and query are not yet encoded."""

    method: str
    path: str
    query: Pairs = ()
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def encode(text: str) -> str:
    return quote(text, safe="-_.~")


def encode_query(pairs: Pairs) -> str:
    return "&".join(f"{encode(key)}={encode(value)}" for key, value in pairs)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hmac_sha256(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def canonical_uri(path: str) -> str:
    """Each segment encoded; a slash at the end that the request line itself need not have."""
    encoded = "/".join(encode(segment) for segment in path.split("/"))
    return encoded if encoded.endswith("/") else encoded + "/"


class Access:
    """`Access=`: Huawei's Python, Node and Java SDKs and the huaweicloud Terraform provider."""

    name = "Access"
    default_signed = ("content-type", "host", "user-agent", "x-project-id", "x-sdk-date")

    def query(self, request: Request) -> str:
        return encode_query(sorted(request.query))

    def header_value(self, value: str) -> str:
        return value.strip()

    def payload(self, request: Request) -> bytes:
        return request.body

    def string_to_sign(self, date: str, canonical: str) -> str:
        return f"{ALGORITHM}\n{date}\n{sha256_hex(canonical.encode())}"

    def key(self, secret: str, date: str) -> bytes:
        return secret.encode()

    def identity(self, access: str, date: str) -> str:
        return f"Access={access}"


class Credential:
    """`Credential=`: gophertelekomcloud and the opentelekomcloud Terraform provider."""

    name = "Credential"
    default_signed = ("accept", "host", "user-agent", "x-sdk-date")

    def __init__(self, region: str = "", service: str = ""):
        # The clients seen in the wild leave both empty, which gives a scope with three slashes in a row.
        self.region = region
        self.service = service

    def query(self, request: Request) -> str:
        return "" if self._query_is_payload(request) else self._one_value_per_key(request.query)

    def header_value(self, value: str) -> str:
        return re.sub(r"\s+", " ", value)

    def payload(self, request: Request) -> bytes:
        if self._query_is_payload(request):
            return self._one_value_per_key(request.query).encode()
        return request.body

    def string_to_sign(self, date: str, canonical: str) -> str:
        return f"{ALGORITHM}\n{date}\n{self._scope(date)}\n{sha256_hex(canonical.encode())}"

    def key(self, secret: str, date: str) -> bytes:
        key = f"SDK{secret}".encode()
        for part in (date[:8], self.region, self.service, "sdk_request"):
            key = hmac_sha256(key, part)
        return key

    def identity(self, access: str, date: str) -> str:
        return f"Credential={access}/{self._scope(date)}"

    def _scope(self, date: str) -> str:
        return f"{date[:8]}/{self.region}/{self.service}/sdk_request"

    def _query_is_payload(self, request: Request) -> bool:
        return request.method == "POST" and not request.body

    def _one_value_per_key(self, query: Pairs) -> str:
        first: dict[str, str] = {}
        for key, value in query:
            first.setdefault(key, value)
        return encode_query(sorted(first.items(), key=lambda pair: pair[0].lower()))


Dialect = Access | Credential


def canonical_request(dialect: Dialect, request: Request, signed: Sequence[str]) -> str:
    headers = "".join(f"{name}:{dialect.header_value(request.headers[name])}\n" for name in signed)
    return "\n".join((
        request.method,
        canonical_uri(request.path),
        dialect.query(request),
        headers,
        ";".join(signed),
        sha256_hex(dialect.payload(request)),
    ))


def signature(dialect: Dialect, secret: str, request: Request, signed: Sequence[str]) -> str:
    date = request.headers["x-sdk-date"]
    to_sign = dialect.string_to_sign(date, canonical_request(dialect, request, signed))
    return hmac_sha256(dialect.key(secret, date), to_sign).hex()


def authorization(dialect: Dialect, access: str, secret: str, request: Request, signed: Sequence[str]) -> str:
    identity = dialect.identity(access, request.headers["x-sdk-date"])
    value = signature(dialect, secret, request, signed)
    return f"{ALGORITHM} {identity}, SignedHeaders={';'.join(signed)}, Signature={value}"
