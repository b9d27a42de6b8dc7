#!/bin/sh
# Runs once, when the database folder is empty: a role and databases for the platform, and others for Temporal, so that neither
# can read the other's.
set -eu

psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set=crewship="$CREWSHIP_DB_PASSWORD" --set=temporal="$TEMPORAL_DB_PASSWORD" <<'SQL'
CREATE ROLE crewship LOGIN PASSWORD :'crewship';
CREATE DATABASE crewship OWNER crewship;
REVOKE ALL ON DATABASE crewship FROM PUBLIC;
CREATE ROLE temporal LOGIN PASSWORD :'temporal';
CREATE DATABASE temporal OWNER temporal;
REVOKE ALL ON DATABASE temporal FROM PUBLIC;
CREATE DATABASE temporal_visibility OWNER temporal;
REVOKE ALL ON DATABASE temporal_visibility FROM PUBLIC;
SQL
