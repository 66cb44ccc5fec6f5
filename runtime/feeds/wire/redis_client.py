"""The client of Redis, imported where something is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def import_redis() -> Any:
    """redis.

    Raises:
        ImportError: it is not installed.
    """
    import redis
    import redis.backoff
    import redis.retry

    return redis


def connect(connection: Mapping[str, Any], *, timeout_s: float) -> Any:
    """A client that never waits to try again by itself: the loop must not, and the feed does."""
    redis = import_redis()
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    return redis.Redis(**connection, socket_timeout=timeout_s, retry=retry)
