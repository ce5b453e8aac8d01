#!/bin/sh
# ci.sh [BASE] - what a CI job runs on each change of policies/. BASE is a directory with
# the policies as they were before.
set -eu
cd "$(dirname "$0")"

echo "== validate"
weir policy validate --config agent.yaml policies

# What must hold, whatever changes. A claim that does not is printed with a request that
# gets through, and fails the job; so does one that weir cannot decide.
echo "== prove"
weir policy prove --config agent.yaml --policy policies \
    --never 'from shop/ci to shop/orders http DELETE|PUT|POST|PATCH /.*' \
    --never 'from shop/frontend to shop/database' \
    --never 'from world to shop/orders' \
    --only 'to shop/orders from shop/frontend tcp/8080 http GET|POST /orders.*' \
    --only 'to shop/orders from shop/ci tcp/8080 http GET /health.*' \
    --only 'from shop/orders to shop/database tcp/5432'

# What the change means, for whoever reviews it. A difference is no failure: 1 is the
# status for that. Others are.
if [ $# -gt 0 ]; then
    echo "== diff"
    status=0
    weir policy diff --config agent.yaml "$1" policies || status=$?
    [ "$status" -le 1 ] || exit "$status"
fi
