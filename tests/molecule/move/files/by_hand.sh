#!/bin/bash
# What the owner did by hand on his first card, step by step, here on a blank virtual Pi as user pi. The passwords and the
# token that he chose, or got, stay on the Pi: the laptop never sees them.
set -euo pipefail
cd "$(dirname "$0")"

say() { echo "== $*"; }
until_it_answers() { timeout 60 sh -c "until curl -fsS -o /dev/null '$1' 2>/dev/null; do sleep 0.5; done"; }
chosen() { openssl rand -hex 12; }
json() { python3 -c 'import json, sys; print(json.dumps(dict(zip(sys.argv[1::2], sys.argv[2::2]))))' "$@"; }

say "eth0: static, the gateway left empty"
sudo nmcli --wait 30 connection add type ethernet con-name cable ifname eth0 \
    ipv4.method manual ipv4.addresses "$ETH0" ipv6.method disabled connection.autoconnect-priority 1
sudo nmcli --wait 30 connection up cable

say "InfluxDB and Grafana, as the vendors' pages say"
curl -fsS "$INFLUXDB_KEY" | sudo tee /etc/apt/keyrings/influxdata-archive.asc >/dev/null
echo "deb [signed-by=/etc/apt/keyrings/influxdata-archive.asc] $INFLUXDB_REPOSITORY stable main" |
    sudo tee /etc/apt/sources.list.d/influxdata.list >/dev/null
if [ "$GRAFANA_REPOSITORY" != "$INFLUXDB_REPOSITORY" ]; then
    curl -fsS "$GRAFANA_KEY" | sudo tee /etc/apt/keyrings/grafana.asc >/dev/null
    echo "deb [signed-by=/etc/apt/keyrings/grafana.asc] $GRAFANA_REPOSITORY stable main" |
        sudo tee /etc/apt/sources.list.d/grafana.list >/dev/null
fi
sudo apt-get -qq update
sudo DEBIAN_FRONTEND=noninteractive apt-get -qq install "$INFLUXDB_PACKAGE" "$GRAFANA_PACKAGE" >/dev/null
sudo systemctl enable --now influxdb grafana-server

say "InfluxDB: its setup, and the token copied to a file"
until_it_answers http://localhost:8086/ready
password=$(chosen)
json username admin password "$password" org "$INFLUXDB_ORG" bucket "$INFLUXDB_BUCKET" |
    curl -fsS --json @- http://localhost:8086/api/v2/setup |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["auth"]["token"])' >influxdb-token.txt
INFLUXDB_TOKEN=$(cat influxdb-token.txt)
export INFLUXDB_TOKEN

say "Grafana: another password, the data source and the dashboard by hand"
until_it_answers http://localhost:3000/api/health
grafana=http://admin:admin@localhost:3000/api
python3 - "$INFLUXDB_TOKEN" "$INFLUXDB_BUCKET" <<'EOF' | curl -fsS --json @- "$grafana/datasources"
import json, sys
token, bucket = sys.argv[1:]
header = {"jsonData": {"dbName": bucket, "httpHeaderName1": "Authorization"},
          "secureJsonData": {"httpHeaderValue1": f"Token {token}"}}
print(json.dumps({"name": "InfluxDB", "type": "influxdb", "access": "proxy", "url": "http://localhost:8086", **header}))
EOF
python3 -c 'import json; print(json.dumps({"dashboard": json.load(open("dashboard.json"))}))' |
    curl -fsS --json @- "$grafana/dashboards/db"
json password "$(chosen)" | curl -fsS -X PUT --json @- "$grafana/admin/users/1/password"

say "what pip left in the home, and the service with the token pasted in; started, never enabled"
mkdir -p ~/.local/lib/python3.13/site-packages/influxdb_client
python3 main.py "$HOURS"
sed "s|PASTE_THE_TOKEN_HERE|$INFLUXDB_TOKEN|; s|PASTE_THE_ORGANIZATION_HERE|$INFLUXDB_ORG|; s|PASTE_THE_BUCKET_HERE|$INFLUXDB_BUCKET|" \
    power.service.template | sudo tee /etc/systemd/system/power.service >/dev/null
sudo systemctl daemon-reload
sudo systemctl start power
