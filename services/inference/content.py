"""What may stand around a request's JSON: compression, and binary tensors after it."""

import zlib

from services.inference.protocol import RequestError

_GZIP = b"\x1f\x8b"
_MOST_MEMBERS = 1024  # each takes some microseconds, however little it holds
_PART_BYTES = 16 * 1024  # what follows a member is copied: this much, not the whole rest of the body


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body as it was before `Content-Encoding`, read no further than the limit.

    Raises:
        RequestError: if the encoding is another one, the body is not of it, or what it holds is over the limit.
    """
    name = encoding.strip().lower()
    if name == b"identity":
        return body
    if name not in (b"gzip", b"deflate"):
        raise RequestError(415, f"the content encoding must be gzip or deflate, given: {encoding.decode('latin-1')!r}")
    try:
        return _unzip(body, limit)
    except zlib.error as error:
        raise RequestError(400, f"the body is not {name.decode()}: {error}") from None


def _unzip(body: bytes, limit: int) -> bytes:
    """The content of all members of a gzip file (RFC 1952, 2.2), or of a zlib stream, which has but one."""
    is_gzip = body.startswith(_GZIP)
    content, at, members = bytearray(), 0, 0
    unzip = None
    while at < len(body):
        if not unzip:
            members += 1
            if members > (_MOST_MEMBERS if is_gzip else 1):
                raise zlib.error(f"there is more after {members - 1} of its members")
            unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16 * is_gzip)
        part = body[at : at + _PART_BYTES]
        content += unzip.decompress(part, limit + 1 - len(content))
        if len(content) > limit:
            raise RequestError(
                413, f"the body holds more than the limit of {limit} bytes; send fewer rows in a request"
            )
        at += len(part) - len(unzip.unused_data)
        if unzip.eof:
            unzip = None
    if unzip or not members:
        raise zlib.error("it ends too early")
    return bytes(content)


def split_binary(body: bytes, header_length: bytes) -> tuple[bytes, bytes]:
    """The JSON of a request and the binary data after it, as `Inference-Header-Content-Length` divides them.

    Raises:
        RequestError: if the header is no number, or more than there is.
    """
    length = int(header_length) if header_length.isdigit() and len(header_length) < 12 else -1
    if not 0 < length <= len(body):
        given = header_length.decode("latin-1")
        raise RequestError(
            400,
            f"Inference-Header-Content-Length must be the size of the JSON, from 1 to {len(body)}, given: {given!r}",
        )
    return body[:length], body[length:]
