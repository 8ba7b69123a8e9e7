"""Times of the dashboards' queries, through Grafana as a browser asks them."""

from __future__ import annotations

import time
from urllib.parse import urlencode

from tests.grafana.provisioned import Provisioned, queries
from tests.vendor.servers import Server


def measure(server: Server, made: Provisioned) -> None:
    """Print how long the queries of each dashboard take, one after the other."""
    for uid, dashboard in made.dashboards.items():
        now = int(time.time())
        hours = {"now-30d": 24 * 30, "now-6h": 6}[dashboard["time"]["from"]]
        each = []
        for query in queries(made):
            if query.dashboard != uid:
                continue
            text = query.text.replace("$timeFilter", f"time >= {now - hours * 3600}s and time <= {now}s")
            args = {"db": "power", "epoch": "ms", "q": text.replace("$__interval", "1m")}
            began = time.perf_counter()
            answer = server.ask("GET", f"/api/datasources/proxy/uid/influxdb/query?{urlencode(args)}")
            each.append((time.perf_counter() - began) * 1000)
            assert answer.status == 200, answer
        print(f"{uid:15} {len(each)} queries: {sum(each):.0f} ms together, the slowest {max(each):.0f} ms")
