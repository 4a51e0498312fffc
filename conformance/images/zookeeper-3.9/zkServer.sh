#!/bin/sh
# Takes the place of the official image's: Debian's own is for a system service.
# The last two libraries are what TLS needs and the package forgets.
jars=/usr/share/java
# shellcheck disable=SC2086 # several words
exec java $JVMFLAGS -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp /conf:$jars/zookeeper.jar:$jars/slf4j-simple.jar:$jars/netty-codec.jar:$jars/netty-resolver.jar \
    org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg
