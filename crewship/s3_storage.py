"""The object store in MinIO or any other S3.

Streams go up in parts of 8 MiB, three at a time, so 32 MiB is what a put of any size holds. S3's errors become the port's here:
a key that is not there is ``ObjectMissing``, everything else that is not a mistake of ours ``Unavailable``.
"""

import contextlib
import io
from collections.abc import Generator, Iterator
from typing import BinaryIO, Final
from urllib.parse import parse_qs, unquote, urlsplit

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

from crewship.errors import Unavailable
from crewship.folder_storage import CHUNK_BYTES, validated_key, validated_prefix
from crewship.storage import ObjectInfo, ObjectMissing

_PART_BYTES: Final = 8 * 1024 * 1024
_PROBE_KEY: Final = "check/writable"


class S3Store:
    """An ``ObjectStore`` in one bucket.

    Args:
        url: ``s3+http(s)://key:secret@host:port/bucket``, key and secret URL-quoted; ``?region=`` if it is not us-east-1.

    Raises:
        ValueError: a part of the URL is missing. The message does not repeat it, for it holds a secret.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._bucket = parts.path.strip("/")
        if not (parts.hostname and parts.username and parts.password and self._bucket) or "/" in self._bucket:
            raise ValueError("the object store's URL is not s3+http(s)://key:secret@host:port/bucket")
        self._endpoint = parts.netloc.rpartition("@")[2]
        self._client = Minio(
            self._endpoint,
            access_key=unquote(parts.username),
            secret_key=unquote(parts.password),
            secure=parts.scheme == "s3+https",
            region=parse_qs(parts.query).get("region", ["us-east-1"])[
                0
            ],  # named, so that it is not asked for at each start
            http_client=urllib3.PoolManager(
                maxsize=32,
                timeout=urllib3.Timeout(connect=3, read=60),
                # A request's body is in memory, a part at most, and a put of the same bytes twice is harmless.
                retries=urllib3.Retry(total=3, backoff_factor=0.1, status_forcelist=(500, 502, 503, 504)),
            ),
        )

    def create(self) -> None:
        # Another process may be faster.
        with self._translated(), _suppressed("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            if not self._client.bucket_exists(self._bucket):
                self._client.make_bucket(self._bucket)

    def put(self, key: str, data: bytes | BinaryIO) -> int:
        validated_key(key)
        if isinstance(data, bytes):
            with self._translated():
                self._client.put_object(self._bucket, key, io.BytesIO(data), len(data))
            return len(data)
        counted = _Counted(data)
        with self._translated():
            self._client.put_object(self._bucket, key, counted, -1, part_size=_PART_BYTES)  # type: ignore[arg-type]
        return counted.size_bytes

    def open(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        validated_key(key)
        if length == 0:
            self.stat(key)  # the client takes a length of 0 as "all of it"
            return iter(())
        try:
            with self._translated(key):
                response = self._client.get_object(self._bucket, key, offset, length or 0)
        except _PastTheEnd:
            return iter(())
        chunks = self._chunks(response)
        # Up to its first yield, so that the connection is given back also when nobody reads.
        next(chunks)
        return chunks

    def stat(self, key: str) -> ObjectInfo:
        validated_key(key)
        with self._translated(key):
            try:
                found = self._client.stat_object(self._bucket, key)
            except S3Error as error:
                # The answer to a HEAD has no body that would tell a lost bucket from a key that is not there.
                if error.code == "NoSuchKey" and not self._client.bucket_exists(self._bucket):
                    raise self._without_bucket() from error
                raise
        return ObjectInfo(key, found.size or 0)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        validated_prefix(prefix)
        with self._translated():
            for found in self._client.list_objects(self._bucket, prefix, recursive=True):
                yield ObjectInfo(found.object_name or "", found.size or 0)

    def delete(self, key: str) -> None:
        validated_key(key)
        with contextlib.suppress(ObjectMissing), self._translated(key):
            self._client.remove_object(self._bucket, key)

    def delete_prefix(self, prefix: str) -> None:
        keys = (DeleteObject(found.key) for found in self.list(prefix))
        with self._translated():
            for failed in self._client.remove_objects(self._bucket, keys):
                raise Unavailable(f"The object store at {self._endpoint} did not delete all: {failed.code}.")

    def check(self) -> None:
        self.put(_PROBE_KEY, b"")
        self.delete(_PROBE_KEY)

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Generator[bytes, None, None]:
        """An empty piece, then those of the body."""
        try:
            yield b""
            with self._translated():
                yield from response.stream(CHUNK_BYTES)
        finally:
            response.close()
            response.release_conn()

    def _without_bucket(self) -> Unavailable:
        return Unavailable(
            f"The object store at {self._endpoint} has no bucket {self._bucket}.",
            hint="Is it the right server, with its data? `crewship doctor` tells more.",
        )

    @contextlib.contextmanager
    def _translated(self, key: str | None = None) -> Iterator[None]:
        """S3's and the connection's errors as the port's: with a ``key``, one that is not there as ``ObjectMissing``."""
        try:
            yield
        except S3Error as error:
            if key is not None and error.code == "NoSuchKey":
                raise ObjectMissing(key) from None
            if error.code == "NoSuchBucket":
                raise self._without_bucket() from error
            if error.code == "InvalidRange":
                raise _PastTheEnd from None
            raise Unavailable(
                f"The object store at {self._endpoint} refused: {error.code}.",
                hint="Check key, secret and bucket in CREWSHIP_OBJECT_STORE; `crewship doctor` tells more.",
            ) from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise Unavailable(
                f"The object store at {self._endpoint} does not answer.",
                hint="Check that it runs and CREWSHIP_OBJECT_STORE; `crewship doctor` tells more.",
            ) from error


class _PastTheEnd(Exception):
    """The range begins where the object ends, or after."""


class _Counted:
    """A stream that counts what is read; the client does not tell how much it stored."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.size_bytes += len(data)
        return data


@contextlib.contextmanager
def _suppressed(*codes: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code not in codes:
            raise
