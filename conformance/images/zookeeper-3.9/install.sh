#!/bin/sh
# ZooKeeper 3.9 as packaged by Debian 13. Folders and command are those of the official image.
set -eu
apt-get install -y --no-install-recommends zookeeper
install -d -o zookeeper -g zookeeper /data /datalog /conf
