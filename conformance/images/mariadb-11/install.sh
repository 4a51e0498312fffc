#!/bin/sh
# MariaDB 11 as packaged by Debian 13. Variables, folders and command are those of the official image.
set -eu
apt-get install -y --no-install-recommends mariadb-server-core mariadb-client-core
id mysql || useradd --system --no-create-home mysql
install -d -m 750 -o mysql -g mysql /var/lib/mysql /run/mysqld /usr/share/leasehold
mariadb-install-db --no-defaults --user=mysql --datadir=/usr/share/leasehold/data --skip-name-resolve \
    --skip-test-db --auth-root-authentication-method=normal --innodb-log-file-size=8M
