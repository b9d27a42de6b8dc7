"""The object store that a URL names."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from crewship.storage import ObjectStore


def open_store(url: str) -> ObjectStore:
    """``file:///folder``, or ``s3+http(s)://key:secret@host:port/bucket[?region=...]``; connects at the first call, not here.

    Raises:
        ValueError: the URL is none of these. The message does not repeat it, for it may hold a secret.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "file" if parts.netloc in ("", "localhost") and parts.path.startswith("/"):
            from crewship.folder_storage import FolderStore

            return FolderStore(Path(unquote(parts.path)))
        case "s3+http" | "s3+https":
            from crewship.s3_storage import S3Store  # loads urllib3 and minio: 150 ms that the embedded platform saves

            return S3Store(url)
    raise ValueError("the object store's URL is neither file:///folder nor s3+http(s)://key:secret@host:port/bucket")
