#!/bin/sh
# PostgreSQL 17 as packaged by Debian 13. Variables, folders and command are those of the official image.
set -eu
# Without a cluster of the package's own.
install -d /etc/postgresql-common
echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold postgresql-17
install -d -m 700 -o postgres -g postgres /var/lib/postgresql/data /usr/share/leasehold
setpriv --reuid=postgres --regid=postgres --clear-groups \
    /usr/lib/postgresql/17/bin/initdb --pgdata=/usr/share/leasehold/data --username=postgres --auth-local=trust \
    --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
echo "host all all all scram-sha-256" >> /usr/share/leasehold/data/pg_hba.conf
