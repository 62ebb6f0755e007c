#!/bin/sh
# Builds the image and pushes it to Docker Hub, from where workers pull it.
#   ./build.sh                 asks for your Docker Hub username
#   ./build.sh USERNAME        or REGISTRY/NAME, such as registry.example.com:5000/team
set -eu
cd "$(dirname "$0")"

user=${1:-}
if [ -z "$user" ]; then
    printf 'Docker Hub username: '
    read -r user
fi
[ -n "$user" ] || { echo "No username: nothing was built." >&2; exit 2; }

image=$user/cloudai-sample-task:latest
docker build -t "$image" .
docker push "$image" || { echo "Not pushed. First: docker login" >&2; exit 1; }
echo "Pushed $image. Now:"
echo "  cloudai task $image -cpu_cores 2.0 -mem 1.0 --follow"
