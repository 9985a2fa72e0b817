"""What may stand around a request's JSON: compression, and binary tensors after it."""

import zlib

from services.inference.protocol import RequestError


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
    unzip = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # reads the header to tell gzip from zlib
    try:
        content = unzip.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(400, f"the body is not {name.decode()}: {error}") from None
    if len(content) > limit:
        raise RequestError(413, f"the body holds more than the limit of {limit} bytes; send fewer rows in a request")
    if not unzip.eof:
        raise RequestError(400, f"the body is not {name.decode()}: it ends too early")
    return content


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
