#!/bin/sh
# The data that the image was built with, an administrator, and the test's own SQL; then the server.
set -eu
data=/var/lib/mysql
for argument in "$@"; do
    case $argument in --datadir=*) data=${argument#*=} ;; esac
done
if [ ! -d "$data/mysql" ]; then
    cp -a /usr/share/leasehold/data/. "$data"
    chown mysql:mysql "$data"
    {
        echo "ALTER USER 'root'@'localhost' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
        echo "CREATE USER 'root'@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
        echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
        for file in /docker-entrypoint-initdb.d/*.sql; do
            if [ -e "$file" ]; then cat "$file"; fi
        done
    } > /tmp/init.sql
    chmod 644 /tmp/init.sql
    set -- "$@" --init-file=/tmp/init.sql
fi
exec setpriv --reuid=mysql --regid=mysql --clear-groups "$@"
