#!/bin/sh
# etcd 3.5 as packaged by Debian 13.
set -eu
apt-get install -y --no-install-recommends etcd-server
install -d -m 700 -o etcd -g etcd /var/lib/etcd
