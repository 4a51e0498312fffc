#!/bin/sh
# Valkey 8.1 as packaged by Debian 13.
set -eu
apt-get install -y --no-install-recommends valkey-server
install -d -o valkey -g valkey /data
