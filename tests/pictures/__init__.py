"""The dashboards on a real Grafana, photographed: `make pictures GRAFANA_HOME=DIR`.

Needs Grafana's files (bin/, conf/, public/), Chromium, and a database: InfluxDB's own `influxd` where INFLUXD names it, else
the rehearsal's substitute.
"""
