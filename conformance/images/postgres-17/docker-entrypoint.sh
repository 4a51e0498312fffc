#!/bin/sh
# The data that the image was built with, an administrator, and the test's own SQL; then the server.
set -eu
unprivileged() {
    setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
}
# Anything else runs as it is, as in the official image.
if [ "$1" != postgres ]; then
    exec "$@"
fi
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    cp -a /usr/share/leasehold/data/. "$PGDATA"
    chown postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
    {
        echo "ALTER ROLE postgres PASSWORD '$POSTGRES_PASSWORD';"
        for file in /docker-entrypoint-initdb.d/*.sql; do
            if [ -e "$file" ]; then cat "$file"; fi
        done
    } | unprivileged postgres --single -D "$PGDATA" -c fsync=off -c log_checkpoints=off postgres
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
