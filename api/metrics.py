"""``GET /metrics`` for Prometheus: requests, streams, runs by status. One registry an app, so that tests do not share it."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Metrics:
    """The process's numbers; the database's are filled in when they are asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "crewship_http_requests", "Requests answered", ["method", "operation", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "crewship_http_response_start_seconds", "Time to the response's first byte", ["method", "operation"],
            registry=self.registry,
        )  # fmt: skip
        self.streams = Gauge("crewship_event_streams", "Event streams open in this process", registry=self.registry)
        self.feeds = Gauge("crewship_event_feeds", "Logs that this process follows", registry=self.registry)
        self.blocks = Gauge("crewship_event_cache_bytes", "Rendered pieces of logs held", registry=self.registry)
        self.runs = Gauge("crewship_runs", "Runs by status", ["status"], registry=self.registry)

    def render(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class RequestMetrics:
    """ASGI middleware that counts and times requests by their operation, never by their path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                operation = getattr(scope.get("route"), "name", "none")
                method = scope["method"]
                self.metrics.requests.labels(method, operation, str(message["status"])).inc()
                self.metrics.latency.labels(method, operation).observe(time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, counted)
