#!/bin/sh
# Makes the namespace and the search attributes by which people find runs in Temporal's UI. Safe to run at each start.
set -eu
export TEMPORAL_ADDRESS=temporal:7233

if ! temporal operator namespace describe --namespace default >/dev/null 2>&1; then
    # Closed workflows are never read by the platform: their logs are in the object store.
    temporal operator namespace create --namespace default --retention 72h
fi

# A namespace that was made just now is known to all of the server after some seconds.
tries=0
until there=$(temporal operator search-attribute list --namespace default); do
    tries=$((tries + 1))
    [ "$tries" -lt 30 ] || exit 1
    sleep 1
done
for name in CrewshipProject CrewshipDeployment CrewshipStatus; do
    case "$there" in
        *"$name"*) ;;
        *) temporal operator search-attribute create --namespace default --name "$name" --type Keyword ;;
    esac
done
