#!/bin/sh
# MySQL 9 as packaged by Debian's unstable, whose lists may be older than they claim to be valid. Variables, folders and
# command are those of the official image.
set -eu
sed 's/trixie/sid/' /etc/apt/sources.list > /etc/apt/sources.list.d/sid.list
apt-get -o Acquire::Check-Valid-Until=false update
apt-get install -y --no-install-recommends mysql-server-core
id mysql || useradd --system --no-create-home mysql
install -d -m 750 -o mysql -g mysql /var/lib/mysql /var/run/mysqld /var/lib/mysql-files /usr/share/leasehold
mysqld --no-defaults --initialize-insecure --user=mysql --datadir=/usr/share/leasehold/data \
    --innodb-redo-log-capacity=8M --innodb-data-file-path=ibdata1:12M:autoextend
