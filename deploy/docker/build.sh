#!/bin/sh
# Inside the build image: compiles one service into /out/bin. Its own file, so that the two build
# stages of the Dockerfile (with and without libtorch) share it.
set -eu
service=$1
case $service in
  rapportctl) package=rapportctl ;;
  *) package=rapport-$service ;;
esac
cargo build --release --locked -p "$package"
install -D "$CARGO_TARGET_DIR/release/$package" "/out/bin/$package"
# The image's entry point has one name for all services.
ln -s "$package" /out/bin/service
# Folders that volumes are mounted on; a new named volume takes their owner over.
mkdir -p /out/state/offline /out/state/registry
