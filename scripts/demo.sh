#!/bin/sh
# The main job on the embedded bundle: the example images, redrawn from their feature maps.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
"$build/featinv" reconstruct models/examples -o "$build/demo"
echo "look at $build/demo/report.html"
