#!/bin/sh
# Redis 8.0 as packaged by Debian 13.
set -eu
apt-get install -y --no-install-recommends redis-server
install -d -o redis -g redis /data
