#!/bin/sh
# Brings both of Temporal's schemas to the version of the tool's image. Safe to run at each start.
set -eu

tool() {
    temporal-sql-tool --plugin postgres12_pgx --ep postgres --port 5432 --user temporal --password "$TEMPORAL_DB_PASSWORD" "$@"
}

for pair in temporal:temporal temporal_visibility:visibility; do
    database=${pair%%:*}
    schema=${pair##*:}
    tool --db "$database" setup-schema --version 0.0
    tool --db "$database" update-schema --schema-name "postgresql/v12/$schema"
done
