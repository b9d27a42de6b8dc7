"""MinIO's server, for tests of the S3 adapter."""

from crewship.provision.go import Program

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
"""Pinned: MinIO publishes neither binaries nor images any more. ``deploy/minio/Dockerfile`` builds the same; a test compares."""

MINIO = Program(name="minio", package=f"github.com/minio/minio@{VERSION}", called="MinIO's server", takes="90 s")
