#!/bin/sh
# Tries the task on this machine before it goes to a worker: in Python, then in its image where
# docker is here (--no-docker: in Python alone).
set -eu
cd "$(dirname "$0")"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

check() {
    [ "$(tail -n 1 "$out/log")" = completed ] || { cat "$out/log"; echo "FAILED: $1" >&2; exit 1; }
    echo "OK: $1"
}

python3 task.py --out "$out" > "$out/log" 2>&1 || true
check "in Python"
grep -q '"count": 25' "$out/summary.json" || { echo "FAILED: summary.json" >&2; exit 1; }
echo "OK: summary.json"

if [ "${1:-}" = --no-docker ] || ! command -v docker > /dev/null; then
    exit 0
fi
image=cloudai-sample-task:latest
docker build -q -t "$image" . > /dev/null
docker run --rm --network none --memory 512m --cpus 1 "$image" --points 100 > "$out/log" 2>&1 || true
check "in its image, $image"
