#!/bin/sh
# The main job on the embedded bundle: the example images, redrawn from their feature maps. Then a
# concept of one of them: the picture with less of it, and where that differs.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build}
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
"$build/featinv" reconstruct models/examples -o "$build/demo"
"$build/featinv" viz models/examples/car-on-grass.png --concepts car-on-grass --concept 0 --pairs 3 \
    -q -o "$build/demo-concept"
echo "look at $build/demo/report.html"
echo "    and $build/demo-concept/index.html: what the concept of the grass stands for"
